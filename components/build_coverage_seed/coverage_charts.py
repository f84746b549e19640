"""The charts of the report: how much is covered, where, by which questions, and what was refused."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slmkit import html_report, records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREEN, GREY, RED, BLUE = "#3a9d5d", "#b9bec6", "#d9694f", "#3b75af"
LANGUAGES = {"en": "English", "ja": "Japanese", "ko": "Korean"}
MAX_SOURCES = 25
NUM_CELLS = 120
PAIRS = {
    "wrong_language": "not in the language of the chunk",
    "ungrounded": "the answer is not found in the chunk",
    "near_duplicate": "the same as another, in other words",
    "duplicate": "asked before",
    "no_conversation": "a conversation of the wrong length",
    "surplus": "more than num_pairs_per_chunk",
    "type_not_asked_for": "not among question_types",
}


def headline(coverage: Mapping[str, float]) -> str:
    shares = {
        "by unrelated sentences": coverage["coverage_by_unrelated_sentences"],
        "after the first pass": coverage["coverage_first_pass"],
        "now": coverage["coverage"],
    }
    figure = _figure(1.6)
    axes = figure.subplots()
    _bars(axes, shares, [GREY, BLUE, GREEN], "{:.0%}")
    axes.set_xlim(0, 1.1)
    axes.set_title("Share of the chunks of the source that is covered", loc="left", fontsize=10)
    return _chart(figure, "Coverage: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))


def source_map(sources: Mapping[str, Sequence[int]]) -> str:
    """A strip for each file, from its beginning to its end: green where it is covered, red where it is not."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    largest = sorted(sources, key=lambda name: -len(sources[name]))[:MAX_SOURCES]
    strips = np.zeros((len(largest), NUM_CELLS))
    for row, name in enumerate(largest):
        marks = np.asarray(sources[name], dtype=float)
        first = np.arange(NUM_CELLS) * len(marks) // NUM_CELLS
        last = np.maximum(first + 1, (np.arange(NUM_CELLS) + 1) * len(marks) // NUM_CELLS)
        strips[row] = [marks[start:end].mean() for start, end in zip(first, last, strict=True)]
    figure = _figure(0.7 + 0.25 * len(largest))
    axes = figure.subplots()
    colors = LinearSegmentedColormap.from_list("covered", [RED, GREEN])
    axes.imshow(strips, aspect="auto", cmap=colors, vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(largest)), [name if len(name) <= 40 else f"…{name[-39:]}" for name in largest])
    axes.set_yticks(np.arange(len(largest) + 1) - 0.5, minor=True)
    axes.grid(which="minor", axis="y", color="white", linewidth=3)
    axes.tick_params(which="minor", left=False)
    axes.set_xticks([0, NUM_CELLS - 1], ["beginning", "end"])
    for row, name in enumerate(largest):
        share = f"{sum(sources[name]) / len(sources[name]):.0%} of {len(sources[name]):,}"
        axes.text(NUM_CELLS + 1, row, share, va="center", fontsize=9)
    note = f"<p class='note'>The {MAX_SOURCES} largest of {len(sources):,} files.</p>" * (len(sources) > MAX_SOURCES)
    return _chart(figure, "Where each file is covered, from its beginning to its end") + note


def question_types(chats: Path) -> str:
    """Chats by kind of question, each bar cut by language."""
    counts = Counter((chat["tags"]["question_type"], chat["language"]) for chat in records.read_records(chats))
    kinds = sorted({kind for kind, _ in counts})
    figure = _figure(0.9 + 0.3 * len(kinds))
    axes = figure.subplots()
    left = [0] * len(kinds)
    for language, color in zip(LANGUAGES, (BLUE, RED, GREEN), strict=True):
        widths = [counts[kind, language] for kind in kinds]
        axes.barh(kinds, widths, left=left, color=color, label=LANGUAGES[language])
        left = [done + width for done, width in zip(left, widths, strict=True)]
    for row, total in enumerate(left):
        axes.text(total, row, f" {total:,}", va="center", fontsize=9)
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    _bare(axes)
    return _chart(figure, "Chats by kind of question and language")


def funnel(counts: Mapping[str, int]) -> str:
    rows = {text: counts.get(f"pairs_{name}", 0) for name, text in PAIRS.items()}
    rows = {"kept": counts["chats"], **{text: number for text, number in rows.items() if number}}
    figure = _figure(0.5 + 0.3 * len(rows))
    axes = figure.subplots()
    _bars(axes, rows, [GREEN] + [RED] * (len(rows) - 1), "{:,}")
    axes.invert_yaxis()
    return _chart(figure, "Pairs: " + ", ".join(f"{text} {number:,}" for text, number in rows.items()))


def _bars(axes, values: Mapping[str, float], colors: Sequence[str], form: str) -> None:
    axes.barh(list(values), list(values.values()), color=colors)
    for row, value in enumerate(values.values()):
        axes.text(value, row, " " + form.format(value), va="center", fontsize=9)
    _bare(axes)


def _bare(axes) -> None:
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_xticks([])


def _figure(height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(8, height))


def _chart(figure: "Figure", description: str) -> str:
    with _text_as_text():
        return html_report.chart(figure, description)


@contextlib.contextmanager
def _text_as_text() -> Iterator[None]:
    """The browser chooses the font, since matplotlib's own has no Japanese or Korean."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield
