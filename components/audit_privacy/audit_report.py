"""The audit as a page for a compliance officer: the verdict, what was asked and found, and what stays open."""

import itertools
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_checks import NO_FORMAL_GUARANTEE
from privacy_policy import Check

from slmkit import html_report

if TYPE_CHECKING:
    from privacy_audit import Facts

BADGES = {"pass": ("pass", "good"), "fail": ("fail", "bad"), "not_judged": ("not judged", "warn")}
NAMES = {
    "personal_data": "Personal data",
    "verbatim": "Copied passages",
    "canaries": "Planted secrets",
    "personas": "Rare personas",
    "guarantee": "Formal guarantee",
    "singling_out": "Singling out",
    "linkability": "Linkability",
    "inference": "Inference",
}
COLORS = {"synthetic": "#1f5fa8", "quoting its source": "#b9c3cf", "held-out": "#d98a1f"}


def render(decision: Mapping[str, Any], checks: list[Check], facts: "Facts", ledger: Mapping | None) -> str:
    return html_report.page(
        "Privacy audit of synthetic data",
        _verdict(decision, facts),
        "<h2>What was checked</h2>",
        _checks(checks),
        "<h2>Personal data before and after</h2>",
        _personal_data(facts),
        "<h2>Copied passages</h2>",
        _copies(facts),
        "<h2>Planted secrets</h2>" + _canaries(facts) if facts.canaries else "",
        "<h2>Formal guarantee</h2>",
        _guarantee(ledger),
        "<h2>Distance to the closest record</h2>",
        _closest(facts),
    )


def _verdict(decision: Mapping[str, Any], facts: "Facts") -> str:
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in decision["reasons_to_fail"])
    open_checks = [NAMES[r["rule"]].lower() for r in decision["reasons"] if r["outcome"] == "not_judged"]
    left_open = f" Not judged: {escape(', '.join(open_checks))}." if open_checks else ""
    against = f"{facts.num_held_out:,} held-out real records" if facts.num_held_out else "no held-out real records"
    return (
        f'<p style="font-size:1.3rem">Verdict: {html_report.badge(*BADGES[decision["verdict"]])}</p>'
        + (f"<p>Why:</p><ul>{reasons}</ul>" if reasons else "")
        + f"<p>{facts.num_synthetic:,} synthetic records were held against {facts.num_real:,} real records that they "
        f"were made from and {against}. {escape(decision['handling'])}{left_open}</p>"
        '<p class="note">A pass says that these checks found no more than the policy allows. It is evidence, and only '
        "the formal guarantee, where there is one, is proof.</p>"
    )


def _checks(checks: list[Check]) -> str:
    rows = "".join(
        f'<tr><td style="white-space:nowrap"><b>{NAMES[check.rule]}</b>'
        f"<br>{html_report.badge(*BADGES[check.outcome])}</td>"
        f"<td>{escape(check.asked)}</td><td>{escape(check.text)}</td><td>{escape(check.threshold)}</td>"
        f"<td>{escape(check.not_shown)}</td></tr>\n"
        for check in checks
    )
    head = ("", "What was asked", "What was found", "Threshold of the policy", "What it does not show")
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>\n{rows}</table>"


def _personal_data(facts: "Facts") -> str:
    found, recall = facts.personal_data, measured_recall()
    kinds = sorted({*found.real, *found.synthetic, *recall})
    redacted = facts.redaction.get("findings", {})
    rows = [
        [
            kind.replace("_", " "),
            found.real[kind],
            sum(redacted.get(kind, {}).values()),
            found.synthetic[kind],
            found.reappearing[kind],
            _recall(recall.get(kind, {})),
        ]
        for kind in kinds
    ]
    head = [
        "Type",
        "Found in real",
        "Redacted before",
        "Found in synthetic",
        "Values that reappear",
        "Recall of the detector",
    ]
    gaps = ["names and addresses: not covered by the detector of this audit"]
    gaps += [f"in the redaction beforehand: {gap}" for gap in facts.redaction.get("gaps", ())]
    return (
        html_report.table(head, rows)
        + "<p>Not looked for:</p><ul>"
        + "".join(f"<li>{escape(gap)}</li>" for gap in gaps)
        + '</ul><p class="note">Synthetic records may hold values of the form of personal data that belong to nobody; '
        "only values of the real data are counted as reappearing. Values are compared in memory and written nowhere."
        "</p>"
    )


