"""The traffic of a window and the window itself, as collect_traffic wrote them, held to their form."""

from datetime import datetime
from pathlib import Path
from typing import Literal

import pydantic

from slmkit import checked_files, records
from slmkit.errors import UserError

KEPT = (
    "id",
    "timestamp",
    "messages",
    "output",
    "status",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
    "finish_reason",
    "deployment",
    "model",
    "language",
    "error",
)
NUMBERS = ("latency_ms", "prompt_tokens", "completion_tokens")
LARGEST = 1e12  # of them; sums of these stay finite
TEXTS = ("output", "finish_reason", "deployment", "model", "language")


class Window(pydantic.BaseModel):
    name: str
    start: datetime | None = None
    end: datetime | None = None
    status: Literal["ok", "no_data"] = "ok"
    reason: str | None = None
    num_rows: int | None = None

    @property
    def ended(self) -> str | None:
        return self.end and self.end.isoformat().replace("+00:00", "Z")


def read_window(path: Path) -> Window:
    return checked_files.load(path, Window, "is it the output window of collect_traffic?")


def read(path: Path, window: Window | None) -> list[dict]:
    """The rows of traffic; they must be as many as the window says, and well-formed."""
    rows, seen = [], set()
    for row, source, line in records.read_located(path):
        try:
            _check(row)
            if row["id"] in seen:
                raise ValueError(f"id {row['id'][:80]!r} stands twice; ids must be unique")
        except ValueError as error:
            raise UserError(f"{source}:{line}: {error}; let collect_traffic make the records") from None
        seen.add(row["id"])
        rows.append({name: row.get(name) for name in KEPT})
    expected = 0 if window and window.status == "no_data" else window and window.num_rows
    if expected is not None and expected != len(rows):
        raise UserError(f"{path}: {len(rows)} rows where the window says {expected}; give both of one collect_traffic")
    return rows


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))


def _check(row: dict) -> None:
    if not isinstance(row.get("id"), str) or not row["id"]:
        raise ValueError("no 'id' (a text)")
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise ValueError("'messages' is not a list of objects with texts as 'role' and 'content'")
    status = row.get("status")
    if not isinstance(status, int) or isinstance(status, bool):
        raise ValueError(f"'status' is {status!r:.40} and not an HTTP status")
    stamp = row.get("timestamp")
    if stamp is not None:
        try:
            datetime.fromisoformat(stamp)
        except (TypeError, ValueError):
            raise ValueError(f"'timestamp' is {stamp!r:.40} and not a time such as 2026-11-22T08:30:00Z") from None
    for name in NUMBERS:
        value = row.get(name)
        if value is not None and (
            not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LARGEST
        ):
            raise ValueError(f"{name!r} is {value!r:.40} and not a number from 0 to {LARGEST:g}")
    for name in TEXTS:
        if not isinstance(row.get(name), str | None):
            raise ValueError(f"{name!r} is a {type(row[name]).__name__} and not a text")
