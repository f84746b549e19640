#!/usr/bin/env python
"""What a comparison of five candidates on 35,000 questions costs, and how often its intervals hold the truth.

The first table is compare() of the component: three benchmarks, slices, 9,999 draws. Beside it stands the algorithm
that the component had before, which counted every cluster in every draw and knew one benchmark, on the same scores; the
two take turns. The second table simulates evaluations whose true difference is known.
"""

import argparse
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "components" / "compare_candidates"), str(ROOT / "components" / "_shared")]

import candidate_comparison  # noqa: E402
from candidate_scores import Candidate  # noqa: E402
from paired_statistics import PairedScores  # noqa: E402

BENCHMARKS = ("jcommonsenseqa", "kmmlu", "mmlu")


def eval_items(num_items: int, per_cluster: int) -> dict[str, dict]:
    items = {}
    for i in range(num_items):
        slices = {"benchmark": BENCHMARKS[i % 3], "language": ("ja", "ko", "en")[i % 3], "subject": f"s{i // 7 % 20}"}
        choices = [{"choices": ["a", "b", "c", "d"]}, {}][per_cluster > 1]
        items[f"q{i}"] = {"id": f"q{i}", "slices": slices, "cluster": f"d{i // per_cluster}", **choices}
    return items


def candidates_of(items: dict[str, dict], kind: str, num_candidates: int) -> list[Candidate]:
    rng = np.random.default_rng(0)
    easy = rng.normal(0, 1, len(items))
    found = []
    for c in range(num_candidates):
        liked = easy + rng.normal(0, 1, len(items)) + 0.1 * c
        values = liked > 0 if kind == "0/1" else 1 / (1 + np.exp(-liked))
        rows = {id: {"id": id, "candidate": f"c{c}", "score": float(v)} for id, v in zip(items, values, strict=True)}
        found.append(Candidate(f"c{c}", "", rows, None))
    return found


# --- the algorithm before: the baseline of the measurement -----------------------------------------------------------


def before(items: dict[str, dict], candidates: list[Candidate], num_resamples: int) -> None:
    """Draws of all means and p-values as they were computed, without what was built of them."""
    values = np.array([[one.scores[id]["score"] for one in candidates] for id in items])
    numbers = {name: i for i, name in enumerate(dict.fromkeys(item["cluster"] for item in items.values()))}
    clusters = np.array([numbers[item["cluster"]] for item in items.values()])
    slices = {("benchmark", name): None for name in BENCHMARKS} | candidate_comparison.find_slices(items)
    groups = [[True] * len(items)]
    groups += [[item["slices"][key] == value for item in items.values()] for key, value in slices]
    before_draws(values, clusters, np.array(groups).T, num_resamples)
    for column in range(1, values.shape[1]):
        if set(np.unique(values)) - {0, 1}:
            before_permutation(values[:, column] - values[:, 0], clusters, num_resamples)


def before_sums(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(clusters, weights=column) for column in values.T], axis=1)


