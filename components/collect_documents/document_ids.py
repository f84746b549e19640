"""Ids that stay the same when rows are put before, and are unique, in a memory that does not grow."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from slmkit import records

_CACHE_KIBIBYTES = 8 << 10


@contextmanager
def document_ids() -> Iterator[Callable[[str, str], str]]:
    """The id of a text in a file: from both alone; a text that the file repeats is numbered from the second time on.

    How often each id was seen stands in a temporary SQLite database: in memory while it is small, then in a file.
    """
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE seen (id INTEGER PRIMARY KEY, times INTEGER)")
        database.execute("BEGIN")

        def document_id(source: str, text: str) -> str:
            found = records.content_id(source, text)
            while (times := _count(database, found)) > 1:
                found = records.content_id(source, text, str(times))
            return found

        yield document_id


def _count(database: sqlite3.Connection, document_id: str) -> int:
    """How often the id was asked for, this time included."""
    key = (int(document_id, 16) - (1 << 63),)  # SQLite's integers are signed
    if database.execute("INSERT INTO seen VALUES (?, 1) ON CONFLICT DO NOTHING", key).rowcount:
        return 1
    return database.execute("UPDATE seen SET times = times + 1 WHERE id = ? RETURNING times", key).fetchone()[0]
