"""Whether users ask other questions than before: by their texts, their length and their languages."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import enough_traffic
import mix_change
import null_windows
import numpy as np
import text_change
from drift_settings import InputDriftSettings
from drift_signal import Effect, Signal
from no_difference import holm
from null_windows import NullValues
from telling_terms import telling_terms
from traffic_conversations import Conversations, distinct, question

from slmkit import textstats
from slmkit.wilson_interval import wilson

NAME = "input_drift"
NUM_EXAMPLES = 3
_Z = 1.959964  # of the intervals, 95 %
_EXAMPLE_CHARS = 80


@dataclass(frozen=True)
class Mix:
    """A measure of tables of counts, and the power of it that grows as a variance does."""

    name: str
    title: str
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray]
    power: int


LENGTHS = Mix("length_psi", "The length of requests", mix_change.psi, 1)
LANGUAGES = Mix("language_distance", "The mix of languages", mix_change.js_distance, 2)


@dataclass(frozen=True)
class Measured:
    """How far one measure of the window is from that of equal windows, which is ``equal``."""

    name: str
    equal: float
    change: float
    low: float | None
    high: float | None
    minimum: float  # a smaller change is none
    null_values: NullValues
    conversations: Conversations
    detail: str
    sentence: str


def input_drift(baseline: list[dict], current: list[dict], settings: InputDriftSettings, seed: int) -> Signal:
    """Compare the requests of two windows of traffic.

    A classifier's AUC and the MMD are of the texts of a sample, length and languages of all; together they share the
    false alarms that ``alpha`` allows. Drift is what is significant and no smaller than the least change of the policy.
    """
    if unready := enough_traffic.unready(NAME, baseline, current, settings.min_num_rows):
        return unready
    fewest = min(len(baseline), len(current))
    all_of_them = distinct(baseline, current, fewest, seed)
    num_distinct = min(all_of_them.num_baseline, all_of_them.num_current)
    if num_distinct < settings.min_num_conversations:
        said = f"{fewest:,} requests repeat as few as {num_distinct} conversations; "
        return Signal(NAME, "insufficient", (), (f"{said}{settings.min_num_conversations} different ones are needed.",))

    sample = distinct(baseline, current, min(fewest, settings.max_num_rows), seed)
    length = null_windows.relative_length(baseline, current)
    texts, examples = _of_texts(sample, settings, length, seed)
    measured = [*texts, *(of(all_of_them, settings, length, seed) for of in (_of_length, _of_languages))]
    p_values = holm([one.null_values.p_value(one.change) for one in measured])
    effects = [_effect(one, p, settings.alpha) for one, p in zip(measured, p_values, strict=True)]
    drifted = [one.sentence for one, effect in zip(measured, effects, strict=True) if effect.drift]
    null_alarms, said = _null_alarms(measured, settings)
    effects.append(null_alarms)
    said = (said, *_of_repeats(all_of_them))
    if drifted:
        return Signal(NAME, "drift", tuple(effects), (*drifted, examples, *said))
    quiet = "What users ask has not changed by more than chance and the policy's least changes."
    return Signal(NAME, "none", tuple(effects), (f"{quiet} {texts[0].sentence}", *said))


def _of_repeats(them: Conversations) -> list[str]:
    """What is not looked at, where it is much: users who choose among few questions may choose others of them."""
    num_shared, num = int((them.labels == 0).sum()), min(them.num_baseline, them.num_current)
    if 2 * num_shared <= num:
        return []
    return [
        f"{num_shared:,} of {num:,} different conversations were asked in both windows. Each counts once: a change of "
        "how often one is asked is not seen."
    ]


def _of_texts(
    sample: Conversations, settings: InputDriftSettings, length: float, seed: int
) -> tuple[list[Measured], str]:
    """The AUC and the MMD, and the questions that are least like the baseline's."""
    rng = np.random.default_rng([seed, 1])
    texts = [question(row) for row in sample.rows]
    points = text_change.embedding(texts, seed)
    labels = np.column_stack([sample.labels, null_windows.permuted(sample.labels, rng)])
    scores = text_change.classifier_scores(points, labels)
    aucs = text_change.aucs(scores, labels) - 0.5
    similarities = text_change.kernel(points)
    mmds = text_change.discrepancies(similarities, labels)

    of_baseline = np.flatnonzero(sample.labels <= 0)
    blocks = null_windows.block_of([sample.rows[i].get("timestamp") for i in of_baseline])
    halves = null_windows.half_of_blocks(rng)[blocks]
    halves = np.column_stack([halves, null_windows.permuted(halves[:, 0], rng)])
    half_points, num = points[of_baseline], null_windows.NUM_WINDOWS
    half_aucs = text_change.aucs(text_change.classifier_scores(half_points, halves), halves) - 0.5
    half_mmds = text_change.discrepancies(similarities[np.ix_(of_baseline, of_baseline)], halves)

    auc, margin = float(aucs[0]), _Z * text_change.auc_error(scores[:, 0], sample.labels)
    low, high = auc - margin, min(0.5, auc + margin)
    terms = _terms(texts, sample.labels)
    told_apart = Measured(
        name="classifier_auc",
        equal=0.5,
        change=auc,
        low=low,
        high=high,
        minimum=settings.min_auc - 0.5,
        null_values=NullValues(aucs[1:], half_aucs[:num], half_aucs[num:], 2, length),
        conversations=sample,
        detail=terms,
        sentence=f"From the questions alone a classifier tells this window from the baseline with an AUC of "
        f"{0.5 + auc:.2f} ({0.5 + low:.2f} to {0.5 + high:.2f}), where 0.5 is chance.{terms and f' Words {terms}.'}",
    )
    distance = float(mmds[0])
    apart = Measured(
        name="text_mmd",
        equal=0.0,
        change=distance,
        low=None,
        high=None,
        minimum=settings.min_mmd,
        null_values=NullValues(mmds[1:], half_mmds[:num], half_mmds[num:], 1, length),
        conversations=sample,
        detail="as a share of the distance between two questions",
        sentence=f"The questions lie apart from the baseline's, by {distance:.1%} of the distance between two (MMD).",
    )
    only_now = np.flatnonzero(sample.labels > 0)
    top = only_now[np.argsort(-scores[only_now, 0], kind="stable")[:NUM_EXAMPLES]]
    examples = " / ".join(_quoted(texts[i]) for i in top)
    return [told_apart, apart], f"Least like the baseline: {examples}"


