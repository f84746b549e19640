"""Take personal data and secrets out of records, and report what was found without saying its value."""

from dataclasses import dataclass
from pathlib import Path

import redaction_report
from record_redaction import RecordRedactor

from slmkit import cli, lineage, records, tracking

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True)
class Args:
    records: Path
    redacted_records: Path
    report: Path
    action: str = "mask"
    fields: str = "text,title,messages"
    entity_types: str = "all"
    regions: str = "US,JP,KR"
    name_recognizer: str = "none"
    spacy_models: str = "ja=ja_ginza"
    language_endpoint: str | None = None
    key_secret_url: str | None = None
    max_error_fraction: float = 0.0


def run(args: Args) -> dict[str, float]:
    redactor = RecordRedactor(args)
    with records.write_records(args.redacted_records) as write:
        with (
            records.whole_folder(args.report) as folder,
            records.write_records(folder / "findings.jsonl") as note,
            records.write_records(folder / "quarantine.jsonl") as refuse,
        ):
            tally = redactor.redact(args.records, write, note, refuse)
            content = redaction_report.summary(tally, redactor, args.name_recognizer)
            redaction_report.write(folder, content)
        counts = content["records"]
        records.check_share(counts["refused"], counts["read"], args.max_error_fraction, "records")

    metrics = {f"data/num_{name}_records": float(number) for name, number in counts.items()}
    metrics |= {f"data/num_{kind}": float(sum(row.values())) for kind, row in content["findings"].items()}
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    lineage.write(args, SPEC)
    print(
        f"{counts['read']} records: {tally.findings.total()} findings, {counts['changed']} records changed "
        f"({args.action}), {counts['dropped']} dropped, {counts['refused']} refused"
    )
    for gap in content["gaps"]:
        print(gap)
    return metrics


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
