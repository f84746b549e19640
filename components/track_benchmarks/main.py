"""Add the benchmarks of this cycle to their history, and say what improved or fell behind the champion."""

import collections
import datetime
from dataclasses import dataclass
from pathlib import Path

from slmkit import checked_files, cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True)
class Args:
    comparison: Path
    cycle: str
    history: Path
    report: Path
    earlier_history: Path | None = None
    champion: str | None = None


@dataclass(frozen=True)
class Verdict:
    """How a candidate did on a benchmark beside the champion; without a test of the two nothing is claimed."""

    benchmark: str
    metric: str
    candidate: str
    mean: float
    champion_mean: float
    p_holm: float | None
    verdict: str


def run(args: Args) -> dict[str, float]:
    import benchmark_history
    import trend_report

    if not args.cycle.strip():
        raise UserError("cycle is blank; give this cycle a name or a date")
    if len(args.cycle) > benchmark_history.MAX_NAME:
        raise UserError(
            f"cycle has more than {benchmark_history.MAX_NAME} characters; give this cycle a name or a date"
        )
    comparison = checked_files.load(args.comparison, benchmark_history.Comparison)
    champion = args.champion or comparison.baseline
    earlier = benchmark_history.read(args.earlier_history) if args.earlier_history else []
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    new = benchmark_history.rows_of(comparison, args.cycle.strip(), now)
    rows = benchmark_history.added(earlier, new)
    verdicts = judged(comparison, champion)

    page = trend_report.render(rows, args.cycle.strip(), champion, verdicts)
    with records.whole_folder(args.report) as folder:
        (folder / "report.html").write_text(page, encoding="utf-8")
    with records.write_records(args.history) as write:
        for row in rows:
            write(row.model_dump())

    counts = collections.Counter(found.verdict for found in verdicts)
    metrics = {
        "eval/num_improvements": float(counts["improvement"]),
        "eval/num_regressions": float(counts["regression"]),
    }
    tracking.log_metrics(metrics)
    tracking.set_tags({"cycle": args.cycle.strip(), "champion": champion, "benchmarks": worst(counts)})
    tracking.log_artifact(args.report / "report.html")
    lineage.write(args, SPEC)
    if rows is earlier:
        print(f"cycle {args.cycle.strip()} is in the history already, with the same values: nothing was added")
    for found in verdicts:
        print(
            f"{found.benchmark}: {found.candidate} {found.mean:.4g}, {champion} {found.champion_mean:.4g}: "
            f"{found.verdict}"
        )
    return metrics


def judged(comparison, champion: str) -> list[Verdict]:
    """Each other candidate against the champion, by the paired tests of the comparison, corrected by Holm's method.

    The comparison tests against its baseline: where another candidate is the champion, only these two are compared.
    """
    verdicts = []
    for part in comparison.benchmarks:
        if champion not in part.means:
            known = ", ".join(part.means)
            raise UserError(f"champion {champion!r} is not in the comparison; it holds {known}")
        for name in part.means:
            if name == champion:
                continue
            if champion == comparison.baseline:
                found, sign = part.differences.get(name), 1
            else:
                found, sign = part.differences.get(champion) if name == comparison.baseline else None, -1
            word = "not tested"
            if found:
                significant = found.p_holm <= 1 - comparison.confidence_level and found.difference
                better = sign * found.difference > 0
                word = ("improvement" if better else "regression") if significant else "no change"
            p_holm, means = found.p_holm if found else None, part.means
            verdicts.append(
                Verdict(part.benchmark, part.metric, name, means[name].mean, means[champion].mean, p_holm, word)
            )
    return verdicts


def worst(counts: collections.Counter) -> str:
    """One word for all benchmarks: a regression anywhere is what somebody should look at."""
    return next((word for word in ("regression", "improvement", "no change") if counts[word]), "not tested")


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