def _terms(texts: list[str], labels: np.ndarray) -> str:
    found = zip(("more often", "less often"), telling_terms(texts, labels), strict=True)
    return "; ".join(f"{how}: {', '.join(map(str, terms))}" for how, terms in found if terms)


def _quoted(text: str) -> str:
    """The beginning of a text in one line, without what would turn the reading order or break a file."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _EXAMPLE_CHARS]).split())[:_EXAMPLE_CHARS]


def _of_length(them: Conversations, settings: InputDriftSettings, length: float, seed: int) -> Measured:
    tokens = [row.get("prompt_tokens") for row in them.rows]
    known = all(number is not None and math.isfinite(number) for number in tokens)
    unit = "tokens" if known else "characters"
    lengths = np.array(tokens if known else [len(question(row)) for row in them.rows], dtype=float)
    before, now = (np.median(lengths[side]) for side in (them.labels <= 0, them.labels >= 0))
    detail = f"median {before:,.0f} -> {now:,.0f} {unit}"
    return _of_mix(LENGTHS, mix_change.deciles(lengths), settings.min_length_psi, them, detail, length, seed)


def _of_languages(them: Conversations, settings: InputDriftSettings, length: float, seed: int) -> Measured:
    languages = [row.get("language") or textstats.language(question(row)) for row in them.rows]
    names, numbers = np.unique(languages, return_inverse=True)
    counts = Counter(zip(languages, them.labels.tolist(), strict=True))

    def share(name: str, side: int) -> float:
        return (counts[name, 0] + counts[name, side]) / (them.num_baseline if side < 0 else them.num_current)

    shares = sorted(((share(name, -1), share(name, 1), str(name)) for name in names), reverse=True)
    detail = ", ".join(f"{name} {before:.0%} -> {now:.0%}" for before, now, name in shares[:6])
    return _of_mix(LANGUAGES, numbers, settings.min_language_distance, them, detail, length, seed)


def _of_mix(
    mix: Mix, categories: np.ndarray, minimum: float, them: Conversations, detail: str, length: float, seed: int
) -> Measured:
    """How far the counts of categories are apart; the interval is the basic bootstrap's, less what chance adds."""
    rng, num = np.random.default_rng([seed, 2]), null_windows.NUM_WINDOWS
    old, both, new = (
        np.bincount(categories[them.labels == side], minlength=categories.max() + 1) for side in (-1, 0, 1)
    )
    measure = mix.measure
    change = float(measure(old + both, new + both))
    permuted = measure(*mix_change.permuted(old + new, int(old.sum()), both, num, rng))

    in_baseline = them.labels <= 0
    blocks = null_windows.block_of([them.rows[i].get("timestamp") for i in np.flatnonzero(in_baseline)])
    by_block = np.zeros((null_windows.NUM_BLOCKS, len(old)), dtype=np.int64)
    np.add.at(by_block, (blocks, categories[in_baseline]), 1)
    chosen = (null_windows.half_of_blocks(rng) > 0).T.astype(np.int64) @ by_block
    total = old + both
    halves = measure(total - chosen, chosen)
    halves_permuted = measure(*mix_change.permuted(total, int(total.sum()) // 2, np.zeros_like(total), num, rng))

    drawn = [rng.multinomial(side.sum(), side / side.sum(), size=num) for side in (old + both, new + both)]
    low, high = 2 * change - np.quantile(measure(*drawn), [0.975, 0.025])
    return Measured(
        name=mix.name,
        equal=0.0,
        change=change,
        low=max(0.0, float(low)),
        high=max(0.0, float(high)),
        minimum=minimum,
        null_values=NullValues(permuted, halves, halves_permuted, mix.power, length),
        conversations=them,
        detail=detail,
        sentence=f"{mix.title} has changed: {detail}.",
    )


def _effect(one: Measured, p_value: float, alpha: float) -> Effect:
    return Effect(
        name=one.name,
        baseline=one.equal,
        current=one.equal + one.change,
        change=one.change,
        low=one.low,
        high=one.high,
        p_value=p_value,
        num_baseline=one.conversations.num_baseline,
        num_current=one.conversations.num_current,
        drift=bool(p_value <= alpha and one.change >= one.minimum),
        detail=one.detail,
    )


def _null_alarms(measured: list[Measured], settings: InputDriftSettings) -> tuple[Effect, str]:
    """How often a plain permutation test would call one half of the baseline drift from the other."""
    level = settings.alpha / len(measured)
    alarmed = sum(one.null_values.halves_alarmed(level, one.minimum) for one in measured) > 0
    share, num = float(alarmed.mean()), len(alarmed)
    low, high = wilson(int(alarmed.sum()), num)
    said = f"Of {num} random halves of the baseline, a plain test calls {share:.1%} drift from the other half"
    restless = low > 2 * settings.alpha
    said += "; so much it varies by itself, and this window is judged by that." if restless else "."
    effect = Effect("null_alarm_rate", None, share, None, low, high, num_baseline=num, detail=said)
    return effect, said