def measured_recall() -> dict[str, dict[str, dict[str, float]]]:
    """By type and data set, what was measured of the detector, where the measurement is shipped with it."""
    import pii_detection

    path = Path(pii_detection.__file__).with_name("measured_recall.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _recall(measured: Mapping[str, Mapping[str, float]]) -> str:
    shown = [f"{100 * row['recall']:.0f} % of {row['n']:,} ({name})" for name, row in measured.items()]
    return ", ".join(shown) or "not measured"


def _copies(facts: "Facts") -> str:
    rows = [
        [
            kind,
            len(found.share),
            int(found.is_copy.sum()),
            f"{100 * found.share.mean():.1f} %",
            int(found.longest.max()),
        ]
        for kind, found in facts.overlaps.items()
        if len(found.share)
    ]
    head = ["Records", "Number", "With a copied passage", "Share of text found in real records", "Longest span"]
    shown = [list(example) for example in facts.examples]
    examples = ["Synthetic record", "Real record", "Characters", "Words", "Beginning, masked"]
    return (
        html_report.table(head, rows)
        + _histogram(facts)
        + "<h3>Longest copies that are not intended</h3>"
        + html_report.table(examples, shown)
        + '<p class="note">Passages that stand in many real records (headings, field names, fixed phrases) are left '
        "out everywhere. Held-out texts are cut to the length of synthetic ones.</p>"
    )


def _histogram(facts: "Facts") -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6))
    axes = figure.subplots()
    edges = [k / 20 for k in range(21)]
    shown = {kind: found.share for kind, found in facts.overlaps.items() if len(found.share)}
    width = 0.05 / (len(shown) + 0.5)
    for k, (kind, shares) in enumerate(shown.items()):
        counts = [
            100 * ((shares >= low) & ((shares < high) | (high == 1))).mean() for low, high in itertools.pairwise(edges)
        ]
        axes.bar([low + k * width for low in edges[:-1]], counts, width, align="edge", label=kind, color=COLORS[kind])
    axes.set_xlabel("share of a record's text that stands in a real record")
    axes.set_ylabel("% of the records")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return html_report.chart(figure, "How much of each record's text stands in real records, by kind of record")


def _canaries(facts: "Facts") -> str:
    rows = [[c.id, "yes" if c.verbatim else "no", c.exposure] for c in facts.canaries]
    return html_report.table(["Canary", "Stands in the synthetic data", "Exposure (bits, of at most 10)"], rows)


def _guarantee(ledger: Mapping | None) -> str:
    if ledger is None:
        return (
            f"<p>{NO_FORMAL_GUARANTEE} What is said above was measured with particular attacks; another one may find "
            "more. A bound on any attack needs synthesize_private_texts.</p>"
        )
    return html_report.table(
        ["", ""],
        [
            ["Data set", ledger["dataset"]],
            ["Protects", ledger["unit"]],
            ["epsilon, all runs together", float(ledger["epsilon"])],
            ["delta", f"{ledger['delta']:g}"],
        ],
    )


def _closest(facts: "Facts") -> str:
    note = (
        '<p class="note">A diagnostic, and no reason to pass: data can leak facts about people without any record '
        "being close to a real one, and common phrases are close to everyone.</p>"
    )
    if not facts.closest:
        return (
            "<p>Not measured: it needs held-out records, and synthetic ones that do not quote their source.</p>" + note
        )
    rows = [[f"{kind} records", *(f"{1 - value:.3f}" for value in values)] for kind, values in facts.closest.items()]
    head = ["Distance (1 - cosine) to the nearest synthetic record", "median", "nearest 5 %", "nearest"]
    return html_report.table(head, rows) + note
