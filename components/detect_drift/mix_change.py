"""How far the mix of two windows moved apart: the population stability index (PSI) and the Jensen-Shannon distance.

Counts come in tables [..., categories], the observed one beside those of permuted windows, and are measured at once.
"""

import numpy as np
from scipy.special import rel_entr

NUM_BINS = 10


def deciles(values: np.ndarray) -> np.ndarray:
    """The bin of each value, by the deciles of all of them; equal values share one."""
    edges = np.unique(np.quantile(values, np.arange(1, NUM_BINS) / NUM_BINS, method="higher"))
    return np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)[1]


def psi(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The sum of (q - p) ln(q / p) over the bins; half a count is added to each, so that an empty one stays finite."""
    p, q = _shares(before + 0.5), _shares(now + 0.5)
    return ((q - p) * np.log(q / p)).sum(axis=-1)


def js_distance(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The square root of the Jensen-Shannon divergence in bits: 0 for the same mix, 1 for nothing in common."""
    p, q = _shares(before), _shares(now)
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=-1) / (2 * np.log(2))
    return np.sqrt(np.maximum(divergence, 0))


def permuted(
    counts: np.ndarray, num_before: int, shared: np.ndarray, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Tables (before, now) if ``num_before`` of those counted were drawn by chance; ``shared`` ones are in both."""
    drawn = rng.multivariate_hypergeometric(counts, num_before, size=num, method="marginals")
    return drawn + shared, counts - drawn + shared


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(axis=-1, keepdims=True)
