"""All that a local workspace knows, in one SQLite file: resources by kind, name and version, as ARM shows them."""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TABLE = """
CREATE TABLE IF NOT EXISTS resources (
  kind TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, body TEXT NOT NULL,
  number INTEGER PRIMARY KEY AUTOINCREMENT, UNIQUE (kind, name, version)
)
"""


class ResourceStore:
    """Written at once and whole, so that a workspace that is killed comes back with all that it has answered."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")  # whole after any kill of a process
        self._connection.execute(_TABLE)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and no other process or thread between; may stand within another one."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def get(self, kind: str, name: str, version: str = "") -> Any | None:
        row = self._all("SELECT body FROM resources WHERE kind=? AND name=? AND version=?", kind, name, version)
        return json.loads(row[0][0]) if row else None

    def add(self, kind: str, name: str, version: str, body: Any) -> bool:
        """Whether it was new; what is there stays as it is."""
        values = (kind, name, version, json.dumps(body))
        done = self._run("INSERT OR IGNORE INTO resources (kind, name, version, body) VALUES (?, ?, ?, ?)", *values)
        return done.rowcount == 1

    def put(self, kind: str, name: str, version: str, body: Any) -> None:
        self._run(
            "INSERT INTO resources (kind, name, version, body) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (kind, name, version) DO UPDATE SET body = excluded.body",
            *(kind, name, version, json.dumps(body)),
        )

    def change(self, kind: str, name: str, changes: dict[str, Any]) -> Any:
        """Set ``changes`` in the properties of a resource without versions; what it is then."""
        with self.transaction():
            body = self.get(kind, name)
            body["properties"] |= changes
            self.put(kind, name, "", body)
        return body

    def versions(self, kind: str, name: str) -> list[tuple[str, Any]]:
        """All versions of a name, the newest first."""
        rows = self._all("SELECT version, body FROM resources WHERE kind=? AND name=? ORDER BY number DESC", kind, name)
        return [(version, json.loads(body)) for version, body in rows]

    def all(self, kind: str) -> list[Any]:
        """All of a kind that has no versions, the newest first."""
        rows = self._all("SELECT body FROM resources WHERE kind=? ORDER BY number DESC", kind)
        return [json.loads(body) for (body,) in rows]

    def page(self, kind: str, size: int, before: int | None = None) -> list[tuple[int, Any]]:
        """As ``all``, but the next ``size`` of them before a number, each with its number."""
        rows = self._all(
            "SELECT number, body FROM resources WHERE kind=? AND number < ? ORDER BY number DESC LIMIT ?",
            *(kind, 2**62 if before is None else before, size),
        )
        return [(number, json.loads(body)) for number, body in rows]

    def names(self, kind: str) -> list[str]:
        return [name for (name,) in self._all("SELECT DISTINCT name FROM resources WHERE kind=? ORDER BY name", kind)]

    def delete(self, kind: str, name: str, version: str = "") -> bool:
        done = self._run("DELETE FROM resources WHERE kind=? AND name=? AND version=?", kind, name, version)
        return done.rowcount == 1

    def _all(self, statement: str, *values: str | int) -> list[tuple]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def _run(self, statement: str, *values: str) -> sqlite3.Cursor:
        with self._lock:
            return self._connection.execute(statement, values)
