"""Bring a base model into the pipeline: from the hub, from a folder or model asset, or the built-in tiny model."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import import_report
import model_checks
import model_source

from model_training import memory_estimate
from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
TINY = "tiny"


@dataclass(frozen=True)
class Args:
    base_model: Path
    report: Path
    model_name: str = TINY
    model_folder: Path | None = None
    mlflow_model: Path | None = None
    revision: str = "main"
    trust_remote_code: bool = False
    seed: int = 42


def run(args: Args) -> dict[str, float]:
    os.environ.setdefault("TQDM_DISABLE", "1")  # a step's log shows lines, not bars
    started = time.perf_counter()
    with records.whole_folder(args.base_model) as folder:
        source, revision = bring(args, folder)
        checked = model_checks.check(folder, source, args.trust_remote_code)
        num_bytes = sum(file.stat().st_size for file in folder.iterdir())
    shape = memory_estimate.shape_of(checked.config, trust_remote_code=args.trust_remote_code)
    memory = import_report.memory_rows(shape)
    origin = {
        "source": source,
        "architecture": checked.architecture,
        "num_parameters": checked.num_parameters,
        "size_bytes": num_bytes,
        "trust_remote_code": args.trust_remote_code,
    }
    with records.whole_folder(args.report) as folder:
        import_report.write(folder, origin, checked.findings, memory)

    tracking.log_params(origin)
    tracking.set_tags(checked.tags)
    metrics = {
        "model/num_parameters": checked.num_parameters,
        "model/size_bytes": num_bytes,
        **{f"memory/{name}_bytes": row["total"] for name, row in import_report.usual(memory).items()},
        "perf/import_seconds": time.perf_counter() - started,
    }
    tracking.log_metrics(metrics)
    # With the commit that the revision was today, so that the same weights can be had again.
    lineage.write(replace(args, revision=revision), SPEC)
    print(f"{source}: {checked.num_parameters:,} parameters, {num_bytes / 2**20:.1f} MiB")
    for line in import_report.lines(checked.findings, memory):
        print(line)
    return metrics


def bring(args: Args, folder: Path) -> tuple[str, str]:
    """Fill the folder; returns what it came from, in words, and the revision, which is a commit for the hub."""
    if args.model_folder and args.mlflow_model:
        raise UserError("both model_folder and mlflow_model are given; give the one that holds the model")
    if given := args.model_folder or args.mlflow_model:
        model_source.copy_folder(given, folder, args.trust_remote_code)
        return str(given), args.revision
    if args.model_name == TINY:
        make_tiny(args.seed, folder)
        return "tiny, trained on the spot", args.revision
    cached = model_source.download(args.model_name, args.revision, args.trust_remote_code)
    model_source.copy_folder(cached, folder, args.trust_remote_code)
    commit = cached.name
    if commit != args.revision:
        print(
            f"revision {args.revision} is commit {commit} today; give revision={commit} to get the same weights again"
        )
    return f"{args.model_name} at {commit}", commit


def make_tiny(seed: int, folder: Path) -> None:
    # Two threads that spin while they wait for each other are slower than one as soon as another step runs beside.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import tiny_model

    model, tokenizer = tiny_model.make(seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
