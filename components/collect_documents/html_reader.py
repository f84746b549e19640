"""HTML pages as Markdown, which keeps headings, lists and tables."""

import copy
import re
import warnings
from collections.abc import Iterator
from itertools import chain
from typing import Any

from pieces import Piece, RawFile, UnreadableError
from text_reader import markdown_pieces

MAX_HTML_BYTES = 8 << 20  # the tree of a page takes up to a hundred times its bytes
_MAX_COLUMNS = 200
_MAX_DEPTH = 200
_TABLE = re.compile("<table", re.IGNORECASE)
_INLINE_IMAGE = re.compile(r"!\[([^\]]*)\]\(data:[^)]*\)")
_HEADLESS_TABLE = re.compile(r"^\|(?: +\|)+\n(\|(?: --- \|)+)\n(\|.*\|)$", re.MULTILINE)


def read_html(file: RawFile, max_chars: int) -> Iterator[Piece]:
    """The whole page, titled by its first heading, else its title; scripts and styles are left out."""
    from markitdown.converters import HtmlConverter

    size = file.path.stat().st_size
    if size > MAX_HTML_BYTES:
        raise UnreadableError(f"a page of {size} bytes, more than {MAX_HTML_BYTES}: split it, or save it as text")
    html = file.path.read_text(encoding=file.encoding)
    if _TABLE.search(html):
        html = _with_straight_tables(html)
    with warnings.catch_warnings(action="ignore"):  # one about the depth
        page = HtmlConverter().convert_string(html)
    yield from markdown_pieces(tidy_markdown(page.markdown), page.title or file.stem, max_chars)


def _with_straight_tables(html: str) -> str:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(html, "html.parser")
    if _depth(page) > _MAX_DEPTH:  # the converter will give the bare text alone
        return html
    straightener = _Straightener()
    for table in page.find_all("table"):
        straightener.straighten(table)
    html = str(page)
    page.decompose()  # its circles of references would stay beside the converter's own tree
    return html


def tidy_markdown(markdown: str) -> str:
    """The first row as the head where no row is marked as one, which Word and many pages leave out; no picture data."""
    return _INLINE_IMAGE.sub(r"\1", _HEADLESS_TABLE.sub(r"\2\n\1", markdown))


def _depth(page: Any) -> int:
    depths = {id(page): 0}
    for tag in page.find_all(True):
        depths[id(tag)] = depths[id(tag.parent)] + 1
    return max(depths.values())


class _Straightener:
    """Repeats what spans rows or columns in each of its cells, and parts a table that only lays out others."""

    def __init__(self) -> None:
        self._room = MAX_HTML_BYTES  # two numbers in a page can ask for any number of copies

    def straighten(self, table: Any) -> None:
        sections = table.find_all(["thead", "tbody", "tfoot"], recursive=False)
        rows = [row for part in [table, *sections] for row in part.find_all("tr", recursive=False)]
        cells = [row.find_all(["td", "th"], recursive=False) for row in rows]
        if table.find("table"):
            for part in [table, *sections, *rows, *chain(*cells)]:
                part.name = "div"
            return
        for text in table.find_all(string=re.compile(r"\|")):
            text.replace_with(text.replace("|", "\\|"))
        below: dict[int, tuple[int, Any]] = {}  # column -> in how many more rows to repeat which cell
        for row, own in zip(rows, cells, strict=True):
            straight: list[Any] = []
            own.reverse()
            while (own or len(straight) in below) and len(straight) < _MAX_COLUMNS:
                column = len(straight)
                if column in below:
                    num_rows, cell = below.pop(column)
                    straight.append(self._copy(cell))
                else:
                    cell = own.pop()
                    num_rows = _span(cell, "rowspan")
                    straight += [cell, *(self._copy(cell) for _ in range(_span(cell, "colspan") - 1))]
                if num_rows > 1:
                    below |= dict.fromkeys(range(column, len(straight)), (num_rows - 1, cell))
            row.clear()
            row.extend(straight)

    def _copy(self, cell: Any) -> Any:
        self._room -= len(cell.get_text()) + 100
        if self._room < 0:
            raise UnreadableError("the cells of its tables span too many rows and columns")
        return copy.copy(cell)


def _span(cell: Any, attribute: str) -> int:
    value = str(cell.get(attribute, "1"))
    cell.attrs[attribute] = "1"
    return min(max(int(value[:6]), 1), _MAX_COLUMNS) if value.isascii() and value.isdigit() else 1
