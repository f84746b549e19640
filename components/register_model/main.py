"""Register a model that the gate has promoted, with its lineage and a model card."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import model_registry
from slmkit import cli, lineage, records, tracking

if TYPE_CHECKING:
    from release_evidence import Decision

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True)
class Args:
    model: Path
    decision: Path
    registered_model_name: str
    manifest: Path
    model_card: Path
    comparison: Path | None = None
    privacy_decision: Path | None = None
    quantization_report: Path | None = None
    registry_name: str | None = None
    intended_use: str | None = None
    limitations: str | None = None


def run(args: Args) -> dict[str, float]:
    import combined_adapters
    import model_card
    import model_folder
    import release_evidence

    model_registry.check_name(args.registered_model_name)
    folder = model_folder.read(args.model)
    sha256 = lineage.sha256(args.model)
    if combined_adapters.are_in(args.model):
        decision, adapters = combined_adapters.read(args.model, sha256, args.decision)
    else:
        decision, adapters = release_evidence.read_decision(args.decision), []
    comparison = privacy = quantization = None
    if args.comparison:
        comparison = release_evidence.read_comparison(args.comparison, decision)
    if args.privacy_decision:
        privacy = release_evidence.read_privacy_decision(args.privacy_decision, decision)
    if args.quantization_report:
        quantization = release_evidence.read_quantization(args.quantization_report, args.model, sha256)
    source_sha256 = quantization.source_model_sha256 if quantization else sha256
    if not adapters:
        release_evidence.check_evaluated(args.decision, decision, args.model, source_sha256)

    manifest: dict[str, Any] = {
        "registered": False,
        "name": args.registered_model_name,
        "version": None,
        "uri": None,
        "aliases": [],
        "model_type": folder.model_type,
        "model_sha256": sha256,
        "quantized": quantization is not None,
        **({"source_model_sha256": source_sha256} if quantization else {}),
        **({"adapters": {one.name: one.sha256 for one in adapters}} if adapters else {}),
        "why": f"The verdict is {decision.verdict}.",
    }
    training = {} if adapters else model_card.training_of(lineage.read(args.model))
    if decision.verdict == "promote":
        description = model_card.summary(decision)
        known = tags(args, decision, manifest, training)
        manifest |= register(
            args,
            model_registry.ModelVersion(args.registered_model_name, args.model, description, known, folder.model_type),
        )

    card = model_card.render(
        manifest=manifest,
        architecture=folder.summary,
        training=training,
        decision=decision,
        adapters=adapters,
        comparison=comparison,
        privacy=privacy,
        quantization=quantization,
        intended_use=args.intended_use,
        limitations=args.limitations,
    )
    for path, text in (
        (args.manifest, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"),
        (args.model_card, card),
    ):
        with records.whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        named = Path(temporary, "MODEL_CARD.md")
        named.write_text(card, encoding="utf-8")
        tracking.log_artifact(named)
    metrics = {"release/registered": float(manifest["registered"])}
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    where = f"as {manifest['uri']}" if manifest["registered"] else "nothing"
    print(f"{model_card.one_line(decision.candidate)}: registered {where}. {manifest['why']}")
    return metrics


def register(args: Args, version: model_registry.ModelVersion) -> dict[str, Any]:
    """Add the version as the candidate, unless it is there and the champion; what the manifest says of it."""
    done = model_registry.register(version, args.registry_name)
    aliases = done.aliases
    if "champion" not in aliases:
        model_registry.set_alias(done.name, done.version, "candidate", args.registry_name)
        aliases = ("candidate",)
    why = "The verdict is promote." if done.is_new else f"The same model is already version {done.version}."
    return {"registered": True, "version": done.version, "uri": done.uri, "aliases": list(aliases), "why": why}


def tags(args: Args, decision: "Decision", manifest: dict[str, Any], training: dict[str, Any]) -> dict[str, str]:
    """Lineage that can be searched for in the registry."""
    known = {
        "model_sha256": manifest["model_sha256"],
        "source_model_sha256": manifest.get("source_model_sha256"),
        "candidate": " ".join(decision.candidate.split()),
        "verdict": decision.verdict,
        "adapters": ", ".join(manifest.get("adapters", {})),
        "decision_sha256": lineage.sha256(args.decision),
        "comparison_sha256": decision.comparison_sha256,
        "train_data_sha256": training.get("inputs", {}).get("train_data", {}).get("sha256"),
        "run_id": os.environ.get("MLFLOW_RUN_ID") or os.environ.get("AZUREML_RUN_ID"),
    }
    return {name: value for name, value in known.items() if value}


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
