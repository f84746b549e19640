"""JSON Lines records: a streaming reader of JSONL, JSONL.gz and Parquet, and writers that write whole files or none."""

import contextlib
import dataclasses
import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from slmkit.errors import UserError

Record = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
_PARTIAL = ".partial"


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
    shards = _shards(path) if path.is_dir() else [path]
    if not shards:
        raise UserError(f"{path}: the folder holds no .jsonl, .jsonl.gz or .parquet file")
    for shard in shards:
        with shard.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic == b"PAR1":
                yield from _read_parquet(shard)
            elif magic[:2] == b"\x1f\x8b":
                yield from _read_lines(shard.name, gzip.GzipFile(fileobj=file), on_error)
            else:
                yield from _read_lines(shard.name, file, on_error)


def _shards(folder: Path) -> list[Path]:
    endings = (".jsonl", ".jsonl.gz", ".parquet")
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith(endings) and p.name[0] != ".")


def _read_lines(
    name: str, file: BinaryIO | gzip.GzipFile, on_error: Callable[[Refused], None]
) -> Iterator[tuple[Record, str, int]]:
    lines = enumerate(file, start=1)
    while True:
        try:
            number, line = next(lines)
        except StopIteration:
            return
        except (EOFError, gzip.BadGzipFile) as error:
            raise RecordError(f"{name}: the gzip file is damaged: {error}") from None
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except UnicodeDecodeError as error:
            on_error(Refused(name, number, f"not UTF-8: {error.reason} at byte {error.start}"))
            continue
        except (json.JSONDecodeError, RecursionError) as error:
            reason = f"not JSON: {getattr(error, 'msg', error)}"
            on_error(Refused(name, number, reason, line[:200].decode("utf-8", "replace")))
            continue
        if isinstance(record, dict):
            yield record, name, number
        else:
            found = type(record).__name__
            on_error(Refused(name, number, f"not a JSON object but a {found}", line[:200].decode("utf-8", "replace")))


def _read_parquet(path: Path) -> Iterator[tuple[Record, str, int]]:
    import pyarrow.parquet

    try:
        number = 0
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                number += 1
                yield record, path.name, number
    except pyarrow.ArrowInvalid as error:
        raise RecordError(f"{path.name}: the Parquet file is damaged: {error}") from None


@contextlib.contextmanager
def write_records(path: Path) -> Iterator[Callable[[Record], None]]:
    """Write records as JSONL to exactly ``path``; the file appears when the block ends without an error."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:

        def write(record: Record) -> None:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False))
            file.write("\n")

        yield write


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and rename it to ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + _PARTIAL)
    try:
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
        yield partial
        for old in path.iterdir():
            if old != partial:
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        for new in partial.iterdir():
            new.replace(path / new.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def content_id(*parts: str) -> str:
    """A stable id of 16 hexadecimal digits for what the parts say together."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def check_share(num_bad: int, num_all: int, max_error_fraction: float, what: str) -> None:
    """Stop when more than ``max_error_fraction`` of ``what`` was refused."""
    if num_bad > max_error_fraction * num_all:
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
