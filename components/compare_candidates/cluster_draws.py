"""Sums over clusters drawn with replacement: exact, the same for the same seed, and quick for many clusters.

Clusters with equal rows are interchangeable, so that where few rows differ (0/1 scores of single questions) one
multinomial draw a distinct row is enough. Elsewhere each cluster is counted by itself, in batches on all cores.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.special import gammaln

_COUNTS_AT_ONCE = 1 << 19  # keeps a batch of weights at 2 MB a thread
_COST_OF_A_BINOMIAL = 50  # in counts by themselves, measured on two cores


def totals(rows: np.ndarray, num_draws: int, seed: list[int]) -> np.ndarray:
    """The sums [num_draws, columns] over as many clusters as there are rows [clusters, columns], drawn for each."""
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    if _COST_OF_A_BINOMIAL * len(distinct) < len(rows):
        rng = np.random.default_rng(seed)
        return rng.multinomial(len(rows), counts / len(rows), size=num_draws) @ distinct
    # Sums in single precision, of columns scaled so that none overflows; rows are centered by the caller.
    scale = np.abs(rows).max(axis=0)
    scale[scale == 0] = 1
    scaled = (rows / scale).astype(np.float32)
    weights = ClusterWeights(len(rows))
    drawn = in_batches(lambda rng, size: weights.draw(rng, size) @ scaled, num_draws, len(rows), seed)
    return drawn.astype(float) * scale


def flipped_totals(rows: np.ndarray, num_draws: int, seed: list[int]) -> np.ndarray:
    """The sums [num_draws, columns] of rows [clusters, columns], each with the sign that the toss of a coin gives."""
    scaled = rows.astype(np.float32)

    def flip(rng: np.random.Generator, size: int) -> np.ndarray:
        coins = np.frombuffer(rng.bytes(size * -(-len(rows) // 8)), np.uint8).reshape(size, -1)
        return np.unpackbits(coins, axis=1, count=len(rows)).astype(np.float32) @ scaled

    return rows.sum(axis=0) - 2 * in_batches(flip, num_draws, len(rows), seed).astype(float)


def in_batches(
    draw: Callable[[np.random.Generator, int], np.ndarray], num_draws: int, num_clusters: int, seed: list[int]
) -> np.ndarray:
    """The draws of all batches; each batch has its own seed, so that the number of cores changes nothing."""
    size = max(1, _COUNTS_AT_ONCE // num_clusters)
    starts = range(0, num_draws, size)

    def batch(start: int) -> np.ndarray:
        rng = np.random.Generator(np.random.SFC64([*seed, start]))
        return draw(rng, min(size, num_draws - start))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return np.concatenate(list(threads.map(batch, starts)))


class ClusterWeights:
    """How often each of n clusters comes in n draws with replacement: multinomial counts, exactly.

    Independent Poisson counts are multinomial given their total. They are looked up by 16 random bits each with a mean
    a little below 1, and what is missing to n is drawn cluster by cluster.
    """

    def __init__(self, num_clusters: int):
        self.num_clusters = num_clusters
        self.mean = max(1e-9, 1 - 4 / num_clusters**0.5)  # so that the total passes n once in 30,000 draws
        counts = np.arange(40)
        shares = np.exp(counts * np.log(self.mean) - self.mean - gammaln(counts + 1)) * 65536
        whole = np.floor(shares).astype(int)
        self.counts = np.repeat(counts, whole).astype(np.float32)
        # What 16 bits cannot say: these codes, some ten of 65,536, stand for a count drawn from the rest.
        self.rest = (shares - whole) / (shares - whole).sum()

    def draw(self, rng: np.random.Generator, num_draws: int) -> np.ndarray:
        """Weights [num_draws, num_clusters]."""
        n, size = self.num_clusters, num_draws * self.num_clusters
        codes = rng.bit_generator.random_raw(-(-size // 4)).view(np.uint16)[:size]
        weights = np.take(self.counts, codes, mode="clip")
        unsaid = np.flatnonzero(codes >= len(self.counts))
        weights[unsaid] = rng.choice(len(self.rest), size=len(unsaid), p=self.rest)
        weights = weights.reshape(num_draws, n)
        missing = n - weights.sum(axis=1, dtype=np.float64).astype(int)
        weights[missing < 0] = 0  # one that passed n is drawn whole
        missing[missing < 0] = n
        more = rng.integers(0, n, size=missing.sum()) + np.repeat(np.arange(num_draws) * n, missing)
        np.add.at(weights.reshape(-1), more, np.float32(1))
        return weights
