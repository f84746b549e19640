"""Content hashes of files and folders, remembered by size and time so that a large model is read once."""

import hashlib
import json
import threading
import uuid
from pathlib import Path

# What a component writes about an output is not part of it: else a new upstream parameter would invalidate equal data.
_LINEAGE = "lineage.json"


class ContentHashes:
    """Hashes by content, kept in a JSON file between runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._known: dict[str, list] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}

    def of(self, path: Path) -> str:
        """The hash of a file's bytes, or of the names and hashes of a folder's files."""
        if path.is_file():
            return self._of_file(path)
        digest = hashlib.sha256(b"folder")
        for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != _LINEAGE):
            digest.update(f"{file.relative_to(path).as_posix()}\0{self._of_file(file)}\n".encode())
        return digest.hexdigest()

    def _of_file(self, path: Path) -> str:
        stat = path.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        key = str(path.resolve())
        with self._lock:
            known = self._known.get(key)
        if known and known[:3] == mark:
            return known[3]
        with path.open("rb") as file:
            value = hashlib.file_digest(file, "sha256").hexdigest()
        with self._lock:
            self._known[key] = [*mark, value]
        return value

    def save(self) -> None:
        """Keep what is known for the next run."""
        with self._lock:
            known = {key: value for key, value in self._known.items() if Path(key).exists()}
        # A name of its own: two runs may save at the same moment, and the second rename would find no file.
        partial = self._path.with_suffix(f".{uuid.uuid4().hex}.partial")
        partial.write_text(json.dumps(known), encoding="utf-8")
        partial.replace(self._path)
