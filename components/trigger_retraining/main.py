"""Start the next cycle when a monitor has decided for it: once for a decision, and by default only in words."""

import dataclasses
import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from retraining_decision import Decision
    from retraining_job import Outcome

SPEC = Path(__file__).with_name("component.yml")
NEEDED = {
    "azure": ("pipeline",),
    "local": ("pipeline",),
    "github": ("repository", "github_app_id", "github_installation_id", "github_key_url"),
}
ASKED_FOR = {
    "azure": ("pipeline", "pipeline_inputs", "compute", "experiment_name"),
    "local": ("pipeline", "pipeline_inputs"),
    "github": ("repository", "event_type"),
}


@dataclass(frozen=True)
class Args:
    decision: Path
    receipt: Path
    current_endpoint: Path
    target: str = "local"
    actions: str = "retrain"
    pipeline: str | None = None
    pipeline_inputs: str | None = None
    fresh_data: Path | None = None
    fresh_data_input: str | None = None
    endpoint: Path | None = None
    compute: str = "serverless"
    experiment_name: str = "slm-retraining"
    repository: str | None = None
    event_type: str | None = None
    github_app_id: str | None = None
    github_installation_id: str | None = None
    github_key_url: str | None = None
    github_api_url: str = "https://api.github.com"
    dry_run: bool = True
    wait: bool = False


def run(args: Args) -> dict[str, float]:
    import retraining_decision
    from retraining_job import Outcome

    decision = retraining_decision.read(args.decision)
    actions = retraining_decision.chosen_actions(args.actions)
    check_ports(args, actions)
    missing = [name for name in NEEDED[args.target] if getattr(args, name) is None]
    needs = f"{args.target} needs {', '.join(missing)}"
    if decision.action not in actions:
        outcome = Outcome(False, f"the decision is {decision.action}, which starts nothing here")
    elif not missing:
        outcome = start(args, decision)
    elif args.dry_run:
        outcome = Outcome(False, f"dry_run: nothing is given to start; {needs}")
    else:
        raise UserError(f"the decision is {decision.action}, and nothing is given to start: {needs}", 4)

    write_current_endpoint(args, outcome)
    receipt = {
        "decision_id": decision.decision_id,
        "action": decision.action,
        "reasons": decision.reasons,
        "target": args.target,
        "dry_run": args.dry_run,
        "started": outcome.started,
        "why": outcome.why,
        "job_name": outcome.job_name,
        "url": outcome.url,
        "status": outcome.status,
        "asked_for": asked_for(args),
        "endpoint_from": "started job" if outcome.endpoint is not None else "input" if args.endpoint else None,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    with records.whole_file(args.receipt) as partial:
        partial.write_text(json.dumps(receipt, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    metrics = {"monitor/retraining_started": float(outcome.started)}
    tracking.set_tags({"decision_id": decision.decision_id, "decision": decision.action})
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.receipt)
    lineage.write(dataclasses.replace(args, fresh_data=None), SPEC)  # it may be a URI, and is not read here
    print(summary(args, decision, outcome))
    return metrics


def check_ports(args: Args, actions: set[str]) -> None:
    if args.target != "github" and actions != {"retrain"}:
        raise UserError(f"actions {args.actions!r:.60}: a pipeline is started on retrain only; github may be told more")
    if args.target == "github" and args.wait:
        raise UserError("wait: GitHub does not say which run an event starts; wait for azure or local only")


def start(args: Args, decision: "Decision") -> "Outcome":
    if args.target == "github":
        import github_dispatch

        app = github_dispatch.App(
            args.github_app_id, args.github_installation_id, args.github_key_url, args.github_api_url
        )
        event_type = args.event_type or decision.event_type
        return github_dispatch.send(app, args.repository, event_type, decision, dry_run=args.dry_run)
    import retraining_job

    tags = {"decision_id": decision.decision_id, "reasons": " ".join(decision.reasons)[:250]}
    inputs = retraining_job.inputs(args.pipeline_inputs, args.fresh_data, args.fresh_data_input)
    wanted = retraining_job.Wanted(decision.job_name, args.pipeline, inputs, tags)
    if args.target == "azure":
        import azure_pipeline

        import model_registry

        place = azure_pipeline.Place(args.compute, args.experiment_name)
        return azure_pipeline.start(
            model_registry.workspace_client, wanted, place, dry_run=args.dry_run, wait=args.wait
        )
    import local_pipeline

    return local_pipeline.start(wanted, dry_run=args.dry_run, wait=args.wait)


def write_current_endpoint(args: Args, outcome: "Outcome") -> None:
    content = outcome.endpoint
    if content is None:
        content = args.endpoint.read_bytes() if args.endpoint else b"{}\n"
    with records.whole_file(args.current_endpoint) as partial:
        partial.write_bytes(content)


def asked_for(args: Args) -> dict[str, Any]:
    """What a person needs to do the same by hand."""
    return {name: getattr(args, name) for name in ASKED_FOR[args.target] if getattr(args, name) is not None}


def summary(args: Args, decision: "Decision", outcome: "Outcome") -> str:
    state = "started" if outcome.started else "not started"
    place = "" if decision.action == "none" else f" on {args.target}"
    lines = [f"{decision.action.upper()}{place}: {state} ({outcome.why})"]
    if outcome.job_name:
        lines.append(f"  {outcome.job_name} {outcome.status or ''}  {outcome.url or ''}".rstrip())
    return "\n".join([*lines, *(f"  {reason}" for reason in decision.reasons)])


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
