"""What a gate reads of a comparison, and what stands where a rule looks."""

import math
from dataclasses import dataclass
from typing import Annotated

import pydantic
from promotion_policy import Share, Target

from slmkit.errors import UserError

Sha256 = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
OVERALL = "score"  # the metric over several benchmarks


class Read(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(allow_inf_nan=False, frozen=True)


class Interval(Read):
    low: float | None  # None where a single cluster leaves nothing to tell
    high: float | None

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "Interval":
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high")
        return self


class Score(Interval):
    mean: float


class Difference(Interval):
    difference: float
    num_wins: int | None = None
    num_losses: int | None = None

    def is_of_yes_or_no(self, num_items: int) -> bool:
        """Whether the scores are 0 or 1: then wins less losses make up the whole difference."""
        if self.num_wins is None or self.num_losses is None:
            return False
        return math.isclose(self.difference * num_items, self.num_wins - self.num_losses, abs_tol=1e-6)


class Latency(Read):
    p95: float


class Candidate(Read):
    name: str
    scores_sha256: str
    model_sha256: Sha256 | None = None  # absent from comparisons of earlier versions
    endpoint: str | None = None
    metrics: dict[str, Score]
    failed_fraction: Share
    latency_ms: Latency | None
    cost_per_1000: float | None = None


class Pair(Read):
    candidate: str
    baseline: str
    metrics: dict[str, Difference]


class Part(Read):
    """The questions of a benchmark or of a slice."""

    num_items: pydantic.PositiveInt
    num_clusters: pydantic.PositiveInt
    means: dict[str, Score]
    differences: dict[str, Difference]


class Benchmark(Part):
    benchmark: str
    metric: str
    chance: float | None = None


class Slice(Part):
    slice: str
    value: str


class HeldOut(Read):
    statement: str


class Comparison(Read):
    metric: str | dict[str, str]
    num_items: pydantic.PositiveInt
    num_clusters: pydantic.PositiveInt
    confidence_level: Annotated[float, pydantic.Field(gt=0, lt=1)]
    eval_items_sha256: str
    held_out: HeldOut
    warnings: list[str]
    candidates: list[Candidate]
    comparisons: Annotated[list[Pair], pydantic.Field(min_length=1)]
    benchmarks: list[Benchmark] = []
    slices: list[Slice] = []

    @pydantic.model_validator(mode="after")
    def _each_once(self) -> "Comparison":
        for names in ([found.name for found in self.candidates], [pair.candidate for pair in self.comparisons]):
            if len(set(names)) < len(names):
                raise ValueError(f"a candidate stands twice among {', '.join(names)}")
        for pair in self.comparisons:
            if pair.candidate == pair.baseline:
                raise ValueError(f"{pair.candidate} is compared with itself")
        return self

    @property
    def main_metric(self) -> str:
        return self.metric if isinstance(self.metric, str) else OVERALL

    def pair(self, candidate: str | None) -> Pair:
        """The candidate against the baseline; it must be named where there are several."""
        pairs = {pair.candidate: pair for pair in self.comparisons}
        if candidate is None and len(pairs) > 1:
            raise UserError(f"the comparison has several candidates; set candidate to one of {', '.join(pairs)}")
        if candidate is not None and candidate not in pairs:
            raise UserError(f"candidate {candidate!r} is not in the comparison; there: {', '.join(pairs)}")
        return pairs[candidate] if candidate is not None else self.comparisons[0]

    def side(self, name: str) -> Candidate:
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise UserError(f"the comparison compares {name!r}, and says nothing of it; was it changed by hand?")


@dataclass(frozen=True)
class Evidence:
    """Both sides where a rule looks."""

    where: str
    num_items: int
    num_clusters: int
    baseline: Score
    candidate: Score
    difference: Difference
    is_of_yes_or_no: bool


def look_up(comparison: Comparison, pair: Pair, target: Target) -> Evidence:
    """What the target names; ``UserError`` with what is there instead."""
    if target.benchmark is not None:
        parts = {part.benchmark: part for part in comparison.benchmarks}
        part = _named(parts, target.benchmark, "benchmark")
        metric, place = part.metric, target.benchmark
    elif target.slice is not None:
        parts = {f"{part.slice}={part.value}": part for part in comparison.slices}
        ((key, value),) = target.slice.items()
        metric, place = comparison.main_metric, f"{key}={value}"
        part = _named(parts, place, "slice")
    else:
        metric = target.metric or comparison.main_metric
        difference = _named(pair.metrics, metric, "metric")
        means = [_named(comparison.side(name).metrics, metric, "metric") for name in (pair.baseline, pair.candidate)]
        num_items = comparison.num_items
        yes_or_no = difference.is_of_yes_or_no(num_items)
        return Evidence(metric, num_items, comparison.num_clusters, *means, difference, yes_or_no)
    if target.metric not in (None, metric):
        raise UserError(f"the policy asks for metric {target.metric!r} in {place}; it was compared by {metric}")
    difference, overall = _named(part.differences, pair.candidate, "candidate"), pair.metrics.get(metric)
    yes_or_no = difference.is_of_yes_or_no(part.num_items)
    if overall:
        yes_or_no = yes_or_no or overall.is_of_yes_or_no(comparison.num_items)
    return Evidence(
        f"{metric} in {place}",
        part.num_items,
        part.num_clusters,
        _named(part.means, pair.baseline, "candidate"),
        _named(part.means, pair.candidate, "candidate"),
        difference,
        yes_or_no,
    )


def _named(found: dict, name: str, what: str):
    if name not in found:
        there = ", ".join(found) or "none"
        raise UserError(f"the policy asks for {what} {name!r}; the comparison has {there}")
    return found[name]
