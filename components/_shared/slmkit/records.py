"""JSON Lines records: a streaming reader of JSONL, JSONL.gz and Parquet, and writers that write whole files or none."""

import codecs
import contextlib
import dataclasses
import errno
import gzip
import hashlib
import json
import math
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from slmkit.errors import UserError

Record = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
_SHARDS = (".jsonl", ".jsonl.gz", ".parquet")
_LONGEST_LINE = 2**26  # bytes; a small .gz may hold one that no memory does
_BLANK = codecs.BOM_UTF8 + b" \t\r\n"
_PARTIAL = ".partial"
_HIDDEN = re.compile(r"(?:^|/)\.")  # such as what a killed writer left
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Refused:
    """A record that could not be read: where it stood and why; ``text`` is its beginning."""

    source: str
    line: int
    reason: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


class RecordError(UserError):
    """A record that cannot be read, as ``file:line: reason``."""


def _raise(refused: Refused) -> None:
    raise RecordError(f"{refused}; correct or remove the line")


def read_records(path: Path, on_error: Callable[[Refused], None] = _raise) -> Iterator[Record]:
    """Yield the records of a file, or of a folder of shards in the order of their names, one at a time.

    The form is told by content, not by name, because an Azure ML ``uri_file`` has no extension. A line that is not a
    JSON object goes to ``on_error``, which by default raises ``RecordError`` with file and line.
    """
    for record, _, _ in read_located(path, on_error):
        yield record


def read_located(path: Path, on_error: Callable[[Refused], None] = _raise) -> Iterator[tuple[Record, str, int]]:
    """Like ``read_records``, with the file name and the line (from 1) of each record."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    for name, shard in shards(path).items():
        for number, line in enumerate(_lines(shard), start=1):
            if not line.strip(_BLANK):
                continue
            try:
                record = _record(line)
            except ValueError as error:
                on_error(Refused(name, number, str(error), line[:200].decode("utf-8", "replace")))
            else:
                yield record, name, number


def shards(path: Path) -> dict[str, Path]:
    """The shards below a folder by their names in it, in the order of these; or the one file by its own name."""
    if not path.is_dir():
        return {path.name: path}
    found = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.name.endswith(_SHARDS)}
    found = {name: found[name] for name in sorted(found) if is_shard(name) and found[name].is_file()}
    if not found:
        raise UserError(f"{path}: the folder holds no .jsonl, .jsonl.gz or .parquet file")
    return found


def is_shard(name: str) -> bool:
    """Whether a file of this name in a folder of records is one of its shards."""
    return name.endswith(_SHARDS) and not _HIDDEN.search(name)


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; of Parquet, each row as the line of JSONL that says the same."""
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        try:
            if magic == b"PAR1":
                yield from _rows_as_lines(file)
            else:
                yield from _bounded_lines(gzip.GzipFile(fileobj=file) if magic.startswith(b"\x1f\x8b") else file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise RecordError(f"{path}: the gzip file is damaged: {error}") from None


def _bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines; of one that is too long, the beginning."""
    read = partial(file.readline, _LONGEST_LINE)
    for line in iter(read, b""):
        rest = line
        while len(rest) == _LONGEST_LINE and not rest.endswith(b"\n"):
            rest = read()
        yield line


def _rows_as_lines(file: BinaryIO) -> Iterator[bytes]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                yield json.dumps(row, ensure_ascii=False, default=str).encode()
    except (pyarrow.ArrowException, OSError) as error:
        raise RecordError(f"{file.name}: the Parquet file is damaged: {error}") from None


def _record(line: bytes) -> Record:
    """The JSON object in a line; ``ValueError`` with the reason when there is none, or none that can be written."""
    if len(line) >= _LONGEST_LINE:
        raise ValueError(f"longer than {_LONGEST_LINE:,} bytes")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start} of the line") from None
    try:
        record = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(record, dict):
        raise ValueError(f"not a JSON object but a {type(record).__name__}")
    if _ESCAPED_SURROGATE.search(text):
        _as_line(record)
    return record


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits[:20])


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _as_line(record: Record) -> bytes:
    try:
        return _ENCODER.encode(record).encode() + b"\n"
    except UnicodeEncodeError:
        raise ValueError("half a character (a lone surrogate), as in a text that was cut within an emoji") from None


@contextlib.contextmanager
def write_records(path: Path) -> Iterator[Callable[[Record], None]]:
    """Write records as JSONL to exactly ``path``; the file appears when the block ends without an error."""
    with whole_file(path) as partial, partial.open("wb") as file:

        def write(record: Record) -> None:
            try:
                line = _as_line(record)
            except ValueError as error:
                raise RecordError(f"{path}: the record {record.get('id')!r} cannot be written: {error}") from error
            with _says_what_is_full(path):
                file.write(line)

        yield write


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and rename it to ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + _PARTIAL)
    try:
        with _says_what_is_full(path):
            yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; its files come to stand in ``path`` when the block ends without an error.

    Azure ML mounts an output folder before the component starts, so ``path`` may exist and cannot be replaced itself:
    the new folder is filled inside it and its entries are renamed one level up, the old ones having been removed.
    """
    path.mkdir(parents=True, exist_ok=True)
    partial = path / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with _says_what_is_full(path):
            yield partial
        for old in path.iterdir():
            if old != partial:
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        for new in partial.iterdir():
            new.replace(path / new.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _says_what_is_full(path: Path) -> Iterator[None]:
    """Python's error of a full disk names no file."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL or error.filename:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def content_id(*parts: str) -> str:
    """A stable id of 16 hexadecimal digits for what the parts say together."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def check_share(num_bad: int, num_all: int, max_error_fraction: float, what: str) -> None:
    """Stop when more than ``max_error_fraction`` of ``what`` was refused."""
    if num_all and num_bad / num_all > max_error_fraction:  # 0.29 * 100 is below 29
        raise UserError(
            f"{num_bad} of {num_all} {what} were refused, which is more than max_error_fraction={max_error_fraction}; "
            "see the quarantine for each reason"
        )


def check_chat(record: Record) -> None:
    """Raise ``ValueError`` with a one-line reason unless ``record`` holds a chat (the Transformers/TRL/OpenAI form)."""
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("a chat needs a non-empty list 'messages'")
    for position, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise ValueError(f"message {position} is not an object with role and content")
        if message.get("role") not in ROLES:
            raise ValueError(
                f"message {position} has the unknown role {message.get('role')!r}; known: {', '.join(ROLES)}"
            )
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            raise ValueError(f"message {position} ({message['role']}) has no text")


def check_slices(item: Record) -> None:
    """Raise ``ValueError`` with a one-line reason unless the slices of an eval item, if any, are texts by name."""
    slices = item.get("slices") or {}
    if not isinstance(slices, dict):
        raise ValueError(f'\'slices\' is a {type(slices).__name__} and not an object such as {{"language": "ja"}}')
    for key, value in slices.items():
        if isinstance(value, dict | list):
            raise ValueError(f"the slice {key!r} is a {type(value).__name__} and not a text")


def check_candidate(name: str) -> None:
    """Raise ``UserError`` unless ``name`` can head a column of a report."""
    if not (name.strip() and name.isprintable()):
        raise UserError(f"candidate {name!r} is blank or has line breaks; give a name to score it under")
