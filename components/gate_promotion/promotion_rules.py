"""What each rule of a policy says to a comparison, the verdict, and how many questions an open rule wants."""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Literal

import pydantic
from compared import Candidate, Comparison, Evidence, Pair, look_up
from promotion_policy import Policy, Target

from slmkit.errors import UserError

POWER = 0.8
"""The chance that the questions asked for decide, if the difference is what it seems."""
FORMULA = (
    "num_items * ((z + z80) * half / (z * distance))^2: half is the interval's half toward the threshold, distance how "
    "far the estimate lies from it, z the normal quantile of the confidence level, z80 that of 80 % power"
)


class Reason(pydantic.BaseModel):
    """What a rule says: `undecided` is for want of evidence."""

    rule: str
    where: str | None = None
    observed: int | float | None = None
    threshold: int | float | None = None
    outcome: Literal["pass", "fail", "undecided"]
    text: str
    num_items_needed: int | None = None  # of the questions that it looks at


def judge(policy: Policy, comparison: Comparison, pair: Pair) -> Iterator[Reason]:
    """What each rule that the policy sets says, evidence first."""
    level = comparison.confidence_level
    if policy.superiority:
        found = look_up(comparison, pair, policy.superiority)
        yield of_difference("superiority", found, policy.superiority.min_difference, level)
    for guard in policy.guards:
        yield of_difference("non_inferiority", look_up(comparison, pair, guard), -guard.margin, level)
    for floor in policy.floors:
        yield of_score("min_score", look_up(comparison, pair, floor), floor.min_score, floor.statistic, pair, level)
    if policy.above_chance:
        yield from above_chance(comparison, pair, level)
    yield from of_answers(policy, comparison, comparison.side(pair.candidate), comparison.side(pair.baseline))


def of_difference(rule: str, found: Evidence, threshold: float, level: float) -> Reason:
    """Passes when the whole interval lies above the threshold, fails when none of it does."""
    asked = f"more than {points(threshold)} is asked"
    difference = found.difference
    if difference.low is None or difference.high is None:
        text = f"{found.where}: the difference is {points(difference.difference)} points without an interval, as all "
        text += f"questions are of one cluster; {asked}"
        return reason(rule, difference.difference, threshold, None, text, found)
    low = min(difference.low, difference.difference - least_half(found, threshold, level))
    if low > threshold:
        held_to = " (allowing for differences not seen)" if low < difference.low else ""
        text = f"{found.where}: the difference is at least {points(low)} points{held_to}; {asked}"
        return reason(rule, low, threshold, True, text, found)
    if difference.high <= threshold:
        text = f"{found.where}: the difference is at most {points(difference.high)} points; {asked}"
        return reason(rule, difference.high, threshold, False, text, found)
    text = f"{found.where}: the difference lies between {points(low)} and {points(difference.high)} points; {asked}"
    needed = num_items_needed(found.num_items, difference.difference, low, difference.high, threshold, level)
    return reason(rule, low, threshold, None, text, found, needed)


def least_half(found: Evidence, threshold: float, level: float) -> float:
    """The least that the lower half of an interval can be where the true difference is at the threshold.

    0/1 scores that differ by t on average differ in a share t of the questions at least, so that their differences have
    a variance of t (1 - t) at least. A bootstrap of few differing questions, or of none, does not know of those not
    seen: 20 questions with the same answers would show any margin to be kept. Where nothing varies at all, the same
    holds for scores of any kind. Clusters are counted, as a document may fail as a whole.
    """
    varies = found.difference.low != found.difference.high
    if varies and not found.is_of_yes_or_no:
        return 0.0
    share = abs(threshold)
    return quantile(level) * math.sqrt(share * (1 - share) / found.num_clusters)


def of_score(rule: str, found: Evidence, threshold: float, statistic: str, pair: Pair, level: float) -> Reason:
    score, asked = found.candidate, f"at least {threshold:.1%} is asked"
    if statistic == "mean":
        text = f"{found.where}: {pair.candidate} scores {score.mean:.1%}; {asked}"
        return reason(rule, score.mean, threshold, score.mean >= threshold, text, found)
    if score.low is None or score.high is None:
        text = f"{found.where}: {pair.candidate} scores {score.mean:.1%} without an interval, as all questions are of "
        return reason(rule, score.mean, threshold, None, f"{text}one cluster; {asked}", found)
    text = f"{found.where}: {pair.candidate} scores {score.low:.1%} to {score.high:.1%}; {asked} of its lower end"
    holds = True if score.low > threshold else False if score.high <= threshold else None
    needed = None
    if holds is None:
        needed = num_items_needed(found.num_items, score.mean, score.low, score.high, threshold, level)
    return reason(rule, score.low, threshold, holds, text, found, needed)


