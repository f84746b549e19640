"""PDF: a page is a document; running heads are left out and lines joined that only their column's end broke."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from pieces import Fault, Piece, RawFile, UnreadableError


def read_pdf(file: RawFile, max_chars: int) -> Iterator[Piece | Fault]:
    """A piece per page, its hard line breaks joined; lines that most pages repeat at their edge are left out."""
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns about each oddity; what fails raises
    with file.path.open("rb") as stream:  # given a path, pypdf reads the whole file into memory
        reader = pypdf.PdfReader(stream)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("an encrypted PDF: it needs a password")
        pages: list[list[str]] = []
        for number, page in enumerate(reader.pages, start=1):
            try:
                pages.append([line.strip() for line in page.extract_text().splitlines()])
            except Exception as error:  # a broken page stops its parser in its own way; other pages are still good
                pages.append([])
                yield Fault(f"page cannot be read: {type(error).__name__}: {error}", page=number)
                continue
            finally:
                reader.resolved_objects.clear()  # else every picture that was passed stays in memory
            if not any(pages[-1]):
                yield Fault("no text on this page: blank, or a picture of text", page=number)
    repeated = _repeated_edges(pages)
    for number, lines in enumerate(pages, start=1):
        text = join_lines([line for line in lines if _mask(line) not in repeated])
        if text:
            yield Piece(text, file.stem, page=number)


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
