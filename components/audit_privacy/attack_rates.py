"""The three questions of the EU working party (opinion 05/2014) as attacks, each with its rate on records never seen.

An attacker holds the synthetic records and something of a real one. What also works on held-out records is knowledge
of the population and no leak; the advantage is the rate on source records less that rate.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from text_windows import HashTable, Texts

from slmkit import text_embedding
from slmkit.wilson_interval import wilson

MAX_REAL = 2000  # records attacked, of each kind
MAX_SYNTHETIC = 10_000  # records that an attacker by similarity looks through


@dataclass(frozen=True)
class Rate:
    successes: int
    num: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.successes / self.num


@dataclass(frozen=True)
class Attack:
    source: Rate
    control: Rate
    advantage: float
    low: float
    high: float

    def holds(self, max_advantage: float) -> bool | None:
        return True if self.high <= max_advantage else False if self.low > max_advantage else None


def rate(successes: int, num: int, confidence_level: float) -> Rate:
    """With Wilson's interval."""
    return Rate(successes, num, *wilson(successes, num, confidence_level))


def attack(source: np.ndarray, control: np.ndarray, confidence_level: float) -> Attack:
    """The advantage with Newcombe's interval of a difference (his method 10)."""
    a, b = (rate(int(won.sum()), len(won), confidence_level) for won in (source, control))
    difference = a.value - b.value
    low = difference - math.hypot(a.value - a.low, b.high - b.value)
    high = difference + math.hypot(a.high - a.value, b.value - b.low)
    return Attack(a, b, difference, low, high)


def sample(texts: Sequence[str], num: int) -> list[str]:
    return random.Random(0).sample(texts, num) if len(texts) > num else list(texts)


def singled_out(source: Sequence[str], control: Sequence[str], synthetic: Texts, n: int) -> tuple[np.ndarray, ...]:
    """Whether an n-gram that stands in this real record alone stands in a synthetic one."""
    real = Texts([*source, *control])
    synthetic_hashes = np.unique(synthetic.windows(n)[1])
    positions, hashes = real.windows(n)
    index = HashTable(synthetic_hashes).find(hashes)
    known = index >= 0
    owners, index = real.text_of[positions[known]], index[known]
    lowest = np.full(len(synthetic_hashes), len(real), np.int64)
    highest = np.full(len(synthetic_hashes), -1, np.int64)
    np.minimum.at(lowest, index, owners)
    np.maximum.at(highest, index, owners)
    won = np.zeros(len(real), dtype=bool)
    won[lowest[lowest == highest]] = True
    return won[: len(source)], won[len(source) :]


class Neighbors:
    """What an attacker learns from the synthetic record that is most like a half of a real one."""

    def __init__(self, synthetic: Sequence[str]):
        self._synthetic = text_embedding.embed(sample(synthetic, MAX_SYNTHETIC))

    def attack(self, real: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Linked: both halves have one nearest record. Inferred: that of the first half is nearer to the second half
        than to the second half of another real record, so that chance is one half."""
        firsts, seconds = zip(*map(halves, real), strict=True)
        first, second = text_embedding.embed(firsts), text_embedding.embed(seconds)
        (near_first, of_first), (near_second, of_second) = (
            text_embedding.nearest(half, self._synthetic, 1) for half in (first, second)
        )
        told = (near_first[:, 0] > 0) & (near_second[:, 0] > 0)
        linked = told & (of_first[:, 0] == of_second[:, 0])
        other = np.roll(np.arange(len(real)), 1)
        neighbor = self._synthetic[of_first[:, 0]]
        own, others = (np.asarray(neighbor.multiply(half).sum(axis=1)).ravel() for half in (second, second[other]))
        return linked, own > others

    def similarities(self, real: Sequence[str]) -> np.ndarray:
        """Of each real text to its nearest synthetic one."""
        return text_embedding.nearest(text_embedding.embed(real), self._synthetic, 1)[0][:, 0]


def halves(text: str) -> tuple[str, str]:
    """A text cut in the middle, at a space where one is near."""
    middle = len(text) // 2
    space = text.find(" ", middle)
    cut = space if 0 <= space < middle + 20 else middle
    return text[:cut], text[cut:]
