"""Compare a candidate with a baseline, question by question, with intervals, tests and a report."""

import collections
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import candidate_scores
from candidate_scores import Candidate

from slmkit import cli, lineage, records, tracking

SPEC = Path(__file__).with_name("component.yml")
MAX_SLICES_A_KEY = 12
FEW_CLUSTERS = 10

# What it says of a score, by what prepare_dataset held out.
HELD_OUT = {
    "documents": " - nothing of them was trained on; the wordings of the questions were",
    "questions": " - their documents were trained on, with other questions",
}


@dataclass(frozen=True)
class Args:
    baseline_scores: Path
    candidate_scores: Path
    eval_items: Path
    comparison: Path
    report: Path
    baseline_predictions: Path | None = None
    candidate_predictions: Path | None = None
    metric: str = "exact_match"
    num_resamples: int = 9999
    confidence_level: float = 0.95
    seed: int = 0


def run(args: Args) -> dict[str, float]:
    items = candidate_scores.read_by_id(args.eval_items)
    candidates = [
        candidate_scores.read_candidate(args.baseline_scores, args.baseline_predictions),
        candidate_scores.read_candidate(args.candidate_scores, args.candidate_predictions),
    ]
    candidate_scores.check_pairs(items, candidates)
    comparison = compare(items, candidates, args)

    import comparison_report

    page = comparison_report.render(comparison, items, candidates)
    with records.whole_folder(args.report) as folder:
        (folder / "report.html").write_text(page, encoding="utf-8")
    with records.whole_file(args.comparison) as partial:
        partial.write_text(json.dumps(comparison, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    difference = comparison["comparisons"][0]["metrics"][args.metric]
    metrics = {f"eval/{args.metric}_{name}": difference[name] for name in ("difference", "low", "high", "p_value")}
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    lineage.write(args, SPEC)
    print(comparison_report.headline(comparison), held_out(items)["statement"], *comparison["warnings"], sep="\n")
    return metrics


def compare(items: dict[str, dict], candidates: list[Candidate], args: Args) -> dict[str, Any]:
    """All numbers of the comparison; the first candidate is the baseline of the others."""
    import numpy as np
    from paired_statistics import PairedScores

    baseline, *others = candidates
    metrics = candidate_scores.common_metrics(candidates, args.metric)
    columns = [(candidate, metric) for candidate in candidates for metric in metrics]
    position = {(candidate.name, metric): i for i, (candidate, metric) in enumerate(columns)}
    clusters, warnings = number_clusters(items)
    slices = find_slices(items)
    scores = PairedScores(
        np.array([[candidate_scores.checked_score(*column, id) for column in columns] for id in items]),
        np.array(clusters),
        np.array([[True, *(id in ids for ids in slices.values())] for id in items]),
        num_resamples=args.num_resamples,
        confidence_level=args.confidence_level,
        seed=args.seed,
    )
    if scores.num_clusters[0] < FEW_CLUSTERS:
        warnings.append(f"Only {scores.num_clusters[0]} clusters of questions: the intervals are rough.")

    def against_baseline(name: str, metric: str) -> tuple[int, int]:
        return position[name, metric], position[baseline.name, metric]

    for other in others:
        difference = scores.difference(*against_baseline(other.name, args.metric))
        if difference["low"] == difference["high"]:
            warnings.append(f"{other.name}: nothing varies between documents, so that the interval has no width.")

    return {
        "metric": args.metric,
        "num_items": len(items),
        "num_clusters": scores.num_clusters[0],
        "confidence_level": args.confidence_level,
        "num_resamples": args.num_resamples,
        "seed": args.seed,
        "eval_items_sha256": lineage.sha256(args.eval_items),
        "held_out": held_out(items),
        "warnings": warnings,
        "candidates": [
            {
                "name": candidate.name,
                "scores_sha256": candidate.scores_sha256,
                "metrics": {metric: scores.mean(position[candidate.name, metric]) for metric in metrics},
                **candidate_scores.failures(candidate),
                "latency_ms": candidate_scores.latency(candidate),
            }
            for candidate in candidates
        ],
        "comparisons": [
            {
                "candidate": other.name,
                "baseline": baseline.name,
                "metrics": {
                    metric: scores.difference(*against_baseline(other.name, metric))
                    | scores.test(*against_baseline(other.name, metric))
                    for metric in metrics
                },
            }
            for other in others
        ],
        "slices": [
            {
                "slice": key,
                "value": value,
                "num_items": len(ids),
                "num_clusters": scores.num_clusters[group],
                "means": {c.name: scores.mean(position[c.name, args.metric], group) for c in candidates},
                "differences": {
                    other.name: scores.difference(*against_baseline(other.name, args.metric), group) for other in others
                },
            }
            for group, ((key, value), ids) in enumerate(slices.items(), start=1)
        ],
    }


def number_clusters(items: dict[str, dict]) -> tuple[list[int], list[str]]:
    """Number the clusters from 0; an item without a cluster is one of its own."""
    names = [str(item.get("cluster") or id) for id, item in items.items()]
    warnings = []
    if len(set(names)) == 1:
        names = list(items)
        warnings.append(
            "All questions come from one cluster (document): the intervals are over questions, "
            "and say nothing about other documents."
        )
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names], warnings


def find_slices(items: dict[str, dict]) -> dict[tuple[str, str], set[str]]:
    """The ids in each slice, for every key that tells questions apart; of a key with many values, the largest."""
    by_key = collections.defaultdict(lambda: collections.defaultdict(set))
    for id, item in items.items():
        for key, value in (item.get("slices") or {}).items():
            if value is not None:
                by_key[key][str(value)].add(id)
    slices = {}
    for key, by_value in by_key.items():
        largest = sorted(by_value, key=lambda value: (-len(by_value[value]), value))[:MAX_SLICES_A_KEY]
        if len(by_value) > 1:
            slices |= {(key, value): by_value[value] for value in largest}
    return slices


def held_out(items: dict[str, dict]) -> dict[str, Any]:
    """What the training data did not hold, as far as the eval items say."""
    counts = collections.Counter(str((item.get("slices") or {}).get("held_out") or "") for item in items.values())
    unknown = counts.pop("", 0)
    said = [f"{what} ({count} questions){HELD_OUT.get(what, '')}" for what, count in counts.most_common()]
    if unknown:
        said.append(f"not stated for {unknown} questions")
    return {"statement": f"Held out from training: {', '.join(said)}.", "num_items": dict(counts)}


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
