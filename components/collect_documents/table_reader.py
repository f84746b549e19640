"""Tables: a row is a document of ``Header: value`` lines, titled by the column that is headed as a name."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TextIO

from pieces import BoundedLines, Fault, Piece, RawFile, TooLongError


class Table:
    """The header of a table, which makes a piece of each row."""

    def __init__(self, header: Sequence[str]) -> None:
        self.header = [cell or f"Column {number}" for number, cell in enumerate(header, start=1)]
        self._titles = [*name_columns(self.header), *range(len(self.header))]

    def row(self, cells: Sequence[str], line: int, page: int | None = None) -> Piece | Fault:
        """The row as text, blank cells left out."""
        width = len(self.header)
        if len(cells) > width and not any(cells[width:]):
            cells = cells[:width]
        if len(cells) != width:
            return Fault(f"{len(cells)} cells where the header has {width}", line, page)
        return Piece(listing(zip(self.header, cells, strict=True)), title_of(cells, self._titles), line, page)


def read_csv(file: RawFile, max_chars: int) -> Iterator[Piece | Fault]:
    """A piece per row; a row may go over several lines."""
    csv.field_size_limit(max_chars)
    with file.path.open(encoding=file.encoding, newline="") as stream:
        lines = BoundedLines(stream, max_chars)
        rows = csv.reader(lines, delimiter=_delimiter(stream), strict=True)
        table = None
        while True:
            line = lines.number + 1
            lines.new_record()
            try:
                cells = [" ".join(cell.split()) for cell in next(rows)]
            except StopIteration:
                return
            except (csv.Error, TooLongError) as error:
                yield Fault(f"not a CSV row (lines {line} to {lines.number}): {error}", line)
                continue
            if not any(cells):
                continue
            if table:
                yield table.row(cells, line)
            else:
                table = Table(cells)


def _delimiter(file: TextIO) -> str:
    """The one of comma, semicolon and tab that cuts the first lines into the most rows as wide as the header."""
    sample = "".join(islice(iter(lambda: file.readline(1 << 16), ""), 50))
    file.seek(0)

    def evenness(delimiter: str) -> tuple[int, int]:
        try:
            widths = [len(row) for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]
        except csv.Error:
            return 0, 0
        return (widths.count(widths[0]), widths[0]) if widths and widths[0] > 1 else (0, 0)

    return max(",;\t", key=evenness)


_NAME = re.compile(r"name|title|名|名称|名前|題|題名|タイトル|이름|명칭|제목|상호")
_ENDS_IN_NAME = re.compile(r".+(?:name|title|名|名称|名前|タイトル|이름|명칭|제목|(?<![설증])명)")  # not 설명, 증명
_NOT_THE_ENTITY = re.compile(  # the names of files and of people in charge, and subtitles
    r"file|host|user|manager|owner|contact|author|first|last|middle|nick|sur|sub|job|"
    r"ファイル|担当|責任|管理|代表|署名|파일|담당|책임|관리|대표|서명"
)


def name_columns(header: Sequence[str]) -> list[int]:
    """The columns that are headed as a name or a title, the most plainly headed first."""
    plain = [_NAME.fullmatch(name.strip().casefold()) for name in header]
    longer = [_ENDS_IN_NAME.fullmatch(name.strip().casefold()) for name in header]
    return [i for i in range(len(header)) if plain[i]] + [
        i for i in range(len(header)) if longer[i] and not plain[i] and not _NOT_THE_ENTITY.search(header[i].casefold())
    ]


def title_of(cells: Sequence[str], columns: Sequence[int]) -> str:
    return next((cells[i] for i in columns if any(char.isalpha() for char in cells[i])), "")


def listing(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join([f"{name}: {value}" for name, value in pairs if value])
