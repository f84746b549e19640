"""The entry script of redact_pii_parallel: the engine calls init once a process, run with shards, then shutdown."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "_shared")]

import redaction_report  # noqa: E402
from main import Args  # noqa: E402
from record_redaction import RecordRedactor, Tally  # noqa: E402

from slmkit import cli, records  # noqa: E402
from slmkit.errors import UserError  # noqa: E402

SPEC = HERE / "parallel.yml"
_args: Args
_redactor: RecordRedactor


def init() -> None:
    global _args, _redactor
    _args = cli.parse(Args, SPEC, cli.own_arguments(Args, sys.argv[1:]))
    _redactor = RecordRedactor(_args)
    if not _redactor.key.stable:
        raise UserError("the processes of a parallel job need one key: give key_secret_url or REDACT_PII_KEY")


def run(mini_batch: list[str]) -> list[str]:
    """Redact each shard; the shards that are done, as the engine counts them."""
    return [_redact(Path(path)) for path in mini_batch]


def shutdown() -> None:
    """Tell of all shards that are done. The last process to end has seen all; one that was overtaken looks again."""
    folder = _args.report
    told: list[Path] = []
    while told != (done := sorted((folder / "shards").rglob("tally.json"))):
        total = redaction_report.added(path.read_text(encoding="utf-8") for path in done)
        redaction_report.write(folder, redaction_report.summary(total, _redactor, _args.name_recognizer))
        told = done


def _redact(shard: Path) -> str:
    name = shard.relative_to(_args.records).as_posix()
    if not records.is_shard(name):
        return f"{name}: no shard"  # the engine gives every file, such as a lineage
    target = _args.redacted_records / (name if name.endswith(".jsonl") else f"{name}.jsonl")
    with records.write_records(target) as write:
        with (
            records.whole_folder(_args.report / "shards" / name) as folder,
            records.write_records(folder / "findings.jsonl") as note,
            records.write_records(folder / "quarantine.jsonl") as refuse,
        ):
            tally: Tally = _redactor.redact(shard, write, note, refuse)
            (folder / "tally.json").write_text(redaction_report.tally_as_json(tally), encoding="utf-8")
        records.check_share(
            tally.records["refused"], tally.records["read"], _args.max_error_fraction, f"records of {name}"
        )
    return name
