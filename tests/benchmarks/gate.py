#!/usr/bin/env python
"""How often the gate promotes, over simulated pairs of candidates with a known true difference.

Answers are right or wrong, one question in four differs between the candidates (or as few as can), alone or in
documents of four that succeed and fail together. Each pair goes through the statistics of compare_candidates and the
rule of gate_promotion. Where the truth is the threshold itself, a promotion is an error: the lower end of a two-sided
95 % interval allows it in 2.5 %. At a difference that is planned for, the share is the power, beside that of the normal
approximation.
"""

import argparse
import math
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np

COMPONENTS = Path(__file__).resolve().parents[2] / "components"
sys.path[:0] = [str(COMPONENTS / folder) for folder in ("_shared", "gate_promotion", "compare_candidates")]

import promotion_rules  # noqa: E402
from compared import Difference, Evidence, Score  # noqa: E402
from paired_statistics import PairedScores  # noqa: E402

LEVEL = 0.95
UNKNOWN = Score(mean=0, low=None, high=None)  # the rule reads the difference only
RULES = {"superiority by 5 points": 0.05, "non-inferiority within 5": -0.05, "non-inferiority within 2": -0.02}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_pairs", type=int, default=1000)
    parser.add_argument("--num_items", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--cluster_sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--differing", type=float, nargs="+", default=[0.25, 0.0], help="0: as few as can be")
    parser.add_argument("--num_resamples", type=int, default=1999)
    args = parser.parse_args()

    interval = 1.96 * math.sqrt(0.025 * 0.975 / args.num_pairs)
    print(f"{args.num_pairs:,} pairs a row; 2.5 % is seen as {0.025 - interval:.1%} to {0.025 + interval:.1%}")
    print("| rule | questions | a document | differ | promoted at the threshold | truth | promoted | planned |")
    print("|---|---|---|---|---|---|---|---|")
    for rule, threshold in RULES.items():
        for num_items in args.num_items:
            for size in args.cluster_sizes:
                for asked in args.differing:
                    differing = asked or abs(threshold)
                    error = promoted(args, threshold, threshold, num_items, size, differing)
                    truth = planned_difference(threshold, num_items, size, max(differing, 0.1))
                    differing = max(differing, abs(truth))
                    power = promoted(args, threshold, truth, num_items, size, differing)
                    plan = planned_power(threshold, truth, num_items, size, differing)
                    print(
                        f"| {rule} | {num_items:,} | {size} | {asked or abs(threshold):.0%} | {error:.1%} | "
                        f"{100 * truth:+.1f} ({differing:.0%}) | {power:.0%} | {plan:.0%} |",
                        flush=True,
                    )


def promoted(
    args: argparse.Namespace, threshold: float, truth: float, num_items: int, size: int, differing: float
) -> float:
    """The share of pairs whose rule passes, when the candidate is better by ``truth``."""
    seed = num_items, size, round(1000 * differing), round(1000 * (1 + threshold)), round(1000 * (1 + truth))
    rng = np.random.default_rng(seed)
    clusters = np.arange(num_items) // size
    passed = 0
    for pair in range(args.num_pairs):
        values = answers(rng, truth, num_items, size, differing)
        paired = PairedScores(values, clusters, num_resamples=args.num_resamples, confidence_level=LEVEL, seed=pair)
        difference = Difference(**paired.difference(1, 0), **paired.tests([(1, 0)])[0])
        yes_or_no = difference.is_of_yes_or_no(num_items)
        found = Evidence("", num_items, paired.num_clusters, UNKNOWN, UNKNOWN, difference, yes_or_no)
        passed += promotion_rules.of_difference("", found, threshold, LEVEL).outcome == "pass"
    return passed / args.num_pairs


def answers(rng: np.random.Generator, truth: float, num_items: int, size: int, differing: float) -> np.ndarray:
    """Right or wrong of baseline and candidate. In a document, half of the questions copy the fate of its first."""
    won = (differing + truth) / 2
    fate = rng.choice([1, -1, 0], p=[won, differing - won, 1 - differing], size=num_items)
    both = rng.random(num_items) < 0.5
    first = np.arange(num_items) // size * size
    copied = rng.random(num_items) < 0.5
    fate, both = np.where(copied, fate[first], fate), np.where(copied, both[first], both)
    return np.stack([np.where(fate == 0, both, fate < 0), np.where(fate == 0, both, fate > 0)], axis=1).astype(float)


def standard_error(truth: float, num_items: int, size: int, differing: float) -> float:
    # A question is like the first of its document with probability 1/2, and like another one with 1/4.
    pairs_alike = (size - 1) * 0.5 + (size - 1) * (size - 2) / 2 * 0.25
    return math.sqrt((differing - truth**2) / num_items * (1 + 2 * pairs_alike / size))


def planned_difference(threshold: float, num_items: int, size: int, differing: float) -> float:
    """What should be found with a power of 80 %."""
    wanted = NormalDist().inv_cdf((1 + LEVEL) / 2) + NormalDist().inv_cdf(0.8)
    truth = threshold
    for _ in range(20):
        truth = threshold + wanted * standard_error(truth, num_items, size, max(differing, abs(truth)))
    return truth


def planned_power(threshold: float, truth: float, num_items: int, size: int, differing: float) -> float:
    distance = (truth - threshold) / standard_error(truth, num_items, size, differing)
    return NormalDist().cdf(distance - NormalDist().inv_cdf((1 + LEVEL) / 2))


if __name__ == "__main__":
    main()
