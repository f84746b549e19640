"""Excel workbooks: a row is a document where the sheet is a table with a header, else the sheet is one as text."""

import datetime
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import IO, Any, NamedTuple

from office_reader import check_package
from pieces import Fault, Piece, RawFile, UnreadableError, parts, too_long
from table_reader import Table

MAX_ROWS = 1 << 20  # Excel's own
_LOOK_AHEAD = 20
_MAX_MERGED = 10_000
_CHUNK_BYTES = 1 << 20
_OVERLAP_BYTES = 1 << 13
_MERGED = re.compile(rb'<mergeCell ref="([A-Z]{1,3})([0-9]{1,7}):[A-Z]{1,3}([0-9]{1,7})"')
_UNCALCULATED = re.compile(  # a formula without the value that Excel stores with it; t="str" may be an empty text
    rb'<c\b(?![^<>]*\bt="str")[^<>]*>\s*<f\b[^<>]*(?:/>|>[^<]*</f>)\s*(?:<v\s*/>|<v>\s*</v>)?\s*</c>'
)


class Row(NamedTuple):
    """The cells of a row as they stand, and with those filled that are merged into the cell above."""

    line: int
    cells: list[str]
    filled: list[str]


def read_xlsx(file: RawFile, max_chars: int) -> Iterator[Piece | Fault]:
    """The sheets one after the other; ``page`` is the number of the sheet and ``line`` that of the row."""
    import openpyxl

    check_package(file.path, "xl/")
    workbook = openpyxl.load_workbook(file.path, read_only=True, data_only=True, keep_links=False)
    try:
        for page, sheet in enumerate(workbook.worksheets, start=1):
            with sheet._get_source() as source:  # openpyxl's reader of streams leaves both out
                merged, num_uncalculated = _survey(source)
            if num_uncalculated:
                yield Fault(
                    f"sheet {sheet.title!r}: {num_uncalculated} formulas have no stored value; save the file in Excel",
                    page=page,
                )
            yield from _read_sheet(sheet.title, _rows(sheet, merged, max_chars), page, max_chars)
    finally:
        workbook.close()


def _read_sheet(title: str, rows: Iterator[Row], page: int, max_chars: int) -> Iterator[Piece | Fault]:
    head = list(islice(rows, _LOOK_AHEAD))
    at = _header(head)
    if at is None:
        for part in parts(_Text(chain(head, rows)), title, max_chars):
            yield part._replace(page=page)
        return
    if at:
        yield Piece("\n".join(map(_line, head[:at])), title, page=page)  # what stands above the table
    width = _width(head[at])
    table = Table(head[at].filled[:width])
    for row in chain(head[at + 1 :], rows):
        yield table.row(row.filled + [""] * (width - len(row.filled)), row.line, page)


def _header(head: list[Row]) -> int | None:
    """Which of the first rows is the header: two or more different texts side by side, as wide as any other row."""
    width = max((_width(row) for row in head), default=0)
    for at, row in enumerate(head[:-1]):
        names = [cell for cell in row.filled if cell]
        cells_below = [cell for later in head[at + 1 :] for cell in later.filled if cell]
        if (
            len(names) > 1
            and len(set(names)) == len(names)
            and any(char.isalpha() for char in names[0])
            and "" not in row.filled[row.filled.index(names[0]) : row.filled.index(names[-1])]
            and _width(row) == width
            and 2 * len(cells_below) >= len(names) * len(head[at + 1 :])  # else a form: cells stand here and there
        ):
            return at
    return None


def _width(row: Row) -> int:
    return max(i for i, cell in enumerate(row.filled, start=1) if cell)


class _Text(io.TextIOBase):
    """Rows as a stream of text, so that a long sheet is cut like a long text."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._lines = (_line(row) + "\n" for row in rows)
        self._rest = ""

    def read(self, size: int = -1) -> str:
        while len(self._rest) < size and (line := next(self._lines, "")):
            self._rest += line
        text, self._rest = self._rest[:size], self._rest[size:]
        return text


def _line(row: Row) -> str:
    return " | ".join(cell for cell in row.cells if cell)


def _rows(sheet: Any, merged: dict[int, list[tuple[int, int]]], max_chars: int) -> Iterator[Row]:
    """The rows that are not blank, as wide as they are filled, whatever size the sheet declares."""
    sheet.reset_dimensions()
    above: dict[int, tuple[int, str]] = {}  # column -> last row of the merged cell, and its text
    for line, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        if line > MAX_ROWS:
            raise UnreadableError(f"sheet {sheet.title!r} goes on after row {MAX_ROWS}, the last that Excel has")
        if sum(len(value) for value in values if isinstance(value, str)) > max_chars:  # cells can share one long text
            raise UnreadableError(f"sheet {sheet.title!r}, row {line}: {too_long(max_chars)}")
        above = {column: held for column, held in above.items() if held[0] >= line}
        cells = [_shown(value) for value in values]
        if not any(cells):
            continue
        filled = cells + [""] * (max(above, default=-1) + 1 - len(cells))
        for column, (_, text) in above.items():
            filled[column] = filled[column] or text
        for column, last in merged.get(line, ()):
            if column < len(cells) and cells[column]:
                above[column] = (last, cells[column])
        yield Row(line, cells, filled)


def _shown(value: Any) -> str:
    """A value as Excel shows it by default: a date without its midnight, a number with 15 digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ").removesuffix(" 00:00:00")
    return " ".join(str(value).split())


def _survey(source: IO[bytes]) -> tuple[dict[int, list[tuple[int, int]]], int]:
    """The merged cells that go over several rows (first row -> column and last row), and the uncalculated formulas."""
    from openpyxl.utils import column_index_from_string

    merged: dict[int, list[tuple[int, int]]] = {}
    num_merged = num_uncalculated = 0
    text = b""
    while chunk := source.read(_CHUNK_BYTES):
        text += chunk
        last = 0
        for match in _UNCALCULATED.finditer(text):
            num_uncalculated += 1
            last = match.end()
        for match in _MERGED.finditer(text):
            last = max(last, match.end())
            num_merged += 1
            first_row, last_row = int(match[2]), int(match[3])
            if last_row > first_row and num_merged <= _MAX_MERGED:
                merged.setdefault(first_row, []).append((column_index_from_string(match[1].decode()) - 1, last_row))
        text = text[max(last, len(text) - _OVERLAP_BYTES) :]
    return merged, num_uncalculated
