"""95 % intervals of means over eval items, and of shares."""

from collections.abc import Mapping

from slmkit.wilson_interval import wilson

NUM_RESAMPLES = 2000
Interval = dict[str, float | None]


def mean_interval(values: Mapping[str, float], clusters: Mapping[str, str], seed: int) -> Interval:
    """The mean over items with its 95 % bootstrap interval, whole clusters drawn; none where nothing varies.

    Of differences it is the paired bootstrap.
    """
    import numpy as np

    names = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters[id] for id in values))}
    position = [names[clusters[id]] for id in values]
    sums = np.bincount(position, weights=list(values.values()))
    sizes = np.bincount(position)
    result: Interval = {"mean": float(sums.sum() / sizes.sum()), "low": None, "high": None}
    if np.ptp(sums / sizes) > 0:
        rng = np.random.default_rng(seed)
        drawn = [rng.integers(0, len(names), size=len(names)) for _ in range(NUM_RESAMPLES)]
        means = [sums[draw].sum() / sizes[draw].sum() for draw in drawn]
        result["low"], result["high"] = (float(bound) for bound in np.quantile(means, [0.025, 0.975]))
    return result


def score_interval(values: Mapping[str, float], clusters: Mapping[str, str], seed: int) -> Interval:
    """The mean score of items; Wilson's interval for 0 or 1 an item, where a bootstrap near 0 and 1 hardly varies."""
    independent = len({clusters[id] for id in values}) == len(values)
    if independent and set(values.values()) <= {0, 1}:
        return share_interval(int(sum(values.values())), len(values))
    return mean_interval(values, clusters, seed)


def share_interval(count: int, number: int) -> Interval:
    """A share with Wilson's 95 % interval."""
    low, high = wilson(count, number)
    return {"mean": count / number, "low": low, "high": high}
