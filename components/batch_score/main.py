"""Score shards of records with a model or an endpoint: a row for every record, with its answer or its error."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import record_scoring
import scoring_report
from record_scoring import Asking, RecordScorer

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True, kw_only=True)
class Args(Asking):
    records: Path
    predictions: Path
    report: Path


def run(args: Args) -> dict[str, float]:
    # Threads that spin while they wait are slower than none as soon as another step runs beside this one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")
    from model_inference import answer_sources

    shards = record_scoring.list_shards(args.records)
    so_far = args.predictions / record_scoring.SO_FAR
    tallies = {}
    with answer_sources.connect(args, truncate_prompt=args.truncate_prompt) as source:
        scorer = RecordScorer(source, args)
        for name, shard in shards.items():
            with records.write_records(args.predictions / record_scoring.output_name(name)) as write:
                tallies[name] = scorer.score(name, shard, write, so_far)
    whole = scoring_report.total(tallies.values())
    if not whole.num_rows:
        raise UserError(f"{args.records}: no records; is this the right file?")
    scoring_report.write(args.report, tallies, args.max_error_fraction)

    figures = {name: value for name, value in whole.figures().items() if value is not None}
    metrics = {f"{'score' if name.startswith('num_') else 'perf'}/{name}": value for name, value in figures.items()}
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    lineage.write(args, SPEC)
    before = f", {whole.num_known:,} answered before" if whole.num_known else ""
    print(
        f"{whole.num_rows:,} rows in {len(shards)} shards, {whole.errors.total():,} with an error{before}, "
        f"{figures['tokens_per_second']:,.0f} tokens a second"
    )
    scoring_report.check_errors(whole, args.max_error_fraction)
    shutil.rmtree(so_far, ignore_errors=True)
    return metrics


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
