"""The files of a folder of logs whose hours can belong to a window; the other hours are not even listed."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from collection_window import Window

from slmkit.errors import UserError

SKEW_SECONDS = 600.0  # by which clocks may differ, and in which a response comes
REQUESTS = ("request", "model_inputs", "inputs")
RESPONSES = ("response", "model_outputs", "outputs", "predictions")
_PAYLOAD = ("request", "response")
_SUFFIXES = (".jsonl", ".jsonl.gz")
_YEAR, _TWO_DIGITS = re.compile(r"20\d\d"), re.compile(r"\d\d")

Refuse = Callable[..., None]  # takes file, line and reason, and damaged=False where the log has no fault


@dataclass(frozen=True)
class LogFile:
    """``name`` is its path in the folder; ``collection`` stands before the date in it, as Azure ML writes it."""

    path: Path
    name: str
    collection: str | None


@dataclass(frozen=True)
class Period:
    """The files of an hour (or a day or a minute, as they were rolled), or all of those that no date tells apart."""

    start: float
    files: list[LogFile]


def periods(folder: Path, window: Window, refuse: Refuse) -> Iterator[Period]:
    """In the order of time; what is no log of this folder goes to ``refuse``."""
    if not folder.exists():
        raise UserError(f"{folder}: no such folder of logs")
    root = folder.resolve()
    if root.is_file():
        yield Period(0.0, [LogFile(root, root.name, None)])
        return
    found: dict[float, list[LogFile]] = defaultdict(list)
    num_entries = num_logs = 0
    pending = [root]
    while pending:
        here = pending.pop()
        for entry in sorted(os.scandir(here), key=lambda entry: entry.name):
            num_entries += 1
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            name = os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "replace")
            if entry.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                refuse(name, 0, "a link out of the folder")
                continue
            if entry.is_dir(follow_symlinks=False):
                span, _ = _span_of(path.relative_to(root).parts)
                num_logs += span is not None
                if span is None or _overlaps(span, window):
                    pending.append(path)
            elif entry.name.endswith(_SUFFIXES) and path.is_file():
                num_logs += 1
                span, collection = _span_of(path.relative_to(root).parts[:-1])
                if span is None or _overlaps(span, window):
                    found[span[0] if span else 0.0].append(LogFile(path, name, collection))
    if num_entries and not num_logs:
        raise UserError(
            f"{folder}: nothing in it looks like traffic: no .jsonl or .jsonl.gz file and no folder of a date "
            "(COLLECTION/YYYY/MM/DD/HH); give the folder modelDataCollector/ENDPOINT, or one of chats"
        )
    # Collections that a scoring script adds would show the requests of its deployment once more.
    with_payload = {_deployment(file) for files in found.values() for file in files if file.collection in _PAYLOAD}
    for start in sorted(found):
        files = [
            file
            for file in found[start]
            if file.collection in (*_PAYLOAD, None) or _deployment(file) not in with_payload
        ]
        yield Period(start, sorted(files, key=lambda file: (file.collection in RESPONSES, file.name)))


def _deployment(file: LogFile) -> str:
    """The folder that its collections are in."""
    return f"/{file.name}".partition(f"/{file.collection}/20")[0]


def _span_of(parts: tuple[str, ...]) -> tuple[tuple[float, float] | None, str | None]:
    """The time that the date in a path covers, and the name of the collection before it."""
    for place, part in enumerate(parts):
        if _YEAR.fullmatch(part):
            rest = parts[place + 1 : place + 5]
            if all(_TWO_DIGITS.fullmatch(one) for one in rest):
                return _span(int(part), *map(int, rest)), parts[place - 1] if place else None
    return None, None


def _span(year: int, *rest: int) -> tuple[float, float] | None:
    month, day, hour, minute = (*rest, *(1, 1, 0, 0)[len(rest) :])
    try:
        start = datetime(year, month, day, hour, minute, tzinfo=UTC)
    except ValueError:
        return None
    if len(rest) < 2:
        following = datetime(year + (not rest or month == 12), month % 12 + 1 if rest else 1, 1, tzinfo=UTC)
    else:
        following = start + (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1))[len(rest) - 2]
    return start.timestamp(), following.timestamp()


def _overlaps(span: tuple[float, float], window: Window) -> bool:
    after = window.start is None or span[1] > window.start - SKEW_SECONDS
    return after and span[0] < window.end + SKEW_SECONDS
