"""Prompt sensitivity: whether edits that keep the meaning of a prompt change its answer more than they used to."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import canary_drift_pairs
import sequential_alpha
from answer_drift import Extract, extracted
from drift_signal import Effect, Signal
from drift_snapshot import Canary

if TYPE_CHECKING:
    from drift_settings import PromptSensitivitySettings

NAME = "prompt_sensitivity"
MEASURES = {
    "variant_consistency": "Agreement of the answers to the wordings of a prompt",
    "worst_case_accuracy": "Accuracy at the worst of a prompt's wordings",
    "repeat_consistency": "Agreement of the answers to one prompt asked repeatedly",
}


def prompt_sensitivity(
    baseline: list[Canary], current: list[Canary], settings: "PromptSensitivitySettings", look: int, seed: int
) -> Signal:
    """The falls of three measures, one value a canary, by Holm's correction together."""
    if unready := canary_drift_pairs.unready(NAME, baseline, current, settings, look, len(MEASURES)):
        return unready
    pairs = canary_drift_pairs.paired(baseline, current)
    answer = extracted(settings.answer_pattern)
    groups = defaultdict(list)
    for pair in pairs:
        groups[pair[0].canary_id].append(pair)
    then, now = ({id: _measures(side, answer) for id, side in _side(groups, number).items()} for number in (0, 1))
    clusters = {one.canary_id: one.cluster for one, _ in pairs}
    effects = []
    for number, name in enumerate(MEASURES):
        ids = [id for id in groups if name in then[id]]
        if ids:
            columns = [[measures[id][name] for id in ids] for measures in (then, now)]
            of = [clusters[id] for id in ids]
            effects.append(canary_drift_pairs.compared(name, *columns, of, "fall", settings, seed, number))
    if not effects:
        reason = "The canaries hold neither edited prompts nor repeats; prepare_canaries makes them."
        return Signal(NAME, "no_data", (), (reason,))
    level = sequential_alpha.level(look, settings.looks)
    is_large = [effect.change <= -settings.min_fall for effect in effects]
    effects = canary_drift_pairs.judged(effects, is_large, level)
    sentences = [_sentence(effect, level, look, settings) for effect in effects]
    return canary_drift_pairs.signal(NAME, effects, sentences, f"No more sensitive than before. {sentences[0]}")


def _side(groups: dict[str, list[canary_drift_pairs.Pair]], number: int) -> dict[str, list[Canary]]:
    return {id: [pair[number] for pair in pairs] for id, pairs in groups.items()}


def _measures(canaries: Sequence[Canary], answer: Extract) -> dict[str, float]:
    """Of one canary: its wordings are the first repeat of the original and its variants."""
    repeats = sorted((one for one in canaries if one.edit is None), key=lambda one: one.repeat)
    wordings = [*repeats[:1], *(one for one in canaries if one.edit is not None)]
    found = {}
    if len(wordings) > 1:
        found["variant_consistency"] = _agreement([answer(one) for one in wordings])
        found["worst_case_accuracy"] = min(one.score for one in wordings)
    if len(repeats) > 1:
        found["repeat_consistency"] = _agreement([answer(one) for one in repeats])
    return found


def _agreement(answers: Sequence[str | None]) -> float:
    """The share of pairs with the same answer; none at all agrees with nothing."""
    pairs = list(itertools.combinations(answers, 2))
    return sum(one is not None and one == other for one, other in pairs) / len(pairs)


def _sentence(effect: Effect, level: float, look: int, settings: "PromptSensitivitySettings") -> str:
    sure = canary_drift_pairs.sureness(effect, level, look, settings)
    return f"{MEASURES[effect.name]} went from {effect.baseline:.1%} to {effect.current:.1%} ({sure})."
