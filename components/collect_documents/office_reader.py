"""Word documents and PowerPoint decks as Markdown, and the check that every Office file passes first."""

import contextlib
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from archive_reader import open_zip
from html_reader import tidy_markdown
from pieces import Piece, RawFile, UnreadableError
from text_reader import first_heading, markdown_pieces

MAX_XML_BYTES = 32 << 20  # parsed as a whole, which takes thirty times as much memory
MAX_SHEET_BYTES = 1 << 30  # streamed
_SHEETS = "xl/worksheets/"
_NOT_READ = re.compile(r"/(?:media|embeddings|fonts)/")
_OLE = b"\xd0\xcf\x11\xe0"
_SLIDE = re.compile(r"^<!-- Slide number: (\d+) -->$", re.MULTILINE)
_FILE_NAME = re.compile(r".*\.(?:png|jpe?g|gif|bmp|tiff?|svg|emf|wmf)", re.IGNORECASE)
_PICTURE = re.compile(r"!\[([^\]]*)\]\((\w*)\.jpg\)")


def read_docx(file: RawFile, max_chars: int) -> Iterator[Piece]:
    """The whole document, titled by its first heading."""
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    with _without_media(file.path, "word/") as package:
        markdown = DocxConverter().convert(package, StreamInfo(extension=".docx")).markdown
    yield from markdown_pieces(tidy_markdown(markdown), file.stem, max_chars)


def read_pptx(file: RawFile, max_chars: int) -> Iterator[Piece]:
    """A piece per slide with its notes, titled by the slide's title."""
    from markitdown import StreamInfo
    from markitdown.converters import PptxConverter

    with _without_media(file.path, "ppt/") as package:
        markdown = PptxConverter().convert(package, StreamInfo(extension=".pptx")).markdown
    # re.split gives what stands before the first mark, then number and text of each slide
    marked = _SLIDE.split(markdown)
    for number, slide in zip(marked[1::2], marked[2::2], strict=True):
        text = _PICTURE.sub(_described, slide)
        if text.strip():
            yield Piece(text, first_heading(text) or file.stem, page=int(number))


def _described(picture: re.Match) -> str:
    """What a picture shows, where somebody wrote it and not the program that put its name or its file's name there."""
    text, name = picture.groups()
    return "" if re.sub(r"\W", "", text) == name or _FILE_NAME.fullmatch(text) else text


def check_package(path: Path, content: str) -> dict[str, zipfile.ZipInfo]:
    """The parts of an Office file by name, when it holds such ``content`` and takes a bounded memory to read."""
    with path.open("rb") as file:
        if file.read(4) == _OLE:
            raise UnreadableError("protected by a password, or in the form of Office 2003 and older: save it anew")
    with open_zip(path, "an Office file") as package:
        entries = {entry.filename: entry for entry in package.infolist()}
    if not any(name.startswith(content) for name in entries):
        raise UnreadableError(f"not the Office file that its name says: it holds no {content}")
    sheets = sum(entry.file_size for name, entry in entries.items() if name.startswith(_SHEETS))
    others = sum(
        entry.file_size
        for name, entry in entries.items()
        if not name.startswith(_SHEETS) and not _NOT_READ.search(name)
    )
    if sheets > MAX_SHEET_BYTES or others > MAX_XML_BYTES:
        raise UnreadableError(f"unpacks to {sheets + others} bytes besides pictures, more than is read from one file")
    return entries


@contextlib.contextmanager
def _without_media(path: Path, content: str) -> Iterator[IO[bytes]]:
    """A copy whose pictures and videos are empty: the parsers would hold all of them in memory."""
    entries = check_package(path, content)
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(path) as package, zipfile.ZipFile(file, "w") as slim:
            for name, entry in entries.items():
                slim.writestr(name, b"" if _NOT_READ.search(name) else package.read(entry))
        file.seek(0)
        yield file
