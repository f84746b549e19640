"""What a prepared dataset holds, and the report of it as one HTML page without anything from outside."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from split_groups import SIDES

_COLORS = {"train": "#3b6fb6", "validation": "#e0a030", "test": "#b6493b"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } th, td { padding: .3rem .9rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left } th { font-weight: 600; background: #f5f5f5 }
tr:last-child td { border-bottom: 2px solid #999 } .note { color: #666 }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; border-radius: 2px }
text { font: 12px system-ui, sans-serif; fill: #444 }
"""


def question_type(chat: dict[str, Any]) -> str:
    return str((chat.get("tags") or {}).get("question_type") or "unspecified")


class Statistics:
    """What the report says of the chats, gathered while they are written."""

    def __init__(self) -> None:
        self._languages = {side: Counter() for side in SIDES}
        self._groups = {side: Counter() for side in SIDES}
        self._kinds: dict[str, Counter[str]] = defaultdict(Counter)
        self._lengths: dict[int, Counter[str]] = defaultdict(Counter)

    def add(self, chat: dict[str, Any], side: str, group: str) -> None:
        self._languages[side][chat["language"]] += 1
        self._groups[side][group] += 1
        self._kinds[question_type(chat)][side] += 1
        length = sum(len(message["content"]) for message in chat["messages"])
        self._lengths[math.ceil(2 * math.log2(length + 1))][side] += 1  # two bins to each doubling

    def summary(self) -> dict[str, Any]:
        sizes = [size for groups in self._groups.values() for size in groups.values()]
        return {
            "groups": {"number": len(sizes), "largest_chats": max(sizes, default=0)},
            "split": {
                side: {
                    "chats": self._languages[side].total(),
                    "groups": len(self._groups[side]),
                    "languages": dict(sorted(self._languages[side].items())),
                }
                for side in SIDES
            },
            "kinds": {kind: dict(row) for kind, row in sorted(self._kinds.items())},
            "lengths": [
                {"below": int(2 ** (place / 2)), **{side: self._lengths[place][side] for side in SIDES}}
                for place in range(min(self._lengths, default=1), max(self._lengths, default=0) + 1)
            ],
        }


def render(report: Mapping[str, Any]) -> str:
    """The page of what ``report.json`` says."""
    split, counts = report["split"], report["counts"]
    languages = sorted({language for side in SIDES for language in split[side]["languages"]})
    split_rows = [
        [language, *(split[side]["languages"].get(language, 0) for side in SIDES)] for language in languages
    ] + [["all", *(split[side]["chats"] for side in SIDES)], ["groups", *(split[side]["groups"] for side in SIDES)]]
    left_out = [[reason.replace("_", " "), number] for reason, number in counts["left_out"].items()]
    held_out = {"document": "source documents and questions", "chat": "questions"}[report["split_by"]]
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Dataset report</title><style>{_STYLE}</style></head><body>
<h1>Dataset report</h1>
<p>{counts["read"]} chats came in, {counts["kept"]} are in the dataset. Held out: {held_out}.
Chats that share {"a document or " if report["split_by"] == "document" else ""}a question stay together:
{report["groups"]["number"]} groups, the largest with {report["groups"]["largest_chats"]} chats.</p>
<h2>The split</h2>
{_table(["language", *SIDES], split_rows)}
{_notes(report["notes"])}
<h2>Left out</h2>
{_table(["reason", "chats"], [*left_out, ["all", counts["read"] - counts["kept"]]])}
<h2>Length of a chat in characters</h2>
{_histogram(report["lengths"])}
<h2>Kinds of question</h2>
{_table(["kind", *SIDES], [[kind, *(row.get(side, 0) for side in SIDES)] for kind, row in report["kinds"].items()])}
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


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _histogram(bins: Sequence[Mapping[str, Any]]) -> str:
    """Stacked bars, each bin 1.4 times as wide as the one before; SVG prints and needs no script."""
    keys = "".join(f'<span class="key" style="background:{_COLORS[side]}"></span>{side}' for side in SIDES)
    tallest = max((sum(bin_[side] for side in SIDES) for bin_ in bins), default=0) or 1
    width, height, step = 60 * max(len(bins), 1), 160, 60
    marks = []
    for i, bin_ in enumerate(bins):
        top = height
        for side in SIDES:
            bar = height * bin_[side] / tallest
            top -= bar
            marks.append(f'<rect x="{i * step + 4}" y="{top + 20:.1f}" width="52" height="{bar:.1f}" ')
            marks.append(f'fill="{_COLORS[side]}"><title>{side}: {bin_[side]}</title></rect>')
        total = sum(bin_[side] for side in SIDES)
        marks.append(f'<text x="{i * step + 30}" y="{top + 15:.1f}" text-anchor="middle">{total}</text>')
        marks.append(f'<text x="{i * step + 30}" y="{height + 36}" text-anchor="middle">&lt; {bin_["below"]}</text>')
    return f'<p>{keys}</p><svg width="{width}" height="{height + 44}" role="img">{"".join(marks)}</svg>'
