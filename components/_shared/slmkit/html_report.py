"""Reports as one HTML file with nothing from outside: a page, its tables, and charts as inline SVG."""

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLANK = ("", "none")  # which may stand for a number that is not there
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem } h3 { font-size: 1rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
th { font-weight: 600 } td { overflow-wrap: break-word; max-width: 34rem }
td.number, th.number { text-align: right; white-space: nowrap }
img { max-width: 100% }
.good, .bad, .warn { border-radius: .3rem; padding: .1rem .5rem; font-weight: 600 }
.good { background: #d9f2df; color: #14532d } .bad { background: #fbdcdc; color: #7f1d1d }
.warn { background: #fdf0cd; color: #713f12 } .note { color: #555 }
"""


def page(title: str, *sections: str) -> str:
    """The page of sections that are HTML already; the title is text."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table of texts and numbers, all escaped; numbers and their heads stand right. Without rows it says "none"."""
    rows = [tuple(row) for row in rows]
    if not rows:
        return "<p>none</p>"
    body = ["".join(_cell("td", cell, _is_number(cell)) for cell in row) for row in rows]
    columns = dict(enumerate(zip(*rows, strict=False)))
    header = "".join(_cell("th", cell, _are_numbers(columns.get(i, ()))) for i, cell in enumerate(head))
    return f"<table><tr>{header}</tr>\n" + "\n".join(f"<tr>{row}</tr>" for row in body) + "\n</table>"


def _is_number(content: object) -> bool:
    return isinstance(content, int | float)


def _are_numbers(column: tuple[object, ...]) -> bool:
    return any(map(_is_number, column)) and all(_is_number(cell) or cell in _BLANK for cell in column)


def _cell(tag: str, content: object, right: bool) -> str:
    if isinstance(content, float) and 0 < abs(content) < 0.0005:  # which is small, and not nothing
        text = f"{content:.2g}"
    elif isinstance(content, float):
        text = f"{content:,.3f}".rstrip("0").rstrip(".")
    else:
        text = f"{content:,}" if isinstance(content, int) else str(content)
    number = ' class="number"' if right else ""
    return f"<{tag}{number}>{escape(text)}</{tag}>"


def badge(text: str, kind: str) -> str:
    """A coloured word: ``kind`` is good, bad or warn."""
    return f'<span class="{kind}">{escape(text)}</span>'


def chart(figure: "Figure", description: str) -> str:
    """A matplotlib figure as an inline picture, with a description for those who cannot see it."""
    picture = io.BytesIO()
    figure.savefig(picture, format="svg", bbox_inches="tight", metadata={"Date": None})
    data = base64.b64encode(picture.getvalue()).decode()
    return f'<p><img alt="{escape(description)}" src="data:image/svg+xml;base64,{data}"></p>'