def above_chance(comparison: Comparison, pair: Pair, level: float) -> Iterator[Reason]:
    """The interval's lower end lies above what guessing scores, on each benchmark of multiple choice."""
    benchmarks = [part for part in comparison.benchmarks if part.chance is not None]
    if not benchmarks:
        raise UserError("the policy asks for above_chance; no benchmark of the comparison is of multiple choice")
    for part in benchmarks:
        found = look_up(comparison, pair, Target(benchmark=part.benchmark))
        yield of_score("above_chance", found, part.chance, "low", pair, level)


def of_answers(policy: Policy, comparison: Comparison, candidate: Candidate, baseline: Candidate) -> Iterator[Reason]:
    """Failures, the number of questions, cost and latency."""
    if (most := policy.max_failure_fraction) is not None:
        failed = candidate.failed_fraction
        text = f"{failed:.1%} of its answers failed; at most {most:.1%} may"
        yield reason("max_failure_fraction", failed, most, failed <= most, text)
    if (least := policy.min_num_items) is not None:
        enough = comparison.num_items >= least
        text = f"{comparison.num_items:,} questions; at least {least:,} are asked"
        needed = None if enough else least
        yield reason("min_num_items", comparison.num_items, least, enough or None, text, needed=needed)

    cost, latency = candidate.cost_per_1000, candidate.latency_ms and candidate.latency_ms.p95
    cost_ratio = ratio(cost, baseline.cost_per_1000)
    latency_ratio = ratio(latency, baseline.latency_ms and baseline.latency_ms.p95)
    prices, timed = "make the answers with prices", "give compare_candidates the predictions"
    yield from ceiling(policy, "max_cost_per_1000", "the cost of 1,000 answers", cost, prices)
    yield from ceiling(policy, "max_cost_ratio", "its cost over the baseline's", cost_ratio, prices)
    yield from ceiling(policy, "max_latency_p95_ms", "its p95 latency in ms", latency, timed)
    yield from ceiling(policy, "max_latency_p95_ratio", "its p95 latency over the baseline's", latency_ratio, timed)


def ceiling(policy: Policy, rule: str, what: str, observed: float | None, advice: str) -> Iterator[Reason]:
    most = getattr(policy, rule)
    if most is not None and observed is None:
        yield reason(rule, None, most, None, f"{what} is not known, of which at most {most:g} is asked; {advice}")
    elif most is not None:
        yield reason(rule, observed, most, observed <= most, f"{what} is {observed:,.4g}; at most {most:g} is asked")


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """None where either is not known, or where the baseline's is 0, of which nothing is a multiple."""
    return ours / theirs if ours is not None and theirs else None


def verdict(reasons: Sequence[Reason]) -> str:
    outcomes = {reason.outcome for reason in reasons}
    return "reject" if "fail" in outcomes else "inconclusive" if "undecided" in outcomes else "promote"


def num_items_needed(
    num_items: int, estimate: float, low: float, high: float, threshold: float, level: float
) -> int | None:
    """About how many questions like these would decide, by ``FORMULA``: an interval narrows as 1 / sqrt(questions).

    None where no number would, as the estimate stands exactly at the threshold.
    """
    distance = estimate - threshold
    if abs(distance) < 1e-9:
        return None
    half = estimate - low if distance > 0 else high - estimate
    for_power = 1 + NormalDist().inv_cdf(POWER) / quantile(level)
    return math.ceil(num_items * (for_power * half / distance) ** 2)


def quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def points(share: float) -> str:
    return f"{100 * share:+.1f}"


def reason(
    rule: str,
    observed: float | None,
    threshold: float,
    holds: bool | None,
    text: str,
    found: Evidence | None = None,
    needed: int | None = None,
) -> Reason:
    return Reason(
        rule=rule,
        where=found.where if found else None,
        observed=observed,
        threshold=threshold,
        outcome="undecided" if holds is None else "pass" if holds else "fail",
        text=text,
        num_items_needed=needed,
    )
