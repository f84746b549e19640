"""Compare candidates with a baseline, question by question, with intervals, tests and a report."""

import collections
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import candidate_scores
import yaml

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
MAX_LOGGED = 40  # names; Azure ML takes 50 new ones an hour

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
    on_unequal_ids: str = "error"
    noninferiority_margin: float = 0.02
    num_resamples: int = 9999
    confidence_level: float = 0.95
    seed: int = 0


def run(args: Args) -> dict[str, float]:
    items = candidate_scores.read_items(args.eval_items)
    baseline = candidate_scores.read_candidates(args.baseline_scores, args.baseline_predictions)
    if len(baseline) > 1:
        found = ", ".join(sorted(one.name for one in baseline))
        raise UserError(f"{args.baseline_scores}: the baseline is one candidate, found {found}")
    candidates = baseline + candidate_scores.read_candidates(args.candidate_scores, args.candidate_predictions)
    items, candidates, warnings = candidate_scores.pair(items, candidates, args.on_unequal_ids)
    comparison = compare(items, candidates, args)
    comparison["warnings"][:0] = warnings

    import comparison_report
    import ranking_text

    page = comparison_report.render(comparison, items, candidates)
    with records.whole_folder(args.report) as folder:
        (folder / "report.html").write_text(page, encoding="utf-8")
    with records.whole_file(args.comparison) as partial:
        partial.write_text(json.dumps(comparison, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    metrics = logged_metrics(comparison)
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    tracking.set_tags({"recommendation": comparison["recommendation"]["candidate"]})
    lineage.write(args, SPEC)
    print(f"RECOMMENDATION: {comparison['recommendation']['reason']}", comparison["held_out"]["statement"], sep="\n")
    print(*comparison["warnings"], "", ranking_text.ranking(comparison), sep="\n")
    return metrics


def compare(items: dict[str, dict], candidates: list[candidate_scores.Candidate], args: Args) -> dict[str, Any]:
    """All numbers of the comparison; the first candidate is the baseline of the others."""
    import candidate_comparison

    metrics = metrics_from(args.metric, items, candidates)
    settings = candidate_comparison.Settings(
        metrics, args.num_resamples, args.confidence_level, args.seed, args.noninferiority_margin
    )
    return {
        "metric": metrics.get(None, metrics),
        "confidence_level": args.confidence_level,
        "noninferiority_margin": args.noninferiority_margin,
        "num_resamples": args.num_resamples,
        "seed": args.seed,
        "eval_items_sha256": lineage.sha256(args.eval_items),
        "held_out": held_out(items),
        **candidate_comparison.compare(items, candidates, settings),
    }


def metrics_from(
    text: str, items: dict[str, dict], candidates: list[candidate_scores.Candidate]
) -> dict[str | None, str]:
    """The metric by benchmark, or for all under None; each must stand in the scores of all candidates."""
    try:
        wanted = yaml.safe_load(text)
    except yaml.YAMLError:
        wanted = None
    if isinstance(wanted, dict):
        wanted = {str(name): str(metric) for name, metric in wanted.items()}
    else:
        wanted = {None: text.strip()}
    by_benchmark = collections.defaultdict(list)
    for id, item in items.items():
        by_benchmark[str((item.get("slices") or {}).get("benchmark") or "all")].append(id)
    if None not in wanted:
        if by_benchmark.keys() != wanted.keys():
            raise UserError(
                f"metric names the benchmarks {', '.join(wanted) or 'none'}; "
                f"eval_items hold {', '.join(by_benchmark)}: name each of them once"
            )
        if single := [name for name, ids in by_benchmark.items() if len(ids) < 2]:
            raise UserError(f"benchmark {single[0]!r} has one question only: a comparison needs two or more")
    for benchmark, ids in by_benchmark.items():
        metric = wanted[None] if None in wanted else wanted[benchmark]
        common = candidate_scores.metric_names([one.scores[ids[0]] for one in candidates])
        if not all(metric in one.scores[ids[0]] for one in candidates) or metric in candidate_scores.NOT_METRICS:
            where = f" on {benchmark}" if len(by_benchmark) > 1 else ""
            raise UserError(
                f"metric {metric!r} is not in the scores of all candidates{where}; "
                f"in all of them: {', '.join(common) or 'none'}"
            )
    return wanted


def held_out(items: dict[str, dict]) -> dict[str, Any]:
    """What the training data did not hold, as far as the eval items say."""
    counts = collections.Counter(str((item.get("slices") or {}).get("held_out") or "") for item in items.values())
    unknown = counts.pop("", 0)
    said = [f"{what} ({count} questions){HELD_OUT.get(what, '')}" for what, count in counts.most_common()]
    if unknown:
        said.append(f"not stated for {unknown} questions")
    return {"statement": f"Held out from training: {', '.join(said)}.", "num_items": dict(counts)}


def logged_metrics(comparison: dict[str, Any]) -> dict[str, float]:
    """The differences in the metric, overall with interval and by benchmark without, as many as MLflow should take."""
    metric = comparison["metric"] if isinstance(comparison["metric"], str) else "score"
    several = len(comparison["comparisons"]) > 1
    found = {}
    for pair in comparison["comparisons"]:
        of = f"/{pair['candidate']}" if several else ""
        for name in ("difference", "low", "high", "p_value"):
            found[f"eval/{metric}_{name}{of}"] = pair["metrics"][metric][name]
    if len(comparison["benchmarks"]) > 1:
        for part in comparison["benchmarks"]:
            for name, difference in part["differences"].items():
                of = f"/{name}" if several else ""
                found[f"eval/{part['metric']}_difference/{part['benchmark']}{of}"] = difference["difference"]
    known = {name: value for name, value in found.items() if value is not None}
    return dict(list(known.items())[:MAX_LOGGED])


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
