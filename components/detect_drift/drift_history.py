"""The runs so far, a line each: what each signal found in its window, and what was decided."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pydantic
from drift_signal import Effect, Signal, Verdict

from slmkit import records
from slmkit.errors import UserError

MAX_HEADLINES = 12  # effects of a signal


class Figure(pydantic.BaseModel):
    """An effect as of its window; the ends of its interval where one was found."""

    value: float | None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    drift: bool = False


class Finding(pydantic.BaseModel):
    verdict: Verdict
    headline: dict[str, Figure] = {}


class Line(pydantic.BaseModel):
    window: str | None
    created_at: str
    baseline_id: str
    look: int  # at the baseline, from 1; 0 in the run that made it
    signals: dict[str, Finding]
    action: Literal["retrain", "rollback", "alert", "none"]
    decision_id: str
    endpoint: str | None = None
    model: str | None = None  # as requests name it
    deployment: str | None = None
    model_sha256: str | None = None

    @property
    def served(self) -> tuple[str | None, str | None]:
        return self.deployment, self.model_sha256


def read(path: Path | None) -> list[Line]:
    """The lines of a history; one with lines missing in between is refused, because looks and budgets count them."""
    lines: list[Line] = []
    looks: dict[str, int] = {}
    for row, source, number in records.read_located(path) if path else ():
        where = f"{source}:{number}"
        try:
            line = Line.model_validate(row)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise UserError(f"{where}: no line of a history: {key}: {first['msg']}; is it the right file?") from None
        before = looks.get(line.baseline_id)
        if line.look not in ((0, 1) if before is None else (before + 1,)):
            after = "stands first" if before is None else f"follows look {before}"
            raise UserError(
                f"{where}: look {line.look} at the baseline {line.baseline_id[:12]} {after}: lines are missing or "
                "stand twice; give the history as the last run wrote it"
            )
        looks[line.baseline_id] = line.look
        lines.append(line)
    if path and not lines:
        raise UserError(f"{path}: a history without a line, which no run writes; give it as the last run wrote it")
    return lines


def check_endpoint(past: list[Line], endpoint: str | None, model: str | None) -> None:
    """Rollouts, cooldown and budget of another endpoint or adapter are none of this one; an address is no name."""
    for what, now in (("endpoint", endpoint), ("model", model)):
        other = next((named for line in reversed(past) if (named := getattr(line, what))), None)
        if other and now and other != now and "://" not in other + now:
            raise UserError(
                f"the history is of the {what} {other:.80}, this window of {now:.80}; give the history of this {what}, "
                "or leave out earlier_history to start a new one"
            )


def first_look(past: list[Line], baseline_id: str) -> int:
    """The look of the run that makes a baseline: once."""
    if any(line.baseline_id == baseline_id for line in past):
        raise UserError(
            f"the baseline {baseline_id[:12]} is in the history already; give it as `baseline`, or the history as it "
            "was before that run"
        )
    return 0


def next_look(past: list[Line], baseline_id: str, window: str | None) -> int:
    """The number of the look that is taken now; a window is looked at once."""
    of_baseline = [line for line in past if line.baseline_id == baseline_id]
    if window and any(line.window == window for line in of_baseline):
        raise UserError(
            f"the window {window!r} is in the history already; give the history as it was before that run, "
            "or this window a name of its own"
        )
    return (of_baseline[-1].look if of_baseline else 0) + 1


def overlap(past: list[Line], window: dict[str, Any]) -> list[str]:
    """What is to be said of a window that begins before the last one ended."""
    ended = past[-1].created_at if past else ""
    try:
        overlaps = datetime.fromisoformat(window["start"]) < datetime.fromisoformat(ended)
    except (KeyError, TypeError, ValueError):
        return []  # not known
    return [f"The window begins before the last one ended ({ended}): their traffic counts twice."] if overlaps else []


def findings(signals: Iterable[Signal]) -> dict[str, Finding]:
    return {signal.name: Finding(verdict=signal.verdict, headline=headline(signal.effects)) for signal in signals}


def headline(effects: Iterable[Effect]) -> dict[str, Figure]:
    """What is worth a time line: the effects over all, then those of slices as "name slice"."""
    known = sorted((effect for effect in effects if effect.current is not None), key=lambda one: one.slice is not None)
    return {
        f"{effect.name} {effect.slice}" if effect.slice else effect.name: Figure(
            value=effect.current, baseline=effect.baseline, drift=effect.drift, **band(effect)
        )
        for effect in known[:MAX_HEADLINES]
    }


def band(effect: Effect) -> dict[str, float | None]:
    """The interval of a change, moved to where the current value stands; a change is a difference or a ratio."""
    unknown = {"low": None, "high": None}
    values = (effect.baseline, effect.current, effect.change, effect.low, effect.high)
    if any(value is None for value in values):
        return unknown
    baseline, current, change, low, high = values
    close = 1e-6 * max(1.0, abs(current))
    if abs(current - baseline - change) <= close:
        return {"low": baseline + low, "high": baseline + high}
    if abs(current - baseline * change) <= close:
        return {"low": baseline * low, "high": baseline * high}
    return unknown


def write(path: Path, lines: list[Line]) -> None:
    with records.write_records(path) as write_row:
        for line in lines:
            write_row(line.model_dump())
