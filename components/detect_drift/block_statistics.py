"""Intervals and tests for rows in time order, whose neighbors are alike: a busy minute slows all of its requests.

The rows of a window fall into consecutive blocks. A test lets the blocks of both windows change places, and the error
of a share or a mean is that between blocks, so that a slow hour counts as one and not as a thousand slow requests.
"""

import math

import numpy as np
from scipy.special import stdtrit

MIN_BLOCKS, MAX_BLOCKS = 10, 30
_ROWS_A_BLOCK = 10
NUM_PERMUTATIONS = 1999
_TINY = 1e-9  # what differs by less differs by rounding
_LEVEL = 0.975  # both sides of a 95 % interval

Interval = tuple[float, float]


def num_blocks(num_rows: int) -> int:
    return max(MIN_BLOCKS, min(MAX_BLOCKS, num_rows // _ROWS_A_BLOCK))


def block_means(values: np.ndarray, blocks: int) -> np.ndarray:
    """The means of ``blocks`` consecutive parts, as equal as can be."""
    edges = np.arange(blocks) * len(values) // blocks
    return np.add.reduceat(values.astype(float), edges) / np.diff([*edges, len(values)])


def p_value(before: np.ndarray, now: np.ndarray, seed: int, two_sided: bool) -> float:
    """If blocks of both windows change places: how often Welch's t is as far from 0, or as far above, as it is.

    Of the larger window as many rows are taken as the smaller has, evenly over its time: blocks of more rows scatter
    less, and ten rows without a rare error would look surer than they are. Blocks that scatter unlike all the same may
    be exchanged if the difference is divided by its error (Chung and Romano 2013).
    """
    fewest = min(len(before), len(now))
    means = [
        block_means(values[np.arange(fewest) * len(values) // fewest], num_blocks(fewest)) for values in (before, now)
    ]
    num_now, pooled = len(means[1]), np.concatenate(means)
    drawn = np.random.default_rng([seed, 3]).permuted(np.repeat(pooled[None], NUM_PERMUTATIONS, axis=0), axis=1)

    def welch(rows: np.ndarray) -> np.ndarray:
        sides = rows[..., -num_now:], rows[..., :-num_now]
        difference = sides[0].mean(axis=-1) - sides[1].mean(axis=-1)
        error = np.sqrt(sum(side.var(axis=-1, ddof=1) / side.shape[-1] for side in sides))
        return difference / np.maximum(error, _TINY * max(1.0, float(abs(pooled).max())))

    found, observed = welch(drawn), welch(pooled)
    if two_sided:
        found, observed = abs(found), abs(observed)
    return float((1 + (found >= observed - _TINY * abs(observed)).sum()) / (1 + NUM_PERMUTATIONS))


def mean_interval(values: np.ndarray) -> Interval:
    """Of positive numbers; the error is taken of the logarithm, which keeps it positive."""
    means = block_means(values, num_blocks(len(values)))
    factor = math.exp(_t(len(means)) * means.std(ddof=1) / math.sqrt(len(means)) / values.mean())
    return float(values.mean() / factor), float(values.mean() * factor)


def share_interval(flags: np.ndarray) -> Interval:
    """Wilson's interval, on as many independent rows as the blocks are worth."""
    share, t = float(flags.mean()), _t(num_blocks(len(flags)))
    worth = t**2 / _independent(flags)
    center = (share + worth / 2) / (1 + worth)
    half = math.sqrt(worth * share * (1 - share) + worth**2 / 4) / (1 + worth)
    return max(0.0, center - half), min(1.0, center + half)


def quantile_interval(values: np.ndarray, q: float) -> Interval:
    """Order statistics: where the interval of the share of rows below the quantile ends (Woodruff 1952)."""
    quantile = np.quantile(values, q)
    below = values <= quantile
    half = _t(num_blocks(len(values))) * math.sqrt(q * (1 - q) / _independent(below))
    low, high = np.quantile(values, [max(0.0, q - half), min(1.0, q + half)])
    return float(low), float(high)


def difference_interval(before: float, of_before: Interval, now: float, of_now: Interval) -> Interval:
    """Of two independent estimates, from their own intervals (Zou and Donner 2008)."""
    difference = now - before
    low = difference - math.hypot(now - of_now[0], of_before[1] - before)
    high = difference + math.hypot(of_now[1] - now, before - of_before[0])
    return low, high


def _independent(flags: np.ndarray) -> float:
    """As many independent rows would leave a share as unsure as these blocks do; never more than there are."""
    share = float(flags.mean())
    means = block_means(flags, num_blocks(len(flags)))
    variance = float(means.var(ddof=1)) / len(means)
    return min(float(len(flags)), share * (1 - share) / variance) if variance else float(len(flags))


def _t(blocks: int) -> float:
    return float(stdtrit(blocks - 1, _LEVEL))