def before_draws(values: np.ndarray, clusters: np.ndarray, groups: np.ndarray, num_resamples: int) -> np.ndarray:
    num_groups = groups.shape[1]
    in_group = (groups[:, :, None] * values[:, None, :]).reshape(len(values), -1)
    sums = before_sums(np.concatenate([in_group, groups], axis=1), clusters)
    means = np.empty((num_resamples, num_groups, values.shape[1]))
    rng = np.random.default_rng(0)
    size = max(1, 4_000_000 // len(sums))
    for start in range(0, num_resamples, size):
        num = min(size, num_resamples - start)
        drawn = rng.integers(0, len(sums), size=(num, len(sums)))
        drawn += np.arange(num)[:, None] * len(sums)
        counts = np.bincount(drawn.ravel(), minlength=num * len(sums))
        totals = counts.reshape(num, len(sums)).astype(float) @ sums
        sizes = totals[:, -num_groups:, None]
        of_group = totals[:, :-num_groups].reshape(*sizes.shape[:2], -1)
        means[start : start + num] = np.divide(of_group, sizes, out=np.full_like(of_group, np.nan), where=sizes > 0)
    return means


def before_permutation(differences: np.ndarray, clusters: np.ndarray, num_resamples: int) -> float:
    sums = before_sums(differences[:, None], clusters)[:, 0]
    rng, num_as_large = np.random.default_rng(0), 0
    size = max(1, 4_000_000 // len(sums))
    for start in range(0, num_resamples, size):
        swapped = rng.integers(0, 2, size=(min(size, num_resamples - start), len(sums)), dtype=np.int8)
        totals = sums.sum() - 2 * (swapped.astype(float) @ sums)
        num_as_large += int((np.abs(totals) >= abs(sums.sum()) - 1e-9).sum())
    return (num_as_large + 1) / (num_resamples + 1)


# --- what is measured ------------------------------------------------------------------------------------------------


def speed(args: argparse.Namespace) -> None:
    print(f"{args.candidates} candidates x {args.items:,} questions, {args.draws:,} draws; seconds, median of rounds")
    print(f"{'scores':<8}{'a cluster':>10}{'before':>10}{'now':>8}{'CPU now':>9}{'times':>8}")
    for kind, per_cluster in (("0/1", 1), ("0/1", 5), ("chrf", 1), ("chrf", 5)):
        items = eval_items(args.items, per_cluster)
        candidates = candidates_of(items, kind, args.candidates)
        settings = candidate_comparison.Settings({None: "score"}, args.draws, 0.95, 0, 0.02)
        taken = {"before": [], "now": [], "CPU now": []}
        for _ in range(args.rounds):
            started, cpu = time.perf_counter(), time.process_time()
            candidate_comparison.compare(items, candidates, settings)
            taken["now"].append(time.perf_counter() - started)
            taken["CPU now"].append(time.process_time() - cpu)
            if not args.skip_before:
                started = time.perf_counter()
                before(items, candidates, args.draws)
                taken["before"].append(time.perf_counter() - started)
        medians = {name: statistics.median(values) if values else float("nan") for name, values in taken.items()}
        shown = f"{kind:<8}{per_cluster:>10}{medians['before']:>10.2f}{medians['now']:>8.2f}{medians['CPU now']:>9.2f}"
        print(f"{shown}{medians['before'] / medians['now']:>8.1f}", flush=True)
    print(
        f"peak memory of this process, both algorithms: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,} MB"
    )


def coverage(args: argparse.Namespace) -> None:
    """Questions of a cluster share a normal skill; the true means follow from the normal distribution."""
    true = stats.norm.cdf(0.5 / 1.25**0.5) - 0.5
    print(f"\n95 % intervals over {args.simulations:,} simulated evaluations: share that hold the true value")
    print(f"{'clusters':>9}{'a cluster':>10}{'scores':>8}{'mean':>8}{'difference':>12}{'p <= 0.05 where equal':>23}")
    for kind in ("0/1", "chrf"):
        for num_clusters, per_cluster in ((8, 4), (20, 1), (40, 3), (200, 1), (200, 5)):
            rng, held, held_mean, rejected = np.random.default_rng(1), 0, 0, 0
            clusters = np.arange(num_clusters).repeat(per_cluster)
            for i in range(args.simulations):
                skill = rng.normal(0, 0.5, (num_clusters, 3)).repeat(per_cluster, axis=0)
                values = rng.normal(0, 1, skill.shape) + skill + [0, 0.5, 0]
                values = (values > 0).astype(float) if kind == "0/1" else stats.norm.cdf(values)
                scores = PairedScores(values, clusters, num_resamples=999, confidence_level=0.95, seed=i)
                means = 0.5 if kind == "0/1" else stats.norm.cdf(0)
                shift = true if kind == "0/1" else stats.norm.cdf(0.5 / 2.25**0.5) - 0.5
                found, mean = scores.difference(1, 0), scores.mean(0)
                held += found["low"] <= shift <= found["high"]
                held_mean += mean["low"] <= means <= mean["high"]
                rejected += scores.tests([(2, 0)])[0]["p_value"] <= 0.05
            shares = [count / args.simulations for count in (held_mean, held, rejected)]
            print(f"{num_clusters:>9}{per_cluster:>10}{kind:>8}{shares[0]:>8.1%}{shares[1]:>12.1%}{shares[2]:>23.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--items", type=int, default=35_000)
    parser.add_argument("--draws", type=int, default=9_999)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--simulations", type=int, default=1_000, help="a row of the second table; 0 leaves it out")
    parser.add_argument("--skip-before", action="store_true", help="time only what there is now")
    args = parser.parse_args()
    speed(args)
    if args.simulations:
        coverage(args)


if __name__ == "__main__":
    main()
