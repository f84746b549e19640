"""Zip archives, unpacked one file at a time within bounds of size, number and depth."""

import contextlib
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pieces import RawFile, UnreadableError, is_hidden, shown_name
from text_decoding import plausibility

MAX_UNPACKED_BYTES = 8 << 30
MAX_RATIO = 200  # text packs to a tenth or so; a bomb to a thousandth
MAX_LISTING_BYTES = 16 << 20  # some 200,000 files; in memory ten times as much
MAX_DEPTH = 3
_ALWAYS_ALLOWED_BYTES = 64 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_COPY_BYTES = 1 << 20


class _Room:
    """How many more bytes may be unpacked from an archive and from those within it."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes

    def take(self, num_bytes: int) -> None:
        if num_bytes > self._left:
            raise UnreadableError(f"unpacks to {num_bytes} bytes where {self._left} are allowed: taken for a zip bomb")
        self._left -= num_bytes


def with_members(file: RawFile, room: _Room | None = None, depth: int = 1) -> Iterator[RawFile]:
    """The file itself and, where it is an archive, what is in it, named ``archive.zip/path/within``."""
    if file.problem or file.suffix != ".zip":
        yield file
        return
    room = room or _Room(min(MAX_UNPACKED_BYTES, max(_ALWAYS_ALLOWED_BYTES, MAX_RATIO * file.path.stat().st_size)))
    with contextlib.ExitStack() as stack:
        try:
            if depth > MAX_DEPTH:
                raise UnreadableError(f"an archive within {MAX_DEPTH} others is not unpacked")
            archive = stack.enter_context(open_zip(file.path, "a zip archive"))
            members = _members(archive, room)
        except UnreadableError as error:
            yield replace(file, problem=str(error))
            return
        yield file
        unpacked = Path(stack.enter_context(tempfile.TemporaryDirectory()), "member")
        for entry, name in members:
            if any(is_hidden(part) for part in name.split("/")):
                continue
            source = f"{file.source}/{shown_name(name)}"
            if problem := _problem(entry, name) or _unpack(archive, entry, unpacked):
                yield RawFile(source, None, problem)
            else:
                yield from with_members(RawFile(source, unpacked), room, depth + 1)
            unpacked.unlink(missing_ok=True)


def open_zip(path: Path, what: str) -> zipfile.ZipFile:
    try:
        with path.open("rb") as file:
            ending = zipfile._EndRecData(file)  # read first: the list of entries may itself be a bomb
        listing_bytes = ending[zipfile._ECD_SIZE] if ending else 0
        if listing_bytes <= MAX_LISTING_BYTES:
            return zipfile.ZipFile(path)
    except Exception as error:  # zipfile has many ways to say so
        raise UnreadableError(f"not {what}: cut short or damaged ({error})") from None
    raise UnreadableError(f"the list of its files takes {listing_bytes} bytes, more than {MAX_LISTING_BYTES}")


def _members(archive: zipfile.ZipFile, room: _Room) -> list[tuple[zipfile.ZipInfo, str]]:
    """The files with their names, when there is room for all: none gives more bytes than it declares."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if not entries:
        raise UnreadableError("the archive holds no files")
    room.take(sum(entry.file_size for entry in entries))
    return sorted(zip(entries, _names(entries), strict=True), key=lambda pair: pair[1])


def _names(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The names; those without the mark of UTF-8 are in the code page of the machine that packed them."""
    raw = [
        None if entry.flag_bits & 0x800 else entry.orig_filename.partition("\0")[0].encode("cp437") for entry in entries
    ]
    encoding = _encoding(b"\n".join(name for name in raw if name))
    decoded = [
        entry.filename if name is None else name.decode(encoding, "replace")
        for entry, name in zip(entries, raw, strict=True)
    ]
    # After decoding: the second byte of 表 in cp932 is a backslash.
    paths = [name.replace("\\", "/").split("/") for name in decoded]
    return ["/".join(part for part in path if part != ".") for path in paths]


def _encoding(names: bytes) -> str:
    try:
        names.decode("utf-8")  # which a Mac writes without saying so
        return "utf-8"
    except UnicodeDecodeError:
        score, encoding = max((plausibility(names, encoding), encoding) for encoding in ("cp949", "cp932"))
        return encoding if score > 0 else "cp437"


def _problem(entry: zipfile.ZipInfo, name: str) -> str:
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
        return "its name leads out of the archive"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link in an archive is not followed"
    if entry.flag_bits & 1:
        return "encrypted: the archive needs a password"
    if entry.compress_type not in _METHODS:
        return f"packed by method {entry.compress_type} of zip, not by deflate or bzip2"
    return ""


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> str:
    try:
        with archive.open(entry) as packed, target.open("wb") as file:
            while chunk := packed.read(_COPY_BYTES):
                file.write(chunk)
    except OSError:  # such as a full disk, which is no fault of the archive
        raise
    except Exception as error:  # damaged data stops the decompressors in ways of their own
        return f"cannot be unpacked: {type(error).__name__}: {error}"
    return ""
