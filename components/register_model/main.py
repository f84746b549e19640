"""Register a model that the gate has promoted, with its lineage and a model card."""

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import model_registry

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")  # what both Azure ML and MLflow take


@dataclass(frozen=True)
class Args:
    model: Path
    decision: Path
    registered_model_name: str
    manifest: Path
    model_card: Path
    comparison: Path | None = None


def run(args: Args) -> dict[str, float]:
    import model_card

    if not NAME.fullmatch(args.registered_model_name):
        raise UserError(
            f"registered_model_name {args.registered_model_name!r}: letters, digits, '.', '_' and '-' only, "
            "beginning with a letter or digit"
        )
    model_card.architecture(args.model)
    decision = read_json(args.decision, "verdict", "candidate", "baseline", "reasons", "comparison_sha256")
    comparison = read_json(args.comparison, "candidates", "comparisons") if args.comparison else None
    sha256 = lineage.sha256(args.model)
    check_same(args, decision, sha256)

    manifest: dict[str, Any] = {
        "registered": False,
        "name": args.registered_model_name,
        "version": None,
        "uri": None,
        "model_sha256": sha256,
        "why": f"The verdict is {decision['verdict']}.",
    }
    if decision["verdict"] == "promote":
        version = model_registry.ModelVersion(
            name=args.registered_model_name,
            path=args.model,
            description=model_card.summary(decision),
            tags=tags(args, decision, sha256),
        )
        done = model_registry.register(version)
        why = "The verdict is promote." if done.is_new else f"The same model is already version {done.version}."
        manifest |= {"registered": True, "version": done.version, "uri": done.uri, "why": why}

    card = model_card.render(args.registered_model_name, args.model, manifest, decision, comparison)
    for path, text in (
        (args.manifest, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"),
        (args.model_card, card),
    ):
        with records.whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder, "MODEL_CARD.md")
        named.write_text(card, encoding="utf-8")
        tracking.log_artifact(named)
    metrics = {"release/registered": float(manifest["registered"])}
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    where = f"as {manifest['uri']}" if manifest["registered"] else "nothing"
    print(f"{decision['candidate']}: registered {where}. {manifest['why']}")
    return metrics


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    missing = [key for key in keys if not isinstance(content, dict) or not content.get(key)]
    if missing:
        raise UserError(f"{path}: no {', '.join(missing)}; is it the output of the right component?")
    return content


def check_same(args: Args, decision: dict[str, Any], model_sha256: str) -> None:
    """The decision must be about this comparison and, as far as lineage reaches, about this model."""
    if args.comparison and lineage.sha256(args.comparison) != decision["comparison_sha256"]:
        raise UserError(
            f"{args.decision}: decided on another comparison than {args.comparison}; run gate_promotion again"
        )
    candidate = decision["candidate"]
    for step in lineage.steps_that_asked(lineage.read(args.decision), candidate):
        evaluated = step.get("inputs", {}).get("model", {}).get("sha256")
        if evaluated is None:
            where = step["parameters"].get("endpoint")
            raise UserError(
                f"{args.model}: {candidate} was evaluated at {where}, not from a folder; evaluate the folder"
            )
        if evaluated != model_sha256:
            raise UserError(
                f"{args.model}: not the model that was evaluated as {candidate} (SHA-256 {model_sha256[:16]}, "
                f"evaluated: {evaluated[:16]}); evaluate it before it is registered"
            )


def tags(args: Args, decision: dict[str, Any], model_sha256: str) -> dict[str, str]:
    """Lineage that can be searched for in the registry."""
    known = {
        "model_sha256": model_sha256,
        "candidate": decision["candidate"],
        "verdict": decision["verdict"],
        "decision_sha256": lineage.sha256(args.decision),
        "comparison_sha256": decision["comparison_sha256"],
        "train_data_sha256": lineage.read(args.model).get("inputs", {}).get("train_data", {}).get("sha256"),
        "run_id": os.environ.get("MLFLOW_RUN_ID") or os.environ.get("AZUREML_RUN_ID"),
    }
    return {name: value for name, value in known.items() if value}


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
