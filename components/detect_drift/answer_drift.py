"""Prompt drift: whether the same prompts get other answers than when the baseline was taken.

The measures are those of Chen, Zaharia and Zou, "How is ChatGPT's behavior changing over time?" (arXiv 2307.09009):
mismatch of the extracted answers, verbosity in characters, refusals, answers that do not parse; and the language.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import canary_drift_pairs
import sequential_alpha
from canary_drift_pairs import DIGITS, Pair
from drift_signal import Effect, Signal
from drift_snapshot import Canary

from slmkit import answer_text, textstats

if TYPE_CHECKING:
    from drift_settings import PromptDriftSettings

NAME = "prompt_drift"
NUM_MEASURES = 5  # each with a test, some of both directions
LANGUAGES = {"en", "ja", "ko", "zh"}  # what textstats tells apart
REFUSAL = re.compile(
    r"""
    \b(?:i[’']?m|i\s+am|we[’']?re|we\s+are)\s+(?:(?:very|so|really)\s+)?(?:sorry|afraid|unable|not\s+able)\b
    | \b(?:i|we)\s+(?:can[’']?t|cannot|can\s+not|won[’']t|will\s+not|must)\s+
      (?:help|assist|answer|provide|comply|discuss|share|decline|refuse|fulfil)
    | \bi\s+(?:apologi[sz]e|must\s+apologi[sz]e)\b | \bas\s+an\s+(?:ai|artificial)\b
    | (?:お答え|回答|対応|お手伝い|お応え|ご案内|お伝え)(?:すること(?:は|が))?(?:は|が)?でき(?:ません|かねます|ない)
    | いたしかねます | (?:申し訳|恐れ入り)[^。\n]{0,60}(?:できません|かねます|お断り)
    | AI(?:言語モデル|アシスタント|モデル)?として
    | (?:죄송|미안)[^.\n]{0,60}(?:없습니다|없어요|없네요|어렵습니다|어려워요|못합니다|못해요)
    | (?:답변|대답|도움|도와|제공|안내|말씀)[^.\n]{0,20}(?:수\s*(?:는\s*|가\s*)?없|어렵습니다|못합니다)
    | (?:AI|인공지능)(?:\s*(?:언어\s*)?모델)?(?:로서|이기\s*때문)
    """,
    re.IGNORECASE | re.VERBOSE,
)
Extract = Callable[[Canary], str | None]


def prompt_drift(
    baseline: list[Canary], current: list[Canary], settings: "PromptDriftSettings", look: int, seed: int
) -> Signal:
    """Holm's correction holds for all measures together."""
    baseline, current = ([one for one in canaries if one.edit is None] for canaries in (baseline, current))
    if unready := canary_drift_pairs.unready(NAME, baseline, current, settings, look, 2 * NUM_MEASURES):
        return unready
    pairs = canary_drift_pairs.paired(baseline, current)
    answer = extracted(settings.answer_pattern)
    effects = [
        answers_changed(baseline, current, answer, settings, seed),
        _rate("refusal_rate", pairs, _refuses, settings, seed, 1, "either"),
        _rate("parse_failure_rate", pairs, lambda one: answer(one) is None, settings, seed, 2),
        _rate("language_switch_rate", pairs, _other_language, settings, seed, 3),
        *characters(pairs, settings, seed),
    ]
    level = sequential_alpha.level(look, settings.looks)
    tested = [effect for effect in effects if effect.p_value is not None]
    judged = canary_drift_pairs.judged(tested, [_is_large(effect, settings) for effect in tested], level)
    effects = [effect for effect in effects if effect.p_value is None] + judged
    sentences = [_sentence(effect, level, look, settings) for effect in effects]
    quiet = f"The same prompts get such answers as before. {sentences[0]}"
    return canary_drift_pairs.signal(NAME, effects, sentences, quiet)


def extracted(answer_pattern: str | None) -> Extract:
    """What gives the normalized answer within an output; None where there is none."""
    find: Callable[[str], str | None] = str
    if answer_pattern is not None:
        from answer_patterns import AnswerPattern

        find = AnswerPattern(answer_pattern).find

    def answer(one: Canary) -> str | None:
        found = None if one.failed else find(one.output)
        return (answer_text.normalize(found) or None) if found is not None else None

    return answer


