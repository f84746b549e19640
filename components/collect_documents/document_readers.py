"""Readers that turn one file into its texts: a CSV row, a JSONL line, a PDF page or a whole prose document."""

import csv
import io
import json
import logging
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from text_decoding import UnreadableError

MAX_CELL_CHARS = 16 << 20
MAX_UNPACKED_BYTES = 1 << 30  # a docx is a zip file: one that unpacks to more is taken for a bomb


class Piece(NamedTuple):
    """One document's text, with where it stands in its file."""

    text: str
    title: str = ""
    line: int | None = None
    page: int | None = None


class Fault(NamedTuple):
    """A piece that could not be read, and why; the file goes on."""

    reason: str
    line: int | None = None
    page: int | None = None


class Kind(NamedTuple):
    """What a file name's ending stands for."""

    media_type: str
    read: Callable[[Path, str | None], Iterator[Piece | Fault]]
    is_text: bool = True


def read_csv(path: Path, encoding: str | None) -> Iterator[Piece | Fault]:
    """A piece per row: ``Header: value`` lines, blank cells left out."""
    csv.field_size_limit(MAX_CELL_CHARS)
    with path.open(encoding=encoding, newline="") as file:
        rows = csv.reader(file, delimiter=_delimiter(file), strict=True)
        header: list[str] = []
        while True:
            line = rows.line_num + 1
            try:
                cells = [" ".join(cell.split()) for cell in next(rows)]
            except StopIteration:
                return
            except csv.Error as error:
                yield Fault(f"not a CSV row (lines {line} to {rows.line_num}): {error}", line=line)
                continue
            if not any(cells):
                continue
            if not header:
                header = [cell or f"Column {number}" for number, cell in enumerate(cells, start=1)]
                columns = [*name_columns(header), *range(len(header))]
                continue
            if len(cells) > len(header) and not any(cells[len(header) :]):
                cells = cells[: len(header)]
            if len(cells) != len(header):
                yield Fault(f"{len(cells)} cells where the header has {len(header)}", line=line)
                continue
            yield Piece(_listing(zip(header, cells, strict=True)), _title(cells, columns), line)


def _delimiter(file: TextIO) -> str:
    """The one of comma, semicolon and tab that cuts the first lines into the most rows as wide as the header."""
    sample = "".join(islice(file, 50))
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


def _title(cells: Sequence[str], columns: Sequence[int]) -> str:
    return next((cells[i] for i in columns if any(char.isalpha() for char in cells[i])), "")


def _listing(pairs: Any) -> str:
    return "\n".join(f"{name}: {value}" for name, value in pairs if value)


def read_jsonl(path: Path, encoding: str | None) -> Iterator[Piece | Fault]:
    """A piece per line: the field ``text``, else ``key: value`` lines of the fields that are plain values."""
    with path.open(encoding=encoding) as file:
        for line, content in enumerate(file, start=1):
            if not content.strip():
                continue
            try:
                record = json.loads(content)
            except (json.JSONDecodeError, RecursionError) as error:
                yield Fault(f"not JSON: {getattr(error, 'msg', error)}", line=line)
                continue
            if not isinstance(record, dict):
                yield Fault(f"not a JSON object but a {type(record).__name__}", line=line)
                continue
            fields = {key: _plain(value) for key, value in record.items() if isinstance(value, str | int | float)}
            text = fields.get("text") or _listing(fields.items())
            if text:
                # No other field is a fallback: the first of a JSON object is as likely to be its longest text.
                yield Piece(text, _title(list(fields.values()), name_columns(list(fields))), line)
            else:
                yield Fault("no field 'text' and no other field with a plain value", line=line)


def _plain(value: Any) -> str:
    return value.strip() if isinstance(value, str) else json.dumps(value)


_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
_FENCED = re.compile(r"^(```|~~~).*?(?:^\1|\Z)", re.MULTILINE | re.DOTALL)
_HEADLESS_TABLE = re.compile(r"^\|(?: +\|)+\n(\|(?: --- \|)+)\n(\|.*\|)$", re.MULTILINE)
_INLINE_IMAGE = re.compile(r"!\[([^\]]*)\]\(data:[^)]*\)")


def _prose(path: Path, text: str, title: str | None = None) -> Iterator[Piece]:
    heading = _HEADING.search(_FENCED.sub("", text))
    yield Piece(text, heading[1].strip("*_` ") if heading else title or path.stem)


def read_markdown(path: Path, encoding: str | None) -> Iterator[Piece | Fault]:
    """The whole file, titled by its first heading."""
    yield from _prose(path, path.read_text(encoding=encoding))


def read_text(path: Path, encoding: str | None) -> Iterator[Piece | Fault]:
    """The whole file, titled by its name."""
    yield Piece(path.read_text(encoding=encoding), path.stem)


