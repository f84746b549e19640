"""Audit synthetic records against the real ones they were made from, with a verdict by policy."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import privacy_checks
import privacy_policy
from privacy_policy import Check, Policy

from slmkit import checked_files, cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
DEFAULT_POLICY = Path(__file__).with_name("policy.yml")
PRIVATE_ORIGIN = "private_evolution"  # of what synthesize_private_texts writes


@dataclass(frozen=True)
class Args:
    real_data: Path
    synthetic_data: Path
    report: Path
    decision: Path
    approved_data: Path
    held_out_data: Path | None = None
    redaction_report: Path | None = None
    canaries: Path | None = None
    personas: Path | None = None
    ledger: Path | None = None
    policy: Path | None = None
    stop_on_fail: bool = True


@dataclass(frozen=True)
class Audited:
    """A record: what an attacker reads of it."""

    id: str
    text: str
    origin: str
    source_ids: tuple[str, ...]


def run(args: Args) -> dict[str, float]:
    import audit_report
    import privacy_audit

    policy_path = args.policy or DEFAULT_POLICY
    policy = checked_files.load(policy_path, Policy)
    ledger = read_ledger(args.ledger)
    inputs = privacy_audit.Inputs(
        real=read(args.real_data),
        synthetic=read(args.synthetic_data),
        held_out=read(args.held_out_data),
        canaries=read_canaries(args.canaries),
        redaction=read_json(args.redaction_report and args.redaction_report / "report.json"),
    )
    if not inputs.real or not inputs.synthetic:
        empty = args.synthetic_data if inputs.real else args.real_data
        raise UserError(f"{empty}: no records; an audit without them shows nothing")
    facts = privacy_audit.measure(policy, inputs)
    num_covered = sum(record.origin == PRIVATE_ORIGIN for record in inputs.synthetic)
    personas = list(records.read_records(args.personas)) if args.personas else None
    checks = [
        *facts.checks,
        privacy_checks.check_personas(policy, personas),
        privacy_checks.check_guarantee(policy, ledger, num_covered, len(inputs.synthetic)),
    ]
    decision = decide(policy, checks, facts.num_intended) | {
        "real_data_sha256": lineage.sha256(args.real_data),
        "synthetic_data_sha256": lineage.sha256(args.synthetic_data),
        "policy_sha256": lineage.sha256(policy_path),
    }
    with records.whole_folder(args.report) as folder:
        (folder / "report.html").write_text(audit_report.render(decision, checks, facts, ledger), encoding="utf-8")
        (folder / "report.json").write_text(as_json(decision | {"measured": facts.as_dict()}), encoding="utf-8")
    with records.whole_file(args.decision) as partial:
        partial.write_text(as_json(decision), encoding="utf-8")
    with records.write_records(args.approved_data) as write:
        for record in records.read_records(args.synthetic_data) if decision["verdict"] == "pass" else ():
            write(record)

    metrics = {"privacy/pass": float(decision["verdict"] == "pass")}
    metrics |= {f"privacy/{check.rule}": float(check.observed) for check in checks if check.observed is not None}
    tracking.log_metrics(metrics)
    tracking.set_tags({"verdict": decision["verdict"]})
    lineage.write(args, SPEC)
    print(summary(decision, checks))
    if decision["verdict"] == "fail" and args.stop_on_fail:
        report = args.report / "report.html"
        sys.exit(f"audit_privacy: the verdict is fail: {decision['reasons_to_fail'][0]} See {report}")
    return metrics


def read(path: Path | None) -> list[Audited] | None:
    """All records of a file: one that cannot be read ends the audit, which would not be one of all."""
    if path is None:
        return None
    found = []
    for record, source, line in records.read_located(path):
        where = f"{source}:{line}"
        if isinstance(record.get("messages"), list):
            try:
                records.check_chat(record)
            except ValueError as error:
                raise UserError(f"{where}: {error}") from None
            text = "\n".join(message["content"] for message in record["messages"])
        elif isinstance(record.get("text"), str) and record["text"].strip():
            text = record["text"]
        else:
            raise UserError(f"{where}: neither a chat (messages) nor a document (text); an audit reads every record")
        sources = record.get("source_ids")
        sources = tuple(map(str, sources)) if isinstance(sources, list) else ()
        found.append(Audited(str(record.get("id", where)), text, str(record.get("origin", "")), sources))
    return found


def read_canaries(path: Path | None) -> list[tuple[str, str]] | None:
    if path is None:
        return None
    found = []
    for record, source, line in records.read_located(path):
        secret = record.get("secret")
        if not isinstance(secret, str) or len(secret.strip()) < 4:
            raise UserError(f"{source}:{line}: a canary needs id and secret, its random part, of 4 characters at least")
        found.append((str(record.get("id", f"{source}:{line}")), secret))
    if not found:
        raise UserError(f"{path}: no canaries; leave the input away when none were planted")
    return found


def read_json(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: not a JSON object")
    return found


def read_ledger(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    ledger = read_json(path)
    for name, kind in {"dataset": str, "unit": str, "epsilon": int | float, "delta": int | float}.items():
        if not isinstance(ledger.get(name), kind) or isinstance(ledger[name], bool):
            raise UserError(f"{path}: no ledger of synthesize_private_texts: {name} is missing or of another kind")
    return ledger


def decide(policy: Policy, checks: list[Check], num_intended: int) -> dict[str, Any]:
    reasons = privacy_policy.reasons_to_fail(policy, checks)
    return {
        "verdict": "fail" if reasons else "pass",
        "reasons_to_fail": reasons,
        "handling": (
            f"{num_intended:,} records quote their source: handle the data set as confidentially as that source."
            if num_intended
            else "No record quotes its source on purpose."
        ),
        "reasons": [asdict(check) for check in checks],
    }


def as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def summary(decision: dict[str, Any], checks: list[Check]) -> str:
    """The verdict as a person reads it in the log."""
    rules = [f"  {check.outcome:<10}  {check.rule:<13}  {check.text}" for check in checks]
    return "\n".join([f"{decision['verdict'].upper()}: {decision['handling']}", *rules])


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
