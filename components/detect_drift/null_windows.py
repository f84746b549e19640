"""Windows in which nothing drifted, made of those that are there: what a measure comes to by chance."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

NUM_WINDOWS = 499  # of each kind: the smallest p-value is 0.002
NUM_BLOCKS = 20  # consecutive parts of the baseline, such as hours
_TINY = 1e-9  # values that differ by rounding are equal


@dataclass(frozen=True)
class NullValues:
    """A measure of windows without drift; the larger, the further two windows are apart."""

    permuted: np.ndarray  # the conversations of both windows, exchanged at random
    halves: np.ndarray  # a random half of the baseline's blocks against the others
    halves_permuted: np.ndarray  # the baseline's conversations, halved at random one by one
    power: int  # of the measure that grows as a variance does: 1 of a squared distance, 2 of a distance
    length: float = 1.0  # of the current window, as a share of the baseline's

    def p_value(self, value: float) -> float:
        """The larger of two, because hours or days of the baseline may differ by more than its conversations do."""
        return max(_p_value(value, self.permuted), _p_value(value, self.halves * self.scale()))

    def scale(self) -> float:
        """What chance comes to in these windows, as a share of what it comes to in halves of the baseline.

        The part of the conversations is half of it, for a window has twice as many as a half. That of the blocks is too
        if both windows have as many blocks, and more the fewer a shorter window has.
        """
        chance, both = (float((np.maximum(of, 0) ** self.power).mean()) for of in (self.halves_permuted, self.halves))
        of_blocks = max(0.0, 1 - chance / both) if both else 0.0
        return (0.5 * (1 - of_blocks) + (1 + 1 / self.length) / 4 * of_blocks) ** (1 / self.power)

    def halves_alarmed(self, level: float, minimum: float) -> np.ndarray:
        """Which halves a plain permutation test would call drift."""
        num = len(self.halves_permuted)
        num_as_large = num - np.searchsorted(np.sort(self.halves_permuted), self.halves - _TINY)
        return ((1 + num_as_large) / (1 + num) <= level) & (self.halves >= minimum)


def _p_value(value: float, null_values: np.ndarray) -> float:
    return float((1 + (null_values >= value - _TINY).sum()) / (1 + len(null_values)))


def permuted(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Columns of labels in which -1 and 1 change places; 0, a conversation of both windows, stays."""
    columns = np.repeat(labels[:, None], NUM_WINDOWS, axis=1)
    columns[labels != 0] = rng.permuted(columns[labels != 0], axis=0)
    return columns


def relative_length(baseline: list[dict], current: list[dict]) -> float:
    """The time from the first to the last request as a share of the baseline's, from one block to all."""
    before, now = (_seconds(row.get("timestamp") for row in rows) for rows in (baseline, current))
    return min(1.0, max(1 / NUM_BLOCKS, now / before)) if before and now else 1.0


def _seconds(timestamps: Iterable[str | None]) -> float:
    known = [stamp for stamp in timestamps if stamp]
    first, last = (datetime.fromisoformat(of(known)).replace(tzinfo=None) if known else None for of in (min, max))
    return (last - first).total_seconds() if known else 0.0


def block_of(timestamps: list[str | None]) -> np.ndarray:
    """The number of the block, of NUM_BLOCKS equal ones, that each conversation falls into by its time."""
    order = sorted(range(len(timestamps)), key=lambda i: timestamps[i] or "")
    blocks = np.empty(len(timestamps), dtype=np.int64)
    blocks[order] = np.arange(len(timestamps)) * NUM_BLOCKS // len(timestamps)
    return blocks


def half_of_blocks(rng: np.random.Generator) -> np.ndarray:
    """Columns [NUM_BLOCKS, NUM_WINDOWS] of -1 and 1, as many of each."""
    columns = np.repeat(np.where(np.arange(NUM_BLOCKS) % 2, 1, -1).astype(np.int8)[:, None], NUM_WINDOWS, axis=1)
    return rng.permuted(columns, axis=0)
