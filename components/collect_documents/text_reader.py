"""Plain text, Markdown and JSON Lines, read as streams of bounded size."""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from pieces import BoundedLines, Fault, Piece, RawFile, TooLongError, parts
from table_reader import listing, name_columns, title_of

_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
_FENCED = re.compile(r"^(```|~~~).*?(?:^\1|\Z)", re.MULTILINE | re.DOTALL)


def read_text(file: RawFile, max_chars: int) -> Iterator[Piece]:
    """The whole file, titled by its name."""
    with file.path.open(encoding=file.encoding) as stream:
        yield from parts(stream, file.stem, max_chars)


def read_markdown(file: RawFile, max_chars: int) -> Iterator[Piece]:
    """The whole file, titled by its first heading."""
    with file.path.open(encoding=file.encoding) as stream:
        title = first_heading(stream.read(max_chars)) or file.stem
        stream.seek(0)
        yield from parts(stream, title, max_chars)


def markdown_pieces(markdown: str, title: str, max_chars: int) -> Iterator[Piece]:
    """Markdown that another form was turned into, titled by its first heading, else as given."""
    return parts(io.StringIO(markdown), first_heading(markdown) or title, max_chars)


def first_heading(markdown: str) -> str:
    heading = _HEADING.search(_FENCED.sub("", markdown))
    return heading[1].strip("*_` ") if heading else ""


def read_jsonl(file: RawFile, max_chars: int) -> Iterator[Piece | Fault]:
    """A piece per line: the field ``text``, else ``key: value`` lines of the fields that are plain values."""
    with file.path.open(encoding=file.encoding) as stream:
        lines = BoundedLines(stream, max_chars)
        while True:
            lines.new_record()
            try:
                content = next(lines)
                if content.strip():
                    yield _record(json.loads(content), lines.number)
            except StopIteration:
                return
            except TooLongError as error:
                yield Fault(str(error), lines.number)
            except (ValueError, RecursionError) as error:
                yield Fault(f"not JSON: {getattr(error, 'msg', error)}", lines.number)


def _record(record: Any, line: int) -> Piece | Fault:
    if not isinstance(record, dict):
        return Fault(f"not a JSON object but a {type(record).__name__}", line)
    fields = {key: _plain(value) for key, value in record.items() if isinstance(value, str | int | float)}
    text = fields.get("text") or listing(fields.items())
    if not text:
        return Fault("no field 'text' and no other field with a plain value", line)
    # No other field is a fallback: the first of a JSON object is as likely to be its longest text.
    return Piece(text, title_of(list(fields.values()), name_columns(list(fields))), line)


def _plain(value: Any) -> str:
    return value.strip() if isinstance(value, str) else json.dumps(value)
