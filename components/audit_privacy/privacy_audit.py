"""Measure synthetic records against real ones: personal data, copies, canaries, and the three attacks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import attack_rates
import canary_exposure
import numpy as np
import privacy_checks
import verbatim_overlap
from attack_rates import Attack
from canary_exposure import Canary
from personal_data import Comparison, PersonalData
from privacy_policy import Check, Policy
from text_windows import Texts, plain
from verbatim_overlap import SourceIndex

NUM_EXAMPLES = 5
EXAMPLE_CHARS = 40
_EAST_ASIAN = 0x1100  # hangul, kana, han and full-width forms stand from here on
_EAST_ASIAN_SHARE = 0.2
SCRIPTS = ("latin", "east_asian")


@dataclass(frozen=True)
class Inputs:
    real: list
    synthetic: list
    held_out: list | None
    canaries: list[tuple[str, str]] | None
    redaction: dict[str, Any]


@dataclass
class Facts:
    """What was measured; overlaps by the kind of record: synthetic, quoting its source, held-out."""

    checks: list[Check]
    num_real: int
    num_synthetic: int
    num_held_out: int
    num_intended: int
    personal_data: Comparison
    redaction: dict[str, Any]
    overlaps: dict[str, "Found"]
    examples: list[tuple[str, str, int, int, str]] = field(default_factory=list)
    canaries: list[Canary] = field(default_factory=list)
    closest: dict[str, list[float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "num_real": self.num_real,
            "num_synthetic": self.num_synthetic,
            "num_held_out": self.num_held_out,
            "num_intended_copies": self.num_intended,
            "personal_data": {
                name: dict(getattr(self.personal_data, name)) for name in ("real", "synthetic", "reappearing")
            },
            "overlap": {
                kind: {
                    "num_records": len(found.share),
                    "num_copies": int(found.is_copy.sum()),
                    "ngram_share_mean": float(found.share.mean()),
                    "longest_span_chars": int(found.longest.max()),
                }
                for kind, found in self.overlaps.items()
                if len(found.share)
            },
            "distance_to_closest_record": self.closest,
            "canaries": [vars(canary) for canary in self.canaries],
        }


def measure(policy: Policy, inputs: Inputs) -> Facts:
    real, synthetic = ([record.text for record in side] for side in (inputs.real, inputs.synthetic))
    held_out = [record.text for record in inputs.held_out or ()]
    intended = np.array([is_intended(record, policy) for record in inputs.synthetic])
    judged = [text for text, quotes in zip(synthetic, intended, strict=True) if not quotes]
    num_intended = len(synthetic) - len(judged)

    values = PersonalData(policy.personal_data.allowed_values)
    compared = values.compare(real, synthetic)
    found, control = measure_overlap(policy, real, held_out, synthetic, pieces(held_out, synthetic))
    copied = found.is_copy & ~is_from_what_it_names(inputs, found, np.flatnonzero(found.is_copy & intended))
    canaries = canary_exposure.expose(inputs.canaries, Texts(synthetic)) if inputs.canaries else []
    attacks, closest, why_not = measure_attacks(policy, real, held_out, judged)
    by_chance = None
    if held_out:
        matched = int(control.is_copy.sum()), len(control.is_copy)
        by_chance = attack_rates.rate(*matched, policy.attacks.confidence_level)
    return Facts(
        checks=[
            privacy_checks.check_personal_data(policy, compared),
            privacy_checks.check_verbatim(
                policy,
                (int((copied & ~intended).sum()), len(judged)),
                (int((copied & intended).sum()), num_intended),
                by_chance,
            ),
            privacy_checks.check_canaries(policy, canaries),
            *(
                privacy_checks.check_attack(policy, rule, attacks.get(rule), why_not)
                for rule in privacy_checks.QUESTIONS
            ),
        ],
        num_real=len(real),
        num_synthetic=len(synthetic),
        num_held_out=len(held_out),
        num_intended=num_intended,
        personal_data=compared,
        redaction=inputs.redaction,
        overlaps={"synthetic": found.of(~intended), "quoting its source": found.of(intended), "held-out": control},
        examples=examples(inputs, found, copied, values),
        canaries=canaries,
        closest=closest,
    )


def is_intended(record: Any, policy: Policy) -> bool:
    """Whether a record quotes on purpose: its origin does, and it names what it quotes."""
    return record.origin in policy.verbatim.intended_copying and bool(record.source_ids)


def is_from_what_it_names(inputs: Inputs, found: "Found", rows: Iterable[int]) -> np.ndarray:
    """Whether the longest span of a synthetic record stands in a real one that it names as its source; of ``rows``."""
    texts = {record.id: record.text for record in inputs.real}
    own = np.zeros(len(inputs.synthetic), bool)
    for row in rows:
        sources = (texts.get(source, "") for source in inputs.synthetic[row].source_ids)
        own[row] = any(found.words[row] in plain(text) for text in sources)
    return own


def pieces(held_out: Sequence[str], synthetic: Sequence[str]) -> list[str]:
    """Held-out texts cut to the median length of a synthetic one: a longer text finds a longer match by chance."""
    length = max(1, int(np.median([len(text) for text in synthetic])))
    return [text[at : at + length] for text in held_out for at in range(0, max(1, len(text) - length // 2), length)]


@dataclass(frozen=True)
class Found:
    """What each text shares with one real record: the share of its n-grams, its longest span, and whether that is a
    copy by the measure of its script."""

    share: np.ndarray
    longest: np.ndarray
    source: np.ndarray
    is_copy: np.ndarray
    words: np.ndarray  # the span itself

    def of(self, rows: np.ndarray) -> "Found":
        return Found(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def measure_overlap(
    policy: Policy, real: Sequence[str], held_out: Sequence[str], *queries: Sequence[str]
) -> tuple[Found, ...]:
    """Latin and East Asian texts are asked for n-grams of different lengths, of all real records each time."""
    rules = policy.verbatim
    sources, others = Texts(real), Texts(held_out)
    scripts = [is_east_asian(Texts(texts)) for texts in queries]
    found = [
        Found(np.zeros(n), np.zeros(n, int), np.full(n, -1), np.zeros(n, bool), np.full(n, "", object))
        for n in map(len, queries)
    ]
    for script in SCRIPTS:
        n, span = getattr(rules.ngram_chars, script), getattr(rules.span_chars, script)
        chosen = [np.flatnonzero(rows == (script == "east_asian")) for rows in scripts]
        if not any(map(len, chosen)):
            continue
        least = [
            verbatim_overlap.min_common(len(texts), rules.boilerplate_fraction, rules.boilerplate_min_records)
            for texts in (sources, others)
        ]
        index = SourceIndex(sources, n, least[0], SourceIndex(others, n, least[1]).common())
        for texts, rows, into in zip(queries, chosen, found, strict=True):
            asked = Texts([texts[row] for row in rows])
            overlap = index.overlap(asked)
            into.share[rows], into.longest[rows], into.source[rows] = overlap.share, overlap.longest, overlap.source
            into.is_copy[rows] = overlap.longest >= span
            spans = zip(overlap.at.tolist(), overlap.longest.tolist(), strict=True)
            into.words[rows] = [asked.text(at, length) for at, length in spans]
    return tuple(found)


def is_east_asian(texts: Texts) -> np.ndarray:
    wide = np.bincount(texts.text_of[texts.codes >= _EAST_ASIAN], minlength=len(texts))
    return wide >= _EAST_ASIAN_SHARE * np.maximum(texts.lengths, 1)


def measure_attacks(
    policy: Policy, real: Sequence[str], held_out: Sequence[str], judged: Sequence[str]
) -> tuple[dict[str, Attack], dict[str, list[float]], str]:
    """The attacks and the distances, or why there are none."""
    rules = policy.attacks
    if not judged:
        return {}, {}, "Cannot be judged: all records quote their source; whoever has them has what they quote."
    if not held_out:
        return {}, {}, "Cannot be judged: without held-out real records, leak and common knowledge look the same."
    least = min(len(real), len(held_out))
    if least < rules.min_num_records:
        return (
            {},
            {},
            f"Cannot be judged: {least} real records on one side; at least {rules.min_num_records} are asked.",
        )
    source, control = (
        attack_rates.sample([plain(t) for t in side], attack_rates.MAX_REAL) for side in (real, held_out)
    )
    texts = Texts(judged)
    script = SCRIPTS[int(is_east_asian(texts).mean() > 0.5)]
    n = getattr(policy.verbatim.ngram_chars, script)
    neighbors = attack_rates.Neighbors([plain(text) for text in judged])
    won = {"singling_out": attack_rates.singled_out(source, control, texts, n)}
    linked, inferred = zip(neighbors.attack(source), neighbors.attack(control), strict=True)
    won |= {"linkability": linked, "inference": inferred}
    attacks = {rule: attack_rates.attack(*sides, rules.confidence_level) for rule, sides in won.items()}
    quantiles = {
        kind: np.quantile(neighbors.similarities(side), [0.5, 0.95, 1]).tolist()
        for kind, side in (("source", source), ("held-out", control))
    }
    return attacks, quantiles, ""


def examples(inputs: Inputs, found: Found, copied: np.ndarray, values: PersonalData) -> list[tuple]:
    """The longest copies: ids, characters, words, and a masked beginning."""
    longest = sorted(np.flatnonzero(copied), key=lambda row: -found.longest[row])[:NUM_EXAMPLES]
    return [
        (
            inputs.synthetic[row].id,
            inputs.real[found.source[row]].id,
            int(found.longest[row]),
            len(found.words[row].split()),
            values.masked(found.words[row], EXAMPLE_CHARS),
        )
        for row in longest
    ]
