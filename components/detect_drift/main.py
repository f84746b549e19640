"""Hold a window of a deployed model against a baseline: a verdict a signal, a decision by a policy, a report."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit import checked_files, cli, lineage, records, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from drift_settings import Policy
    from drift_signal import Signal
    from drift_snapshot import Snapshot

SPEC = Path(__file__).with_name("component.yml")
DEFAULT_POLICY = Path(__file__).with_name("policy.yml")
MAX_LOGGED = 40  # names; Azure ML takes 50 new ones an hour


@dataclass(frozen=True)
class Args:
    drift: Path
    decision: Path
    history: Path
    snapshot: Path
    report: Path
    canary_items: Path | None = None
    predictions: Path | None = None
    scores: Path | None = None
    traffic: Path | None = None
    window: Path | None = None
    endpoint: Path | None = None
    baseline: Path | None = None
    earlier_history: Path | None = None
    policy: Path | None = None
    metric: str = "exact_match"
    accept_other_baseline: bool = False
    seed: int = 0


def run(args: Args) -> dict[str, float]:
    import baseline_identity
    import drift_history
    import drift_policy
    import drift_report
    import drift_settings
    import drift_snapshot
    import observed_window

    policy_path = args.policy or DEFAULT_POLICY
    policy = checked_files.load(policy_path, drift_settings.Policy)
    past = drift_history.read(args.earlier_history)
    current, notes = observed_window.observe(args)
    drift_history.check_endpoint(past, current.manifest["endpoint"], current.manifest["model"])
    notes += drift_history.overlap(past, current.manifest["window"] or {})
    window = (current.manifest["window"] or {}).get("name")
    if args.baseline:
        baseline, baseline_id = drift_snapshot.read(args.baseline)
        notes += baseline_identity.check(baseline, current, args.accept_other_baseline)
        look = drift_history.next_look(past, baseline_id, window)
        signals = measure(policy, baseline, current, look, args.seed)
        drift_snapshot.write(args.snapshot, current)
    else:
        baseline, baseline_id = None, drift_snapshot.write(args.snapshot, current)
        look = drift_history.first_look(past, baseline_id)
        signals = [no_data(name, drift_policy.NO_BASELINE) for name in drift_policy.SIGNALS]

    manifest = current.manifest
    served = {name: manifest[name] for name in ("endpoint", "model", "deployment", "model_sha256")}
    drift = {
        "window": manifest["window"],
        **served,
        "baseline_id": baseline_id,
        "baseline": baseline and baseline.manifest,
        "look": look,
        "metric": args.metric,
        "num_canaries": manifest["num_canaries"],
        "num_failed": manifest["num_failed"],
        "num_traffic": manifest["num_traffic"],
        "notes": notes,
        "signals": [dataclasses.asdict(signal) for signal in signals],
    }
    write_json(args.drift, drift)
    decided = drift_policy.decide(policy, signals, past, baseline_id, baseline and baseline.manifest, served)
    decision = drift_policy.identified(
        {
            **decided,
            **served,
            "window": window,
            "created_at": manifest["created_at"],
            "baseline_id": baseline_id,
            "look": look,
            "policy_sha256": lineage.sha256(policy_path),
            "drift_sha256": lineage.sha256(args.drift),
        }
    )
    write_json(args.decision, decision)
    line = drift_history.Line(signals=drift_history.findings(signals), **decision_part(decision))
    drift_history.write(args.history, [*past, line])
    page = drift_report.render(drift, decision, signals, [*past, line], baseline, current, policy)
    with records.whole_folder(args.report) as folder:
        (folder / "report.html").write_text(page, encoding="utf-8")

    metrics = logged_metrics(signals)
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    tags = {"action": decision["action"], "decision_id": decision["decision_id"], "baseline_id": baseline_id}
    tracking.set_tags(tags | {signal.name: signal.verdict for signal in signals})
    lineage.write(args, SPEC)
    print(summary(decision, signals, notes))
    return metrics


def measure(policy: "Policy", baseline: "Snapshot", current: "Snapshot", look: int, seed: int) -> list["Signal"]:
    """Every signal that there are data for, and of the others why there are none."""
    import answer_drift
    import baseline_identity
    import canary_drift
    import input_drift
    import prompt_sensitivity
    import service_drift

    before, after = baseline_identity.same_questions(baseline.canaries, current.canaries)
    canaries_lack = lacking("canaries", baseline.canaries, current.canaries) or (
        None if before else "None of the canaries is in the baseline."
    )
    window = current.manifest["window"] or {}
    traffic_lacks = lacking("traffic", baseline.traffic, current.traffic)
    if window.get("status") == "no_data":
        traffic_lacks = f"The window holds no traffic{': ' if window['reason'] else ''}{window['reason'] or ''}."

    of_canaries = {
        "llm_drift": canary_drift.llm_drift,
        "prompt_drift": answer_drift.prompt_drift,
        "prompt_sensitivity": prompt_sensitivity.prompt_sensitivity,
    }
    of_traffic = {"input_drift": input_drift.input_drift, "service_drift": service_drift.service_drift}
    signals = []
    for name, function in (of_canaries | of_traffic).items():
        settings = getattr(policy, name)
        why = canaries_lack if name in of_canaries else traffic_lacks
        try:
            if why:
                signal = no_data(name, why)
            elif name in of_canaries:
                signal = function(before, after, settings, look=look, seed=seed)
            else:
                signal = function(baseline.traffic, current.traffic, settings, seed=seed)
            check_finite(signal)
        except UserError as error:
            raise UserError(f"{name}: {error}", error.exit_code) from error
        except Exception as error:  # a signal that fails is no verdict, and nothing may be decided without it
            raise RuntimeError(f"{name} failed: {type(error).__name__}: {error}") from error
        signals.append(signal)
    return signals


def lacking(what: str, baseline: list, current: list) -> str | None:
    if not current:
        return f"This window holds no {what}."
    return None if baseline else f"The baseline holds no {what}."


def no_data(name: str, why: str) -> "Signal":
    from drift_signal import Signal

    return Signal(name, "no_data", (), (why,))


def check_finite(signal: "Signal") -> None:
    for effect in signal.effects:
        for name, value in dataclasses.asdict(effect).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} of {effect.name} is {value}")


def decision_part(decision: dict[str, Any]) -> dict[str, Any]:
    """What the history keeps of a decision."""
    names = ("window", "created_at", "baseline_id", "look", "action", "decision_id", "endpoint", "model")
    return {name: decision[name] for name in (*names, "deployment", "model_sha256")}


def write_json(path: Path, content: dict[str, Any]) -> None:
    with records.whole_file(path) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def logged_metrics(signals: list["Signal"]) -> dict[str, float]:
    """Drift as 0 or 1 of each signal with a verdict, then the effects over all, as many as MLflow should take."""
    found = {f"monitor/{signal.name}": float(signal.verdict == "drift") for signal in judged(signals)}
    for signal in signals:
        for effect in signal.effects:
            if effect.slice is None and effect.current is not None:
                found[f"monitor/{signal.name}/{effect.name}"] = effect.current
    return dict(list(found.items())[:MAX_LOGGED])


def judged(signals: list["Signal"]) -> list["Signal"]:
    return [signal for signal in signals if signal.verdict in ("drift", "none")]


def summary(decision: dict[str, Any], signals: list["Signal"], notes: list[str]) -> str:
    """The decision as a person reads it in the log."""
    width = max(len(signal.name) for signal in signals)
    rows = [f"  {signal.name:<{width}}  {signal.verdict:<12}  {' '.join(signal.reasons)}" for signal in signals]
    return "\n".join([f"{decision['action'].upper()}: {' '.join(decision['reasons'])}", *notes, "", *rows])


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
