"""How far a judge can be trusted: whether it agrees with itself, and whether it goes by the position of an answer."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import judge_verdicts

from slmkit.wilson_interval import wilson

Units = Sequence[Sequence[Hashable]]


def self_agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Of verdicts on the same question in the same order; None where no two are there."""
    units: dict[tuple, list] = {}
    for row in rows:
        if "error" not in row:
            units.setdefault((row["id"], row.get("order")), []).append(row.get("winner") or row["score"])
    repeated = [unit for unit in units.values() if len(unit) > 1]
    if not repeated:
        return None
    graded = "score" in next(row for row in rows if "error" not in row)
    alpha = krippendorff_alpha(repeated, squared if graded else differs)
    return {"num_repeated": len(repeated), "exact_agreement": exact_agreement(repeated), "krippendorff_alpha": alpha}


def exact_agreement(units: Units) -> float:
    """The share of pairs of verdicts on the same unit that are equal."""
    pairs = [one == other for unit in units for one, other in combinations(unit, 2)]
    return sum(pairs) / len(pairs)


def krippendorff_alpha(units: Units, distance: Callable[[Any, Any], float]) -> float | None:
    """1 for perfect agreement, 0 for that of chance; None where all verdicts are equal, so that nothing is told.

    Krippendorff (2011), Computing Krippendorff's alpha-reliability; each unit has two values at least.
    """
    values = Counter(value for unit in units for value in unit)
    expected = disagreement(values, distance) / (values.total() - 1)
    observed = sum(disagreement(Counter(unit), distance) / (len(unit) - 1) for unit in units)
    return 1 - observed / expected if expected else None


def disagreement(counts: Counter, distance: Callable[[Any, Any], float]) -> float:
    return sum(counts[one] * counts[other] * distance(one, other) for one in counts for other in counts)


def differs(one: Hashable, other: Hashable) -> float:
    return float(one != other)


def squared(one: float, other: float) -> float:
    return (one - other) ** 2


def position_bias(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any] | None:
    """The share of swapped pairs where the same position wins twice, with Wilson's interval; 0 is best."""
    if not pairs:
        return None
    winners = Counter(one["winner"] for one, other in pairs if one["winner"] == other["winner"] != "tie")
    low, high = wilson(winners.total(), len(pairs))
    return {
        "num_pairs": len(pairs),
        "num_first_wins_twice": winners["A"],
        "num_second_wins_twice": winners["B"],
        "num_inconsistent": sum(len(set(map(judge_verdicts.preferred, pair))) > 1 for pair in pairs),
        "share": winners.total() / len(pairs),
        "low": low,
        "high": high,
    }
