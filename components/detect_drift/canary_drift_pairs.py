"""Canaries of the baseline and of now in pairs, whether they are enough to judge, and one measure of them compared."""

import dataclasses
import math
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Literal

import no_difference
import numpy as np
import sequential_alpha
from drift_signal import Effect, Signal
from drift_snapshot import Canary
from paired_statistics import PairedScores

from slmkit.errors import UserError

if TYPE_CHECKING:
    from drift_settings import CanarySettings

CONFIDENCE_LEVEL = 0.95
DIGITS = 12  # 0.7 - 0.6 is a little below 0.1, and yet a change of ten points
Pair = tuple[Canary, Canary]  # of the baseline and of now
Wanted = Literal["fall", "rise", "either"]


def paired(baseline: Sequence[Canary], current: Sequence[Canary]) -> list[Pair]:
    """The same prompt asked then and now; repeats beyond those of the other side are left out.

    Canaries or wordings that only one side has, or that stand twice, are a ``UserError``.
    """
    then, now = _by_prompt(baseline, "baseline"), _by_prompt(current, "current canaries")
    for what, part in (("canary", lambda one: (one.canary_id,)), ("wording", lambda one: (one.canary_id, one.edit))):
        _check_same({part(one) for one in baseline}, {part(one) for one in current}, what)
    repeats = {one.repeat for one in baseline} & {one.repeat for one in current}
    then = {key: one for key, one in then.items() if one.repeat in repeats}
    _check_same(then.keys(), {key for key, one in now.items() if one.repeat in repeats}, "repeat")
    return [(one, now[key]) for key, one in then.items()]


def _by_prompt(canaries: Sequence[Canary], where: str) -> dict[tuple[str, str, int], Canary]:
    found: dict[tuple[str, str, int], Canary] = {}
    for one in canaries:
        key = one.canary_id, one.edit or "", one.repeat
        if key in found:
            raise UserError(f"{where}: {one.id[:80]!r} stands twice; each canary is asked once a repeat and a wording")
        found[key] = one
    return found


def _check_same(then: Set[tuple], now: Set[tuple], what: str) -> None:
    for only, missing, keys in (("baseline", "now", then - now), ("window", "in the baseline", now - then)):
        if keys:
            first = min(" ".join(str(part) for part in key if part is not None) for key in keys)
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise UserError(
                f"the canaries are not those of the baseline: {what} {first[:80]!r}{more} of the {only} missing "
                f"{missing}; ask the baseline's canary_items, or start a new baseline"
            )


def unready(
    name: str,
    baseline: Sequence[Canary],
    current: Sequence[Canary],
    settings: "CanarySettings",
    look: int,
    num_tests: int,
) -> Signal | None:
    """The signal where nothing can be said, and why; the look's alpha is shared by ``num_tests`` one-sided tests."""
    if not current:
        return Signal(name, "no_data", (), ("No canary was asked in this window.",))
    if not baseline:
        return Signal(name, "no_data", (), ("There is no baseline to compare with yet.",))
    for when, canaries in (("now", current), ("in the baseline", baseline)):
        num_failed = sum(one.failed for one in canaries)
        if num_failed > settings.max_failed_fraction * len(canaries):
            said = f"{num_failed} of {len(canaries)} prompts got no answer {when}"
            reason = f"{said}, more than {settings.max_failed_fraction:.0%}: the answers say nothing about the model."
            return Signal(name, "insufficient", (), (reason,))
    num_canaries, num_clusters = (len({getattr(one, of) for one in current}) for of in ("canary_id", "cluster"))
    if num_canaries < settings.min_canaries:
        reason = f"{num_canaries} canaries are too few to tell drift from chance: {settings.min_canaries} are needed."
        return Signal(name, "insufficient", (), (reason,))
    # The least p there can be: all groups change for the worse, one of 2 ** num_clusters ways.
    if (alpha := sequential_alpha.level(look, settings.looks)) < num_tests * 0.5**num_clusters:
        reason = f"{num_clusters} independent groups of canaries cannot show drift at this look's level of {alpha:.2g}."
        return Signal(name, "insufficient", (), (reason,))
    return None


def compared(
    name: str,
    then: Sequence[float],
    now: Sequence[float],
    clusters: Sequence[str],
    wanted: Wanted,
    settings: "CanarySettings",
    seed: int,
    group: int,
) -> Effect:
    """A measure of each pair then and now: the difference of the means, its interval, and the p of no difference.

    Of a change in one direction the p is half that of both, because all sign changes come in opposite twins. A p that
    is too small for the draws to show is bounded by Hoeffding's inequality (1963), which holds for any sum of coins.
    """
    values = np.stack([np.asarray(now, float), np.asarray(then, float)], axis=1)
    scores = PairedScores(
        values,
        np.asarray(clusters),
        num_resamples=settings.num_resamples,
        confidence_level=CONFIDENCE_LEVEL,
        seed=seed,
        group=group,
    )
    found, test = scores.difference(0, 1), scores.tests([(0, 1)])[0]
    change = round(found["difference"], DIGITS)
    sums = scores.sums[:, 0, 0] - scores.sums[:, 0, 1]
    squares = float(sums @ sums)
    bound = 2 * math.exp(-(float(sums.sum()) ** 2) / (2 * squares)) if squares else 1.0
    p_value = min(test["p_value"], bound)
    if wanted != "either":
        is_wanted = change < 0 if wanted == "fall" else change > 0
        p_value = p_value / 2 if is_wanted else 1.0
    return Effect(
        name,
        baseline=float(scores.means[1]),
        current=float(scores.means[0]),
        change=change,
        low=found["low"],
        high=found["high"],
        p_value=p_value,
        num_baseline=len(values),
        num_current=len(values),
        detail=f"{test['num_wins']} higher, {test['num_losses']} lower, {test['num_ties']} the same; {test['test']}",
    )


def judged(effects: Sequence[Effect], is_large: Sequence[bool], level: float, share: float = 1.0) -> list[Effect]:
    """The effects with the p that Holm's correction leaves of a family that may spend this share of the level.

    One drifts where that p is within the level and it is large enough to matter.
    """
    p_values = [min(1.0, p / share) for p in no_difference.holm([effect.p_value for effect in effects])]
    return [
        dataclasses.replace(effect, p_value=p, drift=large and p <= level)
        for effect, p, large in zip(effects, p_values, is_large, strict=True)
    ]


def signal(name: str, effects: Sequence[Effect], reasons: Sequence[str], quiet: str) -> Signal:
    """``reasons`` says a sentence for each effect; those of the drifting ones are the reasons, else ``quiet``."""
    drifting = [reason for effect, reason in zip(effects, reasons, strict=True) if effect.drift]
    return Signal(name, "drift" if drifting else "none", tuple(effects), tuple(drifting) or (quiet,))


def sureness(effect: Effect, level: float, look: int, settings: "CanarySettings") -> str:
    """For the end of a sentence: how sure the change is, and at which look."""
    place = sequential_alpha.position(look, settings.looks)
    return f"p = {effect.p_value:.2g}, {level:.2g} is allowed at look {place} of {settings.looks.num_looks}"
