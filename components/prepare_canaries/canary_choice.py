"""Which eval items become canaries: as many of each slice as its share, spread over clusters, by seed."""

import random
from collections import Counter, defaultdict
from typing import Any

Item = dict[str, Any]


def choose(items: list[Item], num_canaries: int, seed: int) -> list[Item]:
    """In the order of the items; each combination of slices gets its share, by largest remainders."""
    if num_canaries >= len(items):
        return items
    rng = random.Random(seed)
    strata: dict[tuple, list[Item]] = defaultdict(list)
    for item in items:
        strata[stratum(item)].append(item)
    exact = {name: num_canaries * len(members) / len(items) for name, members in strata.items()}
    counts = {name: int(share) for name, share in exact.items()}
    rest = sorted(strata, key=lambda name: (counts[name] - exact[name], rng.random()))
    for name in rest[: num_canaries - sum(counts.values())]:
        counts[name] += 1
    chosen = {item["id"] for name, members in strata.items() for item in _spread(members, rng)[: counts[name]]}
    return [item for item in items if item["id"] in chosen]


def stratum(item: Item) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(value)) for key, value in (item.get("slices") or {}).items()))


def cluster(item: Item) -> str:
    return str(item.get("cluster") or item["id"])


def _spread(members: list[Item], rng: random.Random) -> list[Item]:
    """Shuffled, with the first of each cluster before the second of any: questions of one document fail together."""
    shuffled, seen = rng.sample(members, len(members)), Counter()
    rounds = []
    for item in shuffled:
        seen[cluster(item)] += 1
        rounds.append(seen[cluster(item)])
    return [item for _, item in sorted(zip(rounds, shuffled, strict=True), key=lambda pair: pair[0])]
