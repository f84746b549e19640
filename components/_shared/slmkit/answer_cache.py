"""Answers that were paid for, by what was asked, in SQLite: each is committed on its own, so that a kill loses none."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from slmkit.errors import UserError


class AnswerCache:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            # Exclusive, so that the write-ahead log needs no shared memory, which a mounted folder lacks.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"the cache of answers {path} cannot be used ({error}): another process has it, or it is damaged; "
                "end that process, or delete the file and pay for the answers again"
            ) from None

    def get(self, key: str) -> dict[str, Any] | None:
        row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, key: str, answer: dict[str, Any]) -> None:
        self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(answer, ensure_ascii=False)))

    def close(self) -> None:
        self._db.close()


def cache_key(*asked: Any) -> str:
    """The same for the same values, whatever the order of the names in them."""
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
