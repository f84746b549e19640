"""What was asked, kept and refused, as JSON and as one HTML page with examples and nothing from outside."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

from slmkit import records

NUM_EXAMPLES = 3
LANGUAGES = {"en": "English", "ja": "Japanese", "ko": "Korean"}
CHUNKS = {
    "covered": "at least one chat",
    "without_pairs": "the teacher found nothing to ask",
    "with_refused_pairs_only": "every pair was refused",
    "filtered": "a content filter refused",
    "failed": "no answer",
    "in_other_languages": "in another language, not asked about",
    "left_out": "left out by max_num_chunks",
}
PAIRS = {
    "wrong_language": "not in the language of the chunk",
    "ungrounded": "the answer is not found in the chunk",
    "duplicate": "asked before",
    "surplus": "more than num_pairs_per_chunk",
    "type_not_asked_for": "not among question_types",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
th { font-weight: 600 } td:last-child, th:last-child { overflow-wrap: anywhere }
"""


def write_json(folder: Path, teacher: str, counts: Counter[str], usage: Mapping[str, float]) -> None:
    report = {"teacher": teacher, "counts": dict(sorted(counts.items())), "usage": usage}
    with records.whole_file(folder / "report.json") as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def write_page(folder: Path, chats: Path) -> None:
    """The page of what stands in ``report.json``, in the quarantine and in the chats."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    with records.whole_file(folder / "report.html") as partial:
        partial.write_text(render(report, chats, folder / "quarantine.jsonl"), encoding="utf-8")


def render(report: Mapping, chats: Path, quarantine: Path) -> str:
    counts = Counter(report["counts"])
    usage = {
        name.replace("_", " "): f"{value:,.2f}".removesuffix(".00") for name, value in report["usage"].items() if value
    }
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Coverage seed</title><style>{_STYLE}</style></head><body>
<h1>Coverage seed</h1>
<p>{counts["chats"]:,} chats by {escape(report["teacher"])} about {counts["documents_covered"]:,} of
{counts["documents"]:,} documents; {counts["documents_refused"]:,} documents could not be used.</p>
<h2>Chunks: {counts["chunks"]:,}</h2>
{_table(["outcome", "chunks"], _counted(counts, "chunks", CHUNKS))}
<h2>Question-answer pairs: {counts["pairs"]:,}</h2>
{_table(["outcome", "pairs"], [["kept", f"{counts['chats']:,}"], *_counted(counts, "pairs", PAIRS)])}
<h2>Chats by language and kind of question</h2>
{_table(["", "chats"], _counted(counts, "chats", LANGUAGES | {kind: kind for kind in ("short", "boolean", "long")}))}
<h2>What the teacher was asked</h2>
{_table(["", ""], usage.items())}
<h2>Examples</h2>
{_table(["kind", "question", "answer"], _examples(chats))}
<h2>Refused</h2>
{_table(["reason", "chunk", "question", "answer"], _refused_examples(quarantine))}
</body></html>
"""


def _counted(counts: Counter[str], prefix: str, texts: Mapping[str, str]) -> Iterator[list[str]]:
    for name, text in texts.items():
        if number := counts[f"{prefix}_{name}"]:
            yield [text, f"{number:,}"]


def _examples(chats: Path) -> list[list[str]]:
    """The first few of each language and kind."""
    shown: Counter[str] = Counter()
    rows = []
    for chat in records.read_records(chats):
        kind = f"{chat['language']}, {chat['tags']['question_type']}"
        shown[kind] += 1
        if shown[kind] <= NUM_EXAMPLES:
            question = chat["messages"][0]["content"].rpartition("\n\n")[2]
            rows.append([kind, question, chat["messages"][1]["content"]])
    return sorted(rows, key=lambda row: row[0])


def _refused_examples(quarantine: Path) -> Iterator[list[str]]:
    """The first few of each reason."""
    shown: Counter[str] = Counter()
    for row in records.read_records(quarantine):
        shown[row["reason"]] += 1
        if shown[row["reason"]] <= NUM_EXAMPLES:
            yield [row["reason"], row["text"][:160], row.get("question", ""), row.get("answer", "")]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    body = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    if not body:
        return "<p>none</p>"
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><tr>{header}</tr>\n" + "\n".join(f"<tr>{row}</tr>" for row in body) + "\n</table>"
