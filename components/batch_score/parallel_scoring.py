"""The entry script of batch_score_parallel: the engine calls init once a process, run with shards, then shutdown."""

import contextlib
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "_shared")]

import record_scoring  # noqa: E402
import scoring_report  # noqa: E402
from main import Args  # noqa: E402

from slmkit import cli, records  # noqa: E402

SPEC = HERE / "parallel.yml"
_args: Args
_scorer: record_scoring.RecordScorer
_resources = contextlib.ExitStack()


def init() -> None:
    global _args, _scorer
    from model_inference import answer_sources

    _args = cli.parse(Args, SPEC, cli.own_arguments(Args, sys.argv[1:]))
    record_scoring.list_shards(_args.records)  # refuses what cannot be scored before the model is loaded
    source = _resources.enter_context(answer_sources.connect(_args, truncate_prompt=_args.truncate_prompt))
    _scorer = record_scoring.RecordScorer(source, _args)


def run(mini_batch: list[str]) -> list[str]:
    """The shards that are done: an element for each, as the engine counts them. An error makes it try them again."""
    return [_score(Path(path)) for path in mini_batch]


def shutdown() -> None:
    """Tell of all shards that are done. The last process to end has seen all; one that was overtaken looks again."""
    folder = _args.report / "shards"
    told: list[Path] = []
    while told != (done := sorted(folder.rglob("*.json"))):
        tallies = {path.relative_to(folder).as_posix().removesuffix(".json"): path for path in done}
        scoring_report.write(
            _args.report,
            {name: scoring_report.from_json(path.read_text(encoding="utf-8")) for name, path in tallies.items()},
            _args.max_error_fraction,
        )
        told = done
    _resources.close()


def _score(shard: Path) -> str:
    name = shard.relative_to(_args.records).as_posix()
    if not records.is_shard(name):
        return f"{name}: no shard"  # the engine gives every file, such as a lineage
    so_far = _args.predictions / record_scoring.SO_FAR
    with records.write_records(_args.predictions / record_scoring.output_name(name)) as write:
        tally = _scorer.score(name, shard, write, so_far)
    with records.whole_file(_args.report / "shards" / f"{name}.json") as partial:
        partial.write_text(tally.as_json(), encoding="utf-8")
    scoring_report.check_errors(tally, _args.max_error_fraction, f"{name}: ")
    shutil.rmtree(so_far / name, ignore_errors=True)  # a shard without records has none
    return name
