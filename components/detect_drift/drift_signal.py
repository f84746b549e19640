"""What a signal of drift found: its verdict, the effects that it measured and its reasons in sentences for people."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["drift", "none", "insufficient", "no_data"]


@dataclass(frozen=True)
class Effect:
    """One measured quantity, now against the baseline; ``low`` and ``high`` bound the change."""

    name: str
    baseline: float | None
    current: float | None
    change: float | None
    low: float | None
    high: float | None
    p_value: float | None = None
    num_baseline: int = 0
    num_current: int = 0
    drift: bool = False
    slice: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Signal:
    name: str
    verdict: Verdict
    effects: tuple[Effect, ...]
    reasons: tuple[str, ...]
