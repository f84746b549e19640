"""The rules of promotion: what a policy may hold, and what each rule says to a comparison."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import pydantic

Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Superiority(Strict):
    metric: str
    min_difference: Annotated[float, pydantic.Field(ge=-1, le=1)] = 0.0
    confidence_level: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.95


class Policy(Strict):
    superiority: Superiority
    min_score: Share | None = None
    max_failure_fraction: Share | None = None
    max_latency_p95_ratio: pydantic.PositiveFloat | None = None
    min_num_items: pydantic.PositiveInt | None = None


class Score(pydantic.BaseModel):
    mean: float
    low: float
    high: float


class Difference(pydantic.BaseModel):
    difference: float
    low: float
    high: float


class Latency(pydantic.BaseModel):
    p95: float


class Candidate(pydantic.BaseModel):
    name: str
    scores_sha256: str
    metrics: dict[str, Score]
    failed_fraction: float
    latency_ms: Latency | None


class Pair(pydantic.BaseModel):
    candidate: str
    baseline: str
    metrics: dict[str, Difference]


class HeldOut(pydantic.BaseModel):
    statement: str


class Comparison(pydantic.BaseModel):
    """What a gate reads of the output of compare_candidates."""

    num_items: int
    num_clusters: int
    confidence_level: float
    eval_items_sha256: str
    held_out: HeldOut
    warnings: list[str]
    candidates: list[Candidate]
    comparisons: Annotated[list[Pair], pydantic.Field(min_length=1)]

    def sides(self) -> tuple[Candidate, Candidate]:
        """The baseline and the candidate of the first pair."""
        by_name = {candidate.name: candidate for candidate in self.candidates}
        return by_name[self.comparisons[0].baseline], by_name[self.comparisons[0].candidate]


class Reason(pydantic.BaseModel):
    """What a rule says: `undecided` is for want of evidence."""

    rule: str
    observed: int | float | None
    threshold: int | float
    outcome: Literal["pass", "fail", "undecided"]
    text: str


def judge(policy: Policy, comparison: Comparison) -> Iterator[Reason]:
    """What each rule that the policy sets says."""
    baseline, candidate = comparison.sides()
    metric = policy.superiority.metric
    yield superiority(policy.superiority.min_difference, comparison.comparisons[0].metrics[metric])
    if (floor := policy.min_score) is not None:
        mean = candidate.metrics[metric].mean
        text = f"{candidate.name} scores {mean:.1%}; at least {floor:.1%} is asked"
        yield reason("min_score", mean, floor, mean >= floor, text)
    if (most := policy.max_failure_fraction) is not None:
        failed = candidate.failed_fraction
        text = f"{failed:.1%} of its answers failed; at most {most:.1%} may"
        yield reason("max_failure_fraction", failed, most, failed <= most, text)
    if (most := policy.max_latency_p95_ratio) is not None:
        if baseline.latency_ms and candidate.latency_ms:
            ratio = candidate.latency_ms.p95 / baseline.latency_ms.p95
            text = f"its p95 latency is {ratio:.2f} times the baseline's; at most {most:g} times is asked"
            yield reason("max_latency_p95_ratio", ratio, most, ratio <= most, text)
        else:
            text = "latency is not known: give compare_candidates the predictions of both"
            yield reason("max_latency_p95_ratio", None, most, None, text)
    if (least := policy.min_num_items) is not None:
        enough = comparison.num_items >= least
        text = f"{comparison.num_items} questions; at least {least} are asked"
        yield reason("min_num_items", comparison.num_items, least, enough or None, text)


def superiority(min_difference: float, found: Difference) -> Reason:
    """Passes when the whole interval lies above the minimum, fails when none of it does."""
    asked = f"more than {100 * min_difference:+.1f} is asked"
    if found.low > min_difference:
        text = f"the difference is at least {100 * found.low:+.1f} points; {asked}"
        return reason("superiority", found.low, min_difference, True, text)
    if found.high <= min_difference:
        text = f"the difference is at most {100 * found.high:+.1f} points; {asked}"
        return reason("superiority", found.high, min_difference, False, text)
    text = f"the difference lies between {100 * found.low:+.1f} and {100 * found.high:+.1f} points; {asked}"
    return reason("superiority", found.low, min_difference, None, text)


def reason(rule: str, observed: float | None, threshold: float, holds: bool | None, text: str) -> Reason:
    outcome = "undecided" if holds is None else "pass" if holds else "fail"
    return Reason(rule=rule, observed=observed, threshold=threshold, outcome=outcome, text=text)


def verdict(reasons: list[Reason]) -> str:
    outcomes = {reason.outcome for reason in reasons}
    return "reject" if "fail" in outcomes else "inconclusive" if "undecided" in outcomes else "promote"


def num_items_needed(policy: Policy, comparison: Comparison) -> int | None:
    """About how many questions would decide if the difference stays: an interval narrows as 1 / sqrt(questions).

    None where no number would: the difference stands exactly at the minimum, or the questions are enough already.
    """
    found, asked = comparison.comparisons[0].metrics[policy.superiority.metric], policy.superiority.min_difference
    needed = policy.min_num_items or 0
    if found.low <= asked < found.high:
        if found.difference == asked:
            return None
        half = found.difference - found.low if found.difference > asked else found.high - found.difference
        needed = max(needed, math.ceil(comparison.num_items * (half / (found.difference - asked)) ** 2) + 1)
    return needed if needed > comparison.num_items else None
