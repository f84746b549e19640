"""Tests of no difference, which let two candidates swap their answers a cluster at a time, and Holm's correction."""

from collections.abc import Sequence

import cluster_draws
import numpy as np
from scipy.special import bdtr

MCNEMAR, EXACT, DRAWN = "exact McNemar", "exact permutation by cluster", "permutation by cluster"
_LARGEST_EXACT = 1 << 20
_SMALLEST_EXACT = 1e-12  # below it the sums of the exact test are rounding


def p_values(sums: np.ndarray, sizes: np.ndarray, num_draws: int, seed: list[int]) -> list[tuple[float, str]]:
    """The two-sided p of each column of sums of differences [clusters, columns], and the name of the test.

    If the two do not differ, the sum of each cluster might as well have the other sign. Whole numbers are tested by
    counting all the ways, of which McNemar's test is the case of single questions scored 0 or 1.
    """
    whole = (sums == np.rint(sums)).all(axis=0) & (np.abs(sums).sum(axis=0) <= _LARGEST_EXACT)
    drawn = np.flatnonzero(~whole)
    found: dict[int, tuple[float, str]] = {}
    for column in np.flatnonzero(whole):
        of_cluster = sums[:, column].astype(int)
        if (sizes == 1).all() and np.abs(of_cluster).max() <= 1:
            found[column] = mcnemar_p(int((of_cluster > 0).sum()), int((of_cluster < 0).sum())), MCNEMAR
        else:
            found[column] = exact_p(of_cluster), EXACT
    if drawn.size:
        found |= {i: (p, DRAWN) for i, p in zip(drawn, drawn_p(sums[:, drawn], num_draws, seed), strict=True)}
    return [found[column] for column in range(sums.shape[1])]


def mcnemar_p(num_wins: int, num_losses: int) -> float:
    """McNemar's test, exact and two-sided: wins against losses as tosses of a fair coin."""
    return min(1.0, 2 * float(bdtr(min(num_wins, num_losses), num_wins + num_losses, 0.5)))


def exact_p(sums: np.ndarray) -> float:
    """The share of all sign changes with a total as large, by the Fourier transform of the totals' distribution."""
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    largest, observed = int(sizes @ counts), abs(int(sums.sum()))
    if observed == 0:
        return 1.0
    num_points = 1 << (2 * largest).bit_length()
    angles = 2 * np.pi / num_points * np.arange(num_points // 2 + 1)
    transform = np.ones(len(angles))
    for size, count in zip(sizes, counts, strict=True):
        transform *= np.cos(angles * size) ** count
    shares = np.fft.irfft(transform, num_points)
    return min(1.0, max(_SMALLEST_EXACT, 2 * float(shares[observed : largest + 1].sum())))


def drawn_p(sums: np.ndarray, num_draws: int, seed: list[int]) -> np.ndarray:
    """The share of random sign changes with a total as large, the observed one counted among them."""
    scale = np.sqrt((sums**2).sum(axis=0))
    sums = sums[np.any(sums != 0, axis=1)] / np.where(scale > 0, scale, 1)
    if not len(sums):
        return np.ones(sums.shape[1])
    drawn = cluster_draws.flipped_totals(sums, num_draws, seed)
    # Equal totals count as equal, whatever the order and the precision of their addition.
    as_large = (np.abs(drawn) >= np.abs(sums.sum(axis=0)) - 1e-5).sum(axis=0)
    return (as_large + 1) / (num_draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down p-values: the probability of any false claim in the family stays below the level."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