def answers_changed(
    baseline: Sequence[Canary], current: Sequence[Canary], answer: Extract, settings: "PromptDriftSettings", seed: int
) -> Effect:
    """How many answers differ from the baseline's, against how many differ from one of its repeats to another.

    With b0, b1 repeats of the baseline and c0 an answer of now, b0 and c0 differ as often as b0 and b1 where nothing
    changed, and b1 and c0 may swap places: so the two are paired. Where only the canaries of now were repeated, these
    stand for the baseline's. Without repeats nothing tells drift from noise, and the share is said without a judgement.
    """
    then, now, clusters = defaultdict(list), defaultdict(list), {}
    for side, canaries in ((then, baseline), (now, current)):
        for one in sorted(canaries, key=lambda one: one.repeat):
            side[one.canary_id].append(answer(one))
            clusters[one.canary_id] = one.cluster
    own, across, of = [], [], []
    for id in then:
        these, others = (then[id], now[id]) if len(then[id]) > 1 else (now[id], then[id])
        for repeated, other in zip(these[1:], others, strict=False):
            own.append(these[0] != repeated)
            across.append(these[0] != other)
            of.append(clusters[id])
    if own:
        return canary_drift_pairs.compared("answers_changed", own, across, of, "rise", settings, seed, 0)
    changed = [then[id][0] != now[id][0] for id in then]
    share = sum(changed) / len(changed)
    detail = "not judged: canaries with two repeats or more would tell drift from noise"
    return Effect(
        "answers_changed", None, share, None, None, None, num_baseline=len(then), num_current=len(now), detail=detail
    )


def characters(pairs: Sequence[Pair], settings: "PromptDriftSettings", seed: int) -> list[Effect]:
    """The ratio of the characters of an answer, now to then, as geometric means of the answers given both times."""
    both = [pair for pair in pairs if not (pair[0].failed or pair[1].failed)]
    if not both:
        return []
    then, now = ([math.log(max(1, len(one.output.strip()))) for one in side] for side in zip(*both, strict=True))
    clusters = [one.cluster for one, _ in both]
    found = canary_drift_pairs.compared("characters_ratio", then, now, clusters, "either", settings, seed, 4)
    ratios = ("baseline", "current", "change", "low", "high")
    values = {name: None if (log := getattr(found, name)) is None else round(math.exp(log), DIGITS) for name in ratios}
    return [dataclasses.replace(found, **values)]


def _rate(
    name: str,
    pairs: Sequence[Pair],
    is_so: Callable[[Canary], bool],
    settings: "PromptDriftSettings",
    seed: int,
    group: int,
    wanted: canary_drift_pairs.Wanted = "rise",
) -> Effect:
    then, now = ([is_so(one) for one in side] for side in zip(*pairs, strict=True))
    clusters = [one.cluster for one, _ in pairs]
    return canary_drift_pairs.compared(name, then, now, clusters, wanted, settings, seed, group)


def _refuses(one: Canary) -> bool:
    return bool(REFUSAL.search(one.output))


def _other_language(one: Canary) -> bool:
    """Whether an answer is in none of the languages of its references; numbers and names tell no language."""
    expected = {textstats.language(reference) for reference in one.references} & LANGUAGES
    if not expected:
        expected = {one.slices.get("language", "").partition("-")[0].lower()} & LANGUAGES
    return bool(expected) and textstats.language(one.output) not in {*expected, "und"}


def _is_large(effect: Effect, settings: "PromptDriftSettings") -> bool:
    if effect.name == "characters_ratio":
        return max(effect.change, 1 / effect.change) >= 1 + settings.min_characters_change
    wanted = settings.min_answers_changed if effect.name == "answers_changed" else settings.min_rate_change
    return abs(effect.change) >= wanted


def _sentence(effect: Effect, level: float, look: int, settings: "PromptDriftSettings") -> str:
    if effect.p_value is None:
        return f"{effect.current:.1%} of the answers differ from the baseline's ({effect.detail})."
    sure = canary_drift_pairs.sureness(effect, level, look, settings)
    if effect.name == "answers_changed":
        return (
            f"{effect.current:.1%} of the answers differ from the baseline's, {effect.baseline:.1%} from one repeat to "
            f"another ({sure})."
        )
    if effect.name == "characters_ratio":
        return (
            f"An answer has {effect.current:.0f} characters where it had {effect.baseline:.0f} "
            f"(× {effect.change:.2f}; {sure})."
        )
    words = {
        "refusal_rate": "Refusals",
        "parse_failure_rate": "Answers that do not parse",
        "language_switch_rate": "Answers in another language",
    }
    return f"{words[effect.name]} went from {effect.baseline:.1%} to {effect.current:.1%} ({sure})."
