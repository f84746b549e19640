"""Whether answers have become slower, longer or more often failed."""

import math
from dataclasses import dataclass

import block_statistics
import enough_traffic
import numpy as np
from block_statistics import Interval
from drift_settings import ServiceDriftSettings
from drift_signal import Effect, Signal
from no_difference import holm

from slmkit.wilson_interval import wilson

NAME = "service_drift"
THROTTLED = 429


@dataclass(frozen=True)
class Measure:
    """What is read of the rows, what of it is compared, and the least change that counts."""

    name: str
    said: str
    column: str
    minimum: float  # a ratio for the numbers of answers, a difference for shares of requests
    quantile: float | None = None
    either_way: bool = False

    @property
    def is_share(self) -> bool:
        return self.column in ("failed", "throttled")


def measures(settings: ServiceDriftSettings) -> list[Measure]:
    p50, p95, tokens = settings.min_latency_p50_ratio, settings.min_latency_p95_ratio, settings.min_tokens_ratio
    return [
        Measure("latency_p50_milliseconds", "The median latency", "latency_ms", p50, quantile=0.5),
        Measure("latency_p95_milliseconds", "The latency of the slowest 5 %", "latency_ms", p95, quantile=0.95),
        Measure("tokens_per_answer", "The tokens per answer", "completion_tokens", tokens, either_way=True),
        Measure("error_fraction", "The share of failed requests", "failed", settings.min_error_increase),
        Measure("throttled_fraction", "The share of throttled requests", "throttled", settings.min_throttled_increase),
    ]


def service_drift(baseline: list[dict], current: list[dict], settings: ServiceDriftSettings, seed: int) -> Signal:
    """Compare how the requests of two windows of traffic were answered.

    Latency and tokens are those of whole answers and change by a ratio; failed and throttled requests are shares of all
    and change by a difference. Only what got worse is drift; of tokens either direction.
    """
    if unready := enough_traffic.unready(NAME, baseline, current, settings.min_num_rows):
        return unready
    before, now = _columns(baseline), _columns(current)
    found, lacking = [], []
    for measure in measures(settings):
        values = before[measure.column], now[measure.column]
        fewest = min(map(len, values))
        if fewest >= settings.min_num_rows:
            found.append((measure, _effect(measure, *values, seed)))
        else:
            lacking.append(f"{measure.said} is not judged: {fewest:,} answers of a window tell it, too few.")
    adjusted = holm([effect.p_value for _, effect in found])
    effects, reasons = [], []
    for (measure, effect), p_value in zip(found, adjusted, strict=True):
        outage = measure.is_share and _is_outage(before[measure.column], now[measure.column], settings)
        drift = outage or (p_value <= settings.alpha and _matters(measure, effect))
        effects.append(Effect(**vars(effect) | {"p_value": p_value, "drift": drift}))
        if drift:
            reasons.append(_sentence(measure, effect))
    if reasons:
        return Signal(NAME, "drift", tuple(effects), (*reasons, *lacking))
    if all(measure.is_share for measure, _ in found):
        return Signal(NAME, "insufficient", tuple(effects), tuple(lacking))
    quiet = "The service has not become worse by more than chance and the policy's least changes."
    return Signal(NAME, "none", tuple(effects), (quiet, *lacking))


def _columns(rows: list[dict]) -> dict[str, np.ndarray]:
    """What is measured, in the order of time; of answers only what is a number."""
    rows = sorted(rows, key=lambda row: row.get("timestamp") or "")
    failed, throttled = [], []
    numbers: dict[str, list[float]] = {"latency_ms": [], "completion_tokens": []}
    for row in rows:
        status = row.get("status") or 0
        throttled.append(status == THROTTLED)
        failed.append(status != THROTTLED and (not 200 <= status < 300 or bool(row.get("error"))))
        if not (failed[-1] or throttled[-1]):
            for name, values in numbers.items():
                value = row.get(name)
                if value == 0 and name == "completion_tokens" and row.get("output") == "":
                    value = 1  # the end of an empty answer; other zeros are of servers that do not count
                if value is not None and math.isfinite(value) and value > 0:
                    values.append(value)
    return {"failed": np.array(failed), "throttled": np.array(throttled)} | {
        name: np.array(values, dtype=float) for name, values in numbers.items()
    }


def _effect(measure: Measure, before: np.ndarray, now: np.ndarray, seed: int) -> Effect:
    """The change with its interval, and the p-value of no change (of none for the worse, unless either way counts)."""
    tested = before, now
    if measure.quantile is not None:  # of both windows: the share of slower answers is what is tested
        threshold = np.quantile(np.concatenate([before, now]), measure.quantile)
        tested = np.sign(before - threshold), np.sign(now - threshold)  # what is as slow counts by half
    p_value = block_statistics.p_value(*tested, seed, two_sided=measure.either_way)
    (then, of_then), (today, of_today) = _estimate(measure, before), _estimate(measure, now)
    if measure.is_share:
        change = round(today - then, 12)
        low, high = block_statistics.difference_interval(then, of_then, today, of_today)
    else:
        change = today / then
        logs = [(math.log(value), tuple(map(math.log, ends))) for value, ends in ((then, of_then), (today, of_today))]
        low, high = map(math.exp, block_statistics.difference_interval(*logs[0], *logs[1]))
    return Effect(measure.name, then, today, change, low, high, p_value, num_baseline=len(before), num_current=len(now))


def _estimate(measure: Measure, values: np.ndarray) -> tuple[float, Interval]:
    if measure.is_share:
        return float(values.mean()), block_statistics.share_interval(values)
    if measure.quantile is None:
        return float(values.mean()), block_statistics.mean_interval(values)
    return float(np.quantile(values, measure.quantile)), block_statistics.quantile_interval(values, measure.quantile)


def _matters(measure: Measure, effect: Effect) -> bool:
    if measure.either_way:
        return max(effect.change, 1 / effect.change) >= measure.minimum
    return effect.change >= measure.minimum


def _is_outage(before: np.ndarray, now: np.ndarray, settings: ServiceDriftSettings) -> bool:
    """The errors of one bad hour are one event, which the test of blocks may call chance; users call it an outage."""
    limit = settings.max_error_fraction
    return bool(before.mean() < limit < wilson(int(now.sum()), len(now))[0])


def _sentence(measure: Measure, effect: Effect) -> str:
    if measure.is_share:
        return (
            f"{measure.said} went from {effect.baseline:.1%} to {effect.current:.1%} ({100 * effect.change:+.1f} "
            f"points, 95 % interval {100 * effect.low:+.1f} to {100 * effect.high:+.1f})."
        )
    unit = " ms" if measure.quantile is not None else ""
    return (
        f"{measure.said} went from {effect.baseline:,.0f} to {effect.current:,.0f}{unit} (× {effect.change:.2f}, 95 % "
        f"interval {effect.low:.2f} to {effect.high:.2f})."
    )
