"""Says which trial of a sweep is so far behind the others that it need not go on: Azure ML's three policies.

Each value of the primary metric that a trial logs is one interval. A policy is applied at every multiple of its
``evaluation_interval`` from ``delay_evaluation`` on, and compares with what the others had reached at that interval.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from localml.errors import RunError

History = Sequence[float]


def check(where: str, policy: Any) -> None:
    """Refuse a policy that could not be applied; ``policy`` is one of ``azure.ai.ml.sweep`` or None."""
    if policy is None:
        return
    if policy.type == "bandit":
        factor, amount = policy.slack_factor or 0, policy.slack_amount or 0
        if bool(factor) == bool(amount) or min(factor, amount) < 0:
            raise RunError(f"{where}: a bandit needs slack_factor or slack_amount above 0, and not both")
    if policy.type == "truncation_selection" and not 1 <= (policy.truncation_percentage or 0) <= 99:
        raise RunError(f"{where}.truncation_percentage: {policy.truncation_percentage} is not between 1 and 99")
    if min(policy.evaluation_interval or 0, policy.delay_evaluation or 0) < 0:
        raise RunError(f"{where}: evaluation_interval and delay_evaluation cannot be below 0")


def reason(policy: Any, minimize: bool, own: History, others: Sequence[History]) -> str | None:
    """Why a trial with the values ``own`` is ended now; None as long as it may go on."""
    every = policy.evaluation_interval or 1
    interval = len(own) // every * every
    if interval < max(1, policy.delay_evaluation or 0):
        return None
    # A loss that is not a number is the worst of all; with it out of the way the higher value is always the better.
    sign = -1.0 if minimize else 1.0

    def scores(history: History) -> list[float]:
        return [-math.inf if math.isnan(value) else sign * value for value in history[:interval]]

    mine = max(scores(own))
    rivals = [scores(history) for history in others if len(history) >= interval]
    if not rivals:
        return None
    if policy.type == "bandit":
        best = max(mine, *map(max, rivals))
        limit = best - (policy.slack_amount or 0)
        if policy.slack_factor:
            # Azure ML divides what is to be maximized; below zero a slack must still leave room.
            stretch = 1 + policy.slack_factor
            limit = best / stretch if best > 0 else best * stretch
        what = "the best so far"
    elif policy.type == "median_stopping":
        limit = statistics.median(statistics.fmean(each) for each in [scores(own), *rivals])
        what = "the median of the running averages"
    else:
        ranked = sorted([mine, *map(max, rivals)])
        lowest = len(ranked) * policy.truncation_percentage // 100
        limit = ranked[lowest]
        what = f"the better {100 - policy.truncation_percentage} % of the trials"
    if mine >= limit:
        return None
    return f"{policy.type} at interval {interval}: {sign * mine:.4g} against {what}, limit {sign * limit:.4g}"
