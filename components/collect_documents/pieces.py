"""What every reader takes and gives: a raw file, its pieces of text and its faults, all of bounded size."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TextIO

_SKIP_CHARS = 1 << 16


class UnreadableError(ValueError):
    """The file as a whole cannot be read; the message is the reason."""


@dataclass(frozen=True)
class RawFile:
    """A file to read: its name in the source, where its bytes stand now, or why they cannot be had."""

    source: str
    path: Path | None
    problem: str = ""
    encoding: str | None = None

    @property
    def stem(self) -> str:
        return PurePosixPath(self.source).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.source).suffix.lower()


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


def shown_name(name: str) -> str:
    """A file name as it is written down: composed characters (a Mac stores Korean apart), U+FFFD for what is none."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def is_hidden(name: str) -> bool:
    """Hidden files, Office's lock files, and the folder of attributes that a Mac adds to an archive."""
    return name != ".." and name.startswith((".", "~$", "__MACOSX"))


def too_long(max_chars: int) -> str:
    return f"longer than max_document_chars={max_chars}"


class TooLongError(ValueError):
    """A record that goes on past the bound; reading goes on with the line after."""


class BoundedLines:
    """The lines of a text, never more than ``max_chars`` of them in memory until ``new_record`` is called.

    What is longer raises ``TooLongError`` once its line has been passed over, so that iteration can go on.
    """

    def __init__(self, file: TextIO, max_chars: int) -> None:
        self.number = 0
        self._file = file
        self._max_chars = self._left = max_chars

    def new_record(self) -> None:
        self._left = self._max_chars

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._left + 3)  # room for the line's end, which does not count
        if not line:
            raise StopIteration
        self.number += 1
        if len(line.rstrip("\r\n")) <= self._left:
            self._left = max(self._left - len(line), 0)
            return line
        while line and not line.endswith(("\n", "\r")):
            line = self._file.readline(_SKIP_CHARS)
        raise TooLongError(too_long(self._max_chars))


_ENDS = [re.compile(pattern) for pattern in (r"\n[ \t\r]*\n", r"\n", r"[。！？．]|[.!?](?=\s)", r"\s")]


def parts(stream: TextIO, title: str, max_chars: int) -> Iterator[Piece]:
    """A text as one piece, or as several of at most ``max_chars``, counted as pages, that end where paragraphs do."""
    held, number = "", 0
    for text in _cut(stream, max_chars):
        if held:
            number += 1
            yield Piece(held, title, page=number)
        held = text
    if held:
        yield Piece(held, title, page=number + 1 if number else None)


def _cut(stream: TextIO, max_chars: int) -> Iterator[str]:
    text = ""
    while True:
        text += stream.read(max_chars + 1 - len(text))
        if len(text) <= max_chars:
            if text.strip():
                yield text
            return
        end = _end(text, max_chars)
        if text[:end].strip():
            yield text[:end]
        text = text[end:]


def _end(text: str, max_chars: int) -> int:
    """The end of the last paragraph in the second half of the room, else of a line, a sentence, a word."""
    for pattern in _ENDS:
        ends = [match.end() for match in pattern.finditer(text, max_chars // 2, max_chars)]
        if ends:
            return ends[-1]
    return max_chars
