"""Put several files of records one after the other."""

from dataclasses import dataclass
from pathlib import Path

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True)
class Args:
    records_1: Path
    combined_records: Path
    records_2: Path | None = None
    records_3: Path | None = None
    records_4: Path | None = None
    records_5: Path | None = None
    records_6: Path | None = None
    records_7: Path | None = None
    records_8: Path | None = None


def run(args: Args) -> dict[str, float]:
    ports = {name: path for i in range(1, 9) if (path := getattr(args, name := f"records_{i}"))}
    first_seen: dict[tuple, str] = {}
    with records.write_records(args.combined_records) as write:
        for port, path in ports.items():
            for record, source, line in records.read_located(path):
                where = f"{port}, {source}:{line}"
                key = identity(record)
                if key is None:
                    raise UserError(
                        f"{where}: a record needs an 'id', a text, and its 'candidate', where it has one, is a text too"
                    )
                if first_seen.setdefault(key, where) != where:
                    named = " of ".join(part[:80] for part in key if part)
                    raise UserError(
                        f"{where}: {named} stands already in {first_seen[key]}; was the same file given twice, or do "
                        "two candidates share a name?"
                    )
                write(record)

    metrics = {"combine/num_records": len(first_seen), "combine/num_files": len(ports)}
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    print(f"{len(first_seen):,} records of {len(ports)} files")
    return metrics


def identity(record: dict) -> tuple[str, str | None] | None:
    """What tells a record from the others: its id, and the candidate where it is about one."""
    id, candidate = record.get("id"), record.get("candidate")
    return (id, candidate) if isinstance(id, str) and id and isinstance(candidate, str | None) else None


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
