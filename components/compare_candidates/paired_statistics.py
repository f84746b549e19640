"""Intervals and tests for scores in pairs (of the same questions) and in clusters (questions of one document)."""

import math
from typing import Any

import cluster_draws
import no_difference
import numpy as np
from scipy.special import ndtr, stdtrit

POWER = 0.8

Interval = tuple[float | None, float | None]


class PairedScores:
    """Scores [items, columns] with bootstrap draws of their means.

    Whole clusters are redrawn, because questions about one document succeed and fail together. A draw serves all
    columns, so that differences of columns are paired. With ``strata`` (a benchmark's number for each item) the mean is
    that of the strata's means, each with the same weight, in each draw too.
    """

    def __init__(
        self,
        values: np.ndarray,
        clusters: np.ndarray,
        *,
        num_resamples: int,
        confidence_level: float,
        seed: int,
        group: int = 0,
        strata: np.ndarray | None = None,
    ):
        self.values, self.num_resamples, self.confidence_level = values, num_resamples, confidence_level
        self.seed = [seed, group]
        self.binary = [bool(np.isin(column, (0, 1)).all()) for column in values.T]
        names, clusters = np.unique(clusters, return_inverse=True)
        strata = np.zeros(len(values), int) if strata is None else strata
        self.num_clusters, num_strata = len(names), int(strata.max()) + 1
        cell, num_cells = clusters * num_strata + strata, len(names) * num_strata

        def by_cell(weights: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(cell, weights, num_cells).reshape(-1, num_strata).astype(float)

        self.sizes = by_cell()
        self.sums = np.stack([by_cell(column) for column in values.T], axis=2)  # [clusters, strata, columns]
        sizes_of_strata = self.sizes.sum(axis=0)
        means_of_strata = self.sums.sum(axis=0) / sizes_of_strata[:, None]
        self.means = means_of_strata.mean(axis=0)
        # Each cluster's part in the mean less that mean, so that what is drawn is small numbers around 0.
        self.shares = (1 / (num_strata * sizes_of_strata))[:, None]
        self.excess = self.sums - self.sizes[:, :, None] * means_of_strata
        # As many clusters as would make as sure in one stratum.
        self.worth = num_strata**2 / float((1 / (self.sizes > 0).sum(axis=0)).sum())
        self.draws = self._draw() if self.num_clusters > 1 else None

    def _draw(self) -> np.ndarray:
        """Draws of the means less the means, [num_resamples, columns]; NaN where a draw holds no item of a stratum."""
        num_strata, num_columns = self.excess.shape[1:]
        rows = np.concatenate([self.excess.reshape(self.num_clusters, -1), self.sizes], axis=1)
        drawn = cluster_draws.totals(rows, self.num_resamples, self.seed)
        sizes = np.rint(drawn[:, -num_strata:, None])
        excess = drawn[:, :-num_strata].reshape(-1, num_strata, num_columns)
        return np.divide(excess, sizes, out=np.full_like(excess, np.nan), where=sizes > 0).mean(axis=1)

    def mean(self, column: int) -> dict[str, float | None]:
        """The mean of a column with its interval (None where one cluster leaves nothing to redraw)."""
        mean, low, high = float(self.means[column]), None, None
        if self.draws is not None:
            of_column = self.draws[:, column]
            interval = self._proportion_interval if self.binary[column] else self._percentile_interval
            low, high = interval(mean, of_column)
        return {"mean": mean, "low": low, "high": high}

    def difference(self, column: int, baseline: int) -> dict[str, float | None]:
        """The mean of a column less that of the baseline's column, with its interval."""
        difference, low, high = float(self.means[column] - self.means[baseline]), None, None
        if self.draws is not None and self._varies(column, baseline):
            low, high = self._percentile_interval(difference, self._drawn_differences(column, baseline))
        elif self.draws is not None:
            low = high = difference
        return {"difference": difference, "low": low, "high": high}

    def tests(self, pairs: list[tuple[int, int]]) -> list[dict[str, Any]]:
        """Wins, losses and ties of each pair of columns, and the p-value of no difference."""
        if not pairs:
            return []
        ours, theirs = map(list, zip(*pairs, strict=True))
        differences = self.sums[:, :, ours] - self.sums[:, :, theirs]
        if differences.shape[1] > 1:
            differences = differences * self.shares
        sizes = self.sizes.sum(axis=1)
        p_values = no_difference.p_values(differences.sum(axis=1), sizes, self.num_resamples, [*self.seed, 1])
        found = []
        for (column, baseline), (p_value, test) in zip(pairs, p_values, strict=True):
            wins = int((self.values[:, column] > self.values[:, baseline]).sum())
            losses = int((self.values[:, column] < self.values[:, baseline]).sum())
            counts = {"num_wins": wins, "num_losses": losses, "num_ties": len(self.values) - wins - losses}
            found.append({"p_value": float(p_value), "test": test, **counts})
        return found

    def minimum_detectable_effect(self, column: int, baseline: int) -> float | None:
        """The true difference that these questions would show with a power of 80 %, at the level of the intervals.

        None where nothing varies, which says how alike the two are and not how sharp the questions.
        """
        if self.draws is None or not self._varies(column, baseline):
            return None
        freedom = self.worth - 1
        error = float(np.nanstd(self._drawn_differences(column, baseline))) * math.sqrt(self.worth / freedom)
        return float(stdtrit(freedom, 0.5 + self.confidence_level / 2) + stdtrit(freedom, POWER)) * error

    def _drawn_differences(self, column: int, baseline: int) -> np.ndarray:
        return self.draws[:, column] - self.draws[:, baseline]

    def _varies(self, column: int, baseline: int) -> bool:
        """Whether clusters differ in their difference, by more than rounding."""
        excess = np.abs(self.excess[:, :, column] - self.excess[:, :, baseline]).max()
        return bool(excess > 1e-12 * np.abs(self.sums[:, :, [column, baseline]]).max())

    def _percentile_interval(self, center: float, draws: np.ndarray) -> tuple[float, float]:
        low, high = percentile_interval(draws, self.worth, self.confidence_level)
        return center + low, center + high

    def _proportion_interval(self, mean: float, draws: np.ndarray) -> tuple[float, float]:
        return proportion_interval(mean, float(np.nanvar(draws)), len(self.values), self.worth, self.confidence_level)


def percentile_interval(draws: np.ndarray, num_clusters: float, confidence_level: float) -> tuple[float, float]:
    """The bootstrap percentile interval, expanded for few clusters (Hesterberg 2015, "expanded percentile").

    A plain percentile interval is too narrow by sqrt((n - 1) / n) and by normal against t quantiles.
    """
    t = stdtrit(num_clusters - 1, 0.5 + confidence_level / 2)
    tail = ndtr(-math.sqrt(num_clusters / (num_clusters - 1)) * t)
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def proportion_interval(
    mean: float, variance: float, num_items: int, num_clusters: float, confidence_level: float
) -> tuple[float, float]:
    """Wilson's interval for yes-or-no scores, on the number of independent items that the clusters are worth.

    Near 0 or 1 the bootstrap hardly varies, and its interval would claim a certainty that is not there.
    """
    independent = min(num_items, mean * (1 - mean) / variance) if 0 < mean < 1 and variance else num_clusters
    t = stdtrit(num_clusters - 1, 0.5 + confidence_level / 2)
    share = t**2 / independent
    center = (mean + share / 2) / (1 + share)
    half = math.sqrt(share * mean * (1 - mean) + share**2 / 4) / (1 + share)
    return max(0.0, float(center - half)), min(1.0, float(center + half))
