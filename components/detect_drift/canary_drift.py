"""LLM drift: whether the deployed model answers the canaries worse than when the baseline was taken."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import canary_drift_pairs
import sequential_alpha
from canary_drift_pairs import Pair
from drift_signal import Effect, Signal
from drift_snapshot import Canary

if TYPE_CHECKING:
    from drift_settings import LlmDriftSettings

NAME = "llm_drift"


def llm_drift(
    baseline: list[Canary], current: list[Canary], settings: "LlmDriftSettings", look: int, seed: int
) -> Signal:
    """The paired fall of accuracy, of all canaries and by slice; a missing answer is a wrong one.

    All canaries and the slices may each spend half of the look's alpha, the slices by Holm; without slices, all of it.
    """
    baseline, current = ([one for one in canaries if one.edit is None] for canaries in (baseline, current))
    num_tests = 2 if any(one.slices for one in current) else 1
    if unready := canary_drift_pairs.unready(NAME, baseline, current, settings, look, num_tests):
        return unready
    pairs = canary_drift_pairs.paired(baseline, current)
    level = sequential_alpha.level(look, settings.looks)
    slices = _slices(pairs, settings.min_slice_canaries)
    overall = [_fall(pairs, None, settings, seed, 0)]
    by_slice = [_fall(part, name, settings, seed, number) for number, (name, part) in enumerate(slices.items(), 1)]
    share = 0.5 if by_slice else 1.0
    effects = [
        effect
        for family in (overall, by_slice)
        for effect in canary_drift_pairs.judged(
            family, [effect.change <= -settings.min_fall for effect in family], level, share
        )
    ]
    sentences = [_sentence(effect, level, look, settings) for effect in effects]
    quiet = f"No fall of accuracy that chance does not explain: {sentences[0]}"
    return canary_drift_pairs.signal(NAME, effects, sentences, quiet)


def _fall(pairs: Sequence[Pair], slice: str | None, settings: "LlmDriftSettings", seed: int, group: int) -> Effect:
    then, now = ([one.score for one in side] for side in zip(*pairs, strict=True))
    clusters = [one.cluster for one, _ in pairs]
    effect = canary_drift_pairs.compared("accuracy", then, now, clusters, "fall", settings, seed, group)
    failed = sum(one.failed for _, one in pairs)
    detail = f"{effect.detail}; {failed} without an answer" if failed else effect.detail
    return dataclasses.replace(effect, slice=slice, detail=detail)


def _slices(pairs: Sequence[Pair], min_canaries: int) -> dict[str, list[Pair]]:
    """The parts with enough canaries, by name; one that holds all canaries, or just those of another, is no slice."""
    parts: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        for key, value in sorted(pair[0].slices.items()):
            parts[f"{key}={value}"].append(pair)
    names: dict[frozenset[str], str] = {}
    for name, part in sorted(parts.items()):
        names.setdefault(frozenset(one.canary_id for one, _ in part), name)
    num_canaries = len({one.canary_id for one, _ in pairs})
    return {name: parts[name] for ids, name in names.items() if min_canaries <= len(ids) < num_canaries}


def _sentence(effect: Effect, level: float, look: int, settings: "LlmDriftSettings") -> str:
    where = f" ({effect.slice})" if effect.slice else ""
    interval = "" if effect.low is None else f", 95 % interval {100 * effect.low:+.1f} to {100 * effect.high:+.1f}"
    change = f"{100 * effect.change:+.1f} points{interval}"
    sure = canary_drift_pairs.sureness(effect, level, look, settings)
    return f"Accuracy{where} went from {effect.baseline:.1%} to {effect.current:.1%} ({change}; {sure})."