def read_html(path: Path, encoding: str | None) -> Iterator[Piece | Fault]:
    """The whole page as Markdown, which keeps headings, lists and tables; scripts and styles are left out."""
    from markitdown.converters import HtmlConverter

    page = HtmlConverter().convert_string(path.read_text(encoding=encoding))
    yield from _prose(path, _INLINE_IMAGE.sub(r"\1", page.markdown), page.title)


def read_docx(path: Path, encoding: str | None) -> Iterator[Piece | Fault]:
    """The whole document as Markdown, which keeps headings, lists and tables."""
    try:
        with zipfile.ZipFile(path) as package:
            size = sum(entry.file_size for entry in package.infolist())
    except zipfile.BadZipFile:
        raise UnreadableError("not a Word document: cut short, encrypted, or the older .doc form") from None
    if size > MAX_UNPACKED_BYTES:
        raise UnreadableError(f"unpacks to {size} bytes, more than {MAX_UNPACKED_BYTES}")
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    with path.open("rb") as file:
        markdown = DocxConverter().convert(file, StreamInfo(extension=".docx")).markdown
    markdown = _HEADLESS_TABLE.sub(r"\2\n\1", markdown)  # Word seldom marks the first row as the head that it is
    yield from _prose(path, _INLINE_IMAGE.sub(r"\1", markdown))


def read_pdf(path: Path, encoding: str | None) -> Iterator[Piece | Fault]:
    """A piece per page, its hard line breaks joined; lines that most pages repeat at their edge are left out."""
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns about each oddity; what fails raises
    reader = pypdf.PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise UnreadableError("an encrypted PDF: it needs a password")
    pages: list[list[str]] = []
    for number, page in enumerate(reader.pages, start=1):
        try:
            pages.append([line.strip() for line in page.extract_text().splitlines()])
        except Exception as error:  # a broken page stops its parser in its own way; the other pages are still good
            pages.append([])
            yield Fault(f"page cannot be read: {type(error).__name__}: {error}", page=number)
            continue
        if not any(pages[-1]):
            yield Fault("no text on this page: blank, or a picture of text", page=number)
    repeated = _repeated_edges(pages)
    for number, lines in enumerate(pages, start=1):
        text = join_lines([line for line in lines if _mask(line) not in repeated])
        if text:
            yield Piece(text, path.stem, page=number)


def _mask(line: str) -> str:
    return re.sub(r"\d+", "0", line)


def _repeated_edges(pages: list[list[str]]) -> set[str]:
    """Running heads and feet: among the first and last three lines of most pages, page numbers aside."""
    if len(pages) < 3:
        return set()
    edges = Counter(edge for lines in pages for edge in {_mask(line) for line in [*lines[:3], *lines[-3:]] if line})
    return {edge for edge, count in edges.items() if count > len(pages) / 2}


_ITEM = re.compile(r"[•◦▪‣●○■□※・*–-]|[$#>|]\s|\(?\d{1,3}[.)]|[①-⑳]|https?://")
_UNSPACED = re.compile(r"[\u3000-\u30ff\u4e00-\u9fff\uff01-\uff60]")  # scripts that put no space between words
_STOPS = (".", "!", "?", "。", "！", "？", "．")


def join_lines(lines: Sequence[str]) -> str:
    """Join the lines that were broken only because the column ended there.

    A line goes on in the next one when it is about as wide as the page's full lines. A short line (heading, end of a
    paragraph, cell), a line before a list item and a sentence before a heading end where they end.
    """
    widths = sorted(_width(line) for line in lines if line)
    full = widths[int(0.9 * len(widths))] if len(widths) > 2 else float("inf")  # not the widest: it may be a table's
    text, goes_on = "", False
    for line in lines:
        heading = text.endswith(_STOPS) and not line.endswith(_STOPS) and _width(line) < full / 2
        if not line:
            text += "\n"
        elif not goes_on or heading or _ITEM.match(line):
            text += "\n" + line
        else:
            text = _joined(text, line)
        goes_on = bool(line) and _width(line) >= 0.75 * full
    return text.strip()


def _joined(text: str, line: str) -> str:
    last_word = text[max(text.rfind(" "), text.rfind("\n")) + 1 :]
    if re.fullmatch(r"[\"'(“‘]?[A-Za-z]+-", last_word) and line[0].islower():
        return text[:-1] + line
    if "://" in last_word or last_word[1:].endswith("-") or (_UNSPACED.match(text[-1]) and _UNSPACED.match(line)):
        return text + line
    return f"{text} {line}"


def _width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


KINDS = {
    ".csv": Kind("text/csv", read_csv),
    ".tsv": Kind("text/tab-separated-values", read_csv),
    ".jsonl": Kind("application/jsonl", read_jsonl),
    ".md": Kind("text/markdown", read_markdown),
    ".txt": Kind("text/plain", read_text),
    ".html": Kind("text/html", read_html),
    ".htm": Kind("text/html", read_html),
    ".docx": Kind("application/vnd.openxmlformats-officedocument.wordprocessingml.document", read_docx, is_text=False),
    ".pdf": Kind("application/pdf", read_pdf, is_text=False),
}
