"""What was found and refused, as report.json and as one HTML page without anything from outside."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from record_redaction import RecordRedactor, Tally

NAMES_NOT_COVERED = "names and addresses: not covered"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } th, td { padding: .3rem .9rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left } th { font-weight: 600; background: #f5f5f5 }
.gap { border-left: 4px solid #b6493b; padding: .2rem 1rem; background: #fbf1ef }
"""
_ACTIONS = {
    "mask": "Each finding is masked by the name of its type.",
    "hash": "Each finding is replaced by its type and a keyed hash.",
    "replace": "Each finding is replaced by a pseudonym of the same shape that cannot exist.",
    "drop": "Each record with a finding is left out.",
}


def summary(tally: Tally, redactor: RecordRedactor, name_recognizer: str) -> dict[str, Any]:
    """What report.json holds."""
    by_type: dict[str, Counter[str]] = defaultdict(Counter)
    for place, number in tally.findings.items():
        entity_type, language = place.split(" ", 1)
        by_type[entity_type][language] += number
    return {
        "action": redactor.action,
        "records": {name: tally.records[name] for name in ("read", "changed", "dropped", "refused")},
        "findings": {kind: dict(sorted(row.items())) for kind, row in sorted(by_type.items())},
        "refusals": dict(tally.reasons),
        "examined": {"fields": redactor.fields, "entity_types": list(redactor.entity_types)},
        "gaps": _gaps(tally, redactor, name_recognizer),
    }


def _gaps(tally: Tally, redactor: RecordRedactor, name_recognizer: str) -> list[str]:
    """What a reader must not take for covered."""
    gaps = [NAMES_NOT_COVERED] if name_recognizer == "none" else []
    if tally.without_names:
        rows = ", ".join(f"{language} ({number} records)" for language, number in sorted(tally.without_names.items()))
        gaps.append(f"{NAMES_NOT_COVERED} in {rows}")
    if tally.not_examined:
        gaps.append(f"fields not examined: {', '.join(sorted(tally.not_examined))}")
    if not redactor.key.stable:
        gaps.append("hashes and pseudonyms are under a random key: they differ between runs")
    return gaps


def write(folder: Path, content: dict[str, Any]) -> None:
    (folder / "report.json").write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(_page(content), encoding="utf-8")


def tally_as_json(tally: Tally) -> str:
    return json.dumps(vars(tally), ensure_ascii=False)


def added(tallies: Iterable[str]) -> Tally:
    """The sum of tallies that ``tally_as_json`` wrote."""
    total = Tally()
    for text in tallies:
        for name, counts in json.loads(text).items():
            getattr(total, name).update(counts)
    return total


def _page(content: dict[str, Any]) -> str:
    counts, findings = content["records"], content["findings"]
    languages = sorted({language for row in findings.values() for language in row})
    rows = [
        [kind, *(row.get(language, 0) for language in languages), sum(row.values())] for kind, row in findings.items()
    ]
    gaps = "".join(f"<li>{escape(gap)}</li>" for gap in content["gaps"])
    refused = _table(["reason", "records"], content["refusals"].items()) if content["refusals"] else "<p>None.</p>"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Redaction report</title><style>{_STYLE}</style></head><body>
<h1>Redaction report</h1>
<p>{counts["read"]} records came in: {sum(sum(row.values()) for row in findings.values())} findings in
{counts["changed"] + counts["dropped"]} of them, {counts["dropped"]} dropped, {counts["refused"]} refused.
{_ACTIONS[content["action"]]}</p>
<h2>What this does not cover</h2>
<ul class="gap">{gaps or "<li>nothing known</li>"}</ul>
<h2>Findings by type and language</h2>
{_table(["type", *languages, "all"], rows) if rows else "<p>None.</p>"}
<h2>Records refused</h2>
{refused}
<h2>Examined</h2>
<p>Fields: {escape(", ".join(content["examined"]["fields"]))}.
Types: {escape(", ".join(content["examined"]["entity_types"]))}.
What was found is in findings.jsonl, by record, place and keyed hash; values are nowhere in this report.</p>
</body></html>
"""


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    return (
        "<table><tr>"
        + "".join(f"<th>{escape(str(cell))}</th>" for cell in head)
        + "</tr>\n"
        + "\n".join(f"<tr>{line}</tr>" for line in lines)
        + "</table>"
    )
