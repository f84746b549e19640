"""The span of time that a collection covers: from its start, up to but without its end."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pydantic

from slmkit import checked_files
from slmkit.errors import UserError

_MILLISECONDS_FROM = 1e11  # a larger number of seconds lies beyond the year 5138
_LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class Settings(Protocol):
    window_name: str | None
    window_start: str | None
    window_end: str | None
    window_hours: float | None
    earlier_window: Path | None
    period: Path | None
    settle_seconds: float


class EarlierWindow(pydantic.BaseModel):
    end: pydantic.AwareDatetime


class Period(pydantic.BaseModel):
    start: pydantic.AwareDatetime
    end: pydantic.AwareDatetime


@dataclass(frozen=True)
class Window:
    """``start`` is None where everything up to ``end`` is meant; both are seconds since 1970."""

    name: str
    start: float | None
    end: float

    def holds(self, moment: float) -> bool:
        return (self.start is None or self.start <= moment) and moment < self.end


def read(settings: Settings, now: float) -> Window:
    """What the inputs ask for; a window never reaches beyond now, or the next one would miss what comes."""
    if settings.earlier_window and settings.window_start:
        raise UserError("give window_start or earlier_window, not both: the window starts where the earlier one ended")
    if settings.period:
        return _of_period(settings)
    start = _moment("window_start", settings.window_start)
    end = _moment("window_end", settings.window_end)
    if settings.earlier_window:
        hint = "is it the output window of collect_traffic?"
        start = checked_files.load(settings.earlier_window, EarlierWindow, hint).end.timestamp()
    if settings.window_hours is not None:
        seconds = 3600 * settings.window_hours
        if start is not None and end is not None:
            raise UserError("give two of window_start (or earlier_window), window_end and window_hours, not all three")
        if start is not None:
            end = start + seconds
        else:
            end = now - settings.settle_seconds if end is None else end
            start = end - seconds
    latest = now - settings.settle_seconds
    until = latest if end is None else min(end, latest)
    until = _milliseconds(until) / 1000  # as exact as it is written down
    if start is not None and start >= until:
        if settings.earlier_window is None or (end is not None and end <= start):
            raise UserError(f"the window would start at {iso(start)}, not before the end of the window, {iso(until)}")
        until = start  # nothing has settled since; ended earlier, the next window would have the same rows once more
    return Window(_name(settings, until), start, until)


def _of_period(settings: Settings) -> Window:
    """A window that somebody else has measured."""
    others = ("window_start", "window_end", "window_hours", "earlier_window")
    if given := [port for port in others if getattr(settings, port) is not None]:
        raise UserError(f"give period or {given[0]}, not both: the period has a start and an end")
    period = checked_files.load(settings.period, Period, "it needs a start and an end, with their zone")
    start, end = period.start.timestamp(), period.end.timestamp()
    if start >= end:
        raise UserError(f"{settings.period}: its start {iso(start)} is not before its end {iso(end)}")
    return Window(_name(settings, end), start, end)


def _name(settings: Settings, end: float) -> str:
    name = settings.window_name or f"to {iso(end)[:16]}Z"
    if not name.isprintable() or not name.strip() or len(name) > 100:
        raise UserError(f"window_name {name[:40]!r}: give it up to 100 characters on one line")
    return name


def _moment(port: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return seconds_of(text)
    except ValueError:
        raise UserError(f"{port} {text[:40]!r}: not a time such as 2026-11-22T09:00:00Z") from None


def seconds_of(value: Any) -> float:
    """A time in ISO 8601 (UTC where it names no zone) or in seconds or milliseconds since 1970."""
    if isinstance(value, str) and value.isdecimal() and len(value) > len("20260302"):
        value = int(value)
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no time")
    else:
        seconds = value / 1000 if value > _MILLISECONDS_FROM else float(value)
    if not 0 <= seconds < _LATEST:
        raise ValueError("no time of these centuries")
    return seconds


def iso(moment: float) -> str:
    """Such as 2026-11-22T09:00:00.123Z."""
    milliseconds = _milliseconds(moment)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + f".{milliseconds % 1000:03}Z"


def _milliseconds(moment: float) -> int:
    """Rounded down, so that what lies before the end of a window is not written as its end."""
    return round(1e6 * moment) // 1000
