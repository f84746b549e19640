"""Intervals and tests for scores in pairs (of the same questions) and in clusters (questions of one document)."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import bdtr, ndtr, stdtrit

_DRAWS_AT_ONCE = 4_000_000  # keeps a batch of weights at 32 MB


class PairedScores:
    """Scores [items, columns] with bootstrap draws of their means, within each group of items (bool [items, groups]).

    Whole clusters (numbered from 0) are redrawn, because questions about one document succeed and fail together.
    A draw serves all columns, so that differences of columns are paired.
    """

    def __init__(
        self,
        values: np.ndarray,
        clusters: np.ndarray,
        groups: np.ndarray,
        *,
        num_resamples: int,
        confidence_level: float,
        seed: int,
    ):
        self.values, self.clusters, self.groups = values, clusters, groups
        self.num_resamples, self.confidence_level, self.seed = num_resamples, confidence_level, seed
        self.num_clusters = [len(np.unique(clusters[group])) for group in groups.T]
        self.draws = bootstrap_means(values, clusters, groups, num_resamples, seed)

    def mean(self, column: int, group: int = 0) -> dict[str, float | None]:
        """The mean of a column in a group, with its interval (None where one cluster leaves nothing to redraw)."""
        values, draws = self.values[self.groups[:, group], column], self.draws[:, group, column]
        low, high = None, None
        if self.num_clusters[group] > 1 and _is_binary(values):
            low, high = proportion_interval(values, draws, self.num_clusters[group], self.confidence_level)
        elif self.num_clusters[group] > 1:
            low, high = percentile_interval(draws, self.num_clusters[group], self.confidence_level)
        return {"mean": float(values.mean()), "low": low, "high": high}

    def difference(self, column: int, baseline: int, group: int = 0) -> dict[str, float | None]:
        """The mean of a column less that of the baseline's column, with its interval."""
        inside = self.groups[:, group]
        difference = float(self.values[inside, column].mean() - self.values[inside, baseline].mean())
        low, high = None, None
        if self.num_clusters[group] > 1:
            draws = self.draws[:, group, column] - self.draws[:, group, baseline]
            low, high = percentile_interval(draws, self.num_clusters[group], self.confidence_level)
        return {"difference": difference, "low": low, "high": high}

    def test(self, column: int, baseline: int) -> dict[str, Any]:
        """Wins, losses and ties over all items, and the p-value of no difference."""
        differences = self.values[:, column] - self.values[:, baseline]
        wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
        if _is_binary(self.values[:, [column, baseline]]):
            name, p_value = "exact McNemar", mcnemar_p(wins, losses)
        else:
            name = "permutation by cluster"
            p_value = permutation_p(differences, self.clusters, self.num_resamples, self.seed)
        ties = len(differences) - wins - losses
        return {"p_value": p_value, "test": name, "num_wins": wins, "num_losses": losses, "num_ties": ties}


def bootstrap_means(
    values: np.ndarray, clusters: np.ndarray, groups: np.ndarray, num_resamples: int, seed: int
) -> np.ndarray:
    """Means [num_resamples, groups, columns] when clusters are redrawn; NaN where a draw holds no item of a group."""
    num_groups = groups.shape[1]
    in_group = (groups[:, :, None] * values[:, None, :]).reshape(len(values), -1)
    sums = _cluster_sums(np.concatenate([in_group, groups], axis=1), clusters)
    means = np.empty((num_resamples, num_groups, values.shape[1]))
    rng = np.random.default_rng(seed)
    for rows in _batches(num_resamples, len(sums)):
        totals = _cluster_weights(rng, rows.stop - rows.start, len(sums)) @ sums
        sizes = totals[:, -num_groups:, None]
        of_group = totals[:, :-num_groups].reshape(*sizes.shape[:2], -1)
        means[rows] = np.divide(of_group, sizes, out=np.full_like(of_group, np.nan), where=sizes > 0)
    return means


def _cluster_sums(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(clusters, weights=column) for column in values.T], axis=1)


def _batches(num_resamples: int, num_clusters: int) -> Iterator[slice]:
    size = max(1, _DRAWS_AT_ONCE // num_clusters)
    for start in range(0, num_resamples, size):
        yield slice(start, min(start + size, num_resamples))


def _cluster_weights(rng: np.random.Generator, num_draws: int, num_clusters: int) -> np.ndarray:
    """How often each cluster comes in each draw with replacement, [num_draws, num_clusters]."""
    drawn = rng.integers(0, num_clusters, size=(num_draws, num_clusters))
    drawn += np.arange(num_draws)[:, None] * num_clusters
    counts = np.bincount(drawn.ravel(), minlength=num_draws * num_clusters)
    return counts.reshape(num_draws, num_clusters).astype(float)


def percentile_interval(draws: np.ndarray, num_clusters: int, confidence_level: float) -> tuple[float, float]:
    """The bootstrap percentile interval, expanded for few clusters (Hesterberg 2015, "expanded percentile").

    A plain percentile interval is too narrow by sqrt((n - 1) / n) and by normal against t quantiles.
    """
    t = stdtrit(num_clusters - 1, 0.5 + confidence_level / 2)
    tail = ndtr(-math.sqrt(num_clusters / (num_clusters - 1)) * t)
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def proportion_interval(
    values: np.ndarray, draws: np.ndarray, num_clusters: int, confidence_level: float
) -> tuple[float, float]:
    """Wilson's interval for yes-or-no scores, on the number of independent items that the clusters are worth.

    Near 0 or 1 the bootstrap hardly varies, and its interval would claim a certainty that is not there.
    """
    mean, variance = float(values.mean()), float(np.nanvar(draws))
    independent = min(len(values), mean * (1 - mean) / variance) if 0 < mean < 1 and variance else num_clusters
    t = stdtrit(num_clusters - 1, 0.5 + confidence_level / 2)
    share = t**2 / independent
    center = (mean + share / 2) / (1 + share)
    half = math.sqrt(share * mean * (1 - mean) + share**2 / 4) / (1 + share)
    return max(0.0, float(center - half)), min(1.0, float(center + half))


def mcnemar_p(num_wins: int, num_losses: int) -> float:
    """McNemar's test, exact and two-sided: wins against losses as tosses of a fair coin."""
    return min(1.0, 2 * float(bdtr(min(num_wins, num_losses), num_wins + num_losses, 0.5)))


def permutation_p(differences: np.ndarray, clusters: np.ndarray, num_resamples: int, seed: int) -> float:
    """Two-sided p of the mean difference when baseline and candidate change places at random, a cluster at a time."""
    sums = _cluster_sums(differences[:, None], clusters)[:, 0]
    observed = abs(sums.sum()) - 1e-9  # equal sums count as equal, whatever the order of their addition
    rng = np.random.default_rng(seed)
    num_as_large = 0
    for rows in _batches(num_resamples, len(sums)):
        swapped = rng.integers(0, 2, size=(rows.stop - rows.start, len(sums)), dtype=np.int8)
        totals = sums.sum() - 2 * (swapped.astype(float) @ sums)
        num_as_large += int((np.abs(totals) >= observed).sum())
    return (num_as_large + 1) / (num_resamples + 1)


def _is_binary(values: np.ndarray) -> bool:
    return bool(np.isin(values, (0, 1)).all())
