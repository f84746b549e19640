"""Put a base and the adapters that the gate has promoted on it into one folder that one server can serve."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit import cli, lineage, lora_adapter, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
MAX_ADAPTERS = 8
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")  # a folder here, and what a request calls its model
NAME_OF_THE_BASE = "slm"  # SERVED_MODEL_NAME of the deployments
NOT_PROMOTED, INCOMPLETE = 3, 9  # exit codes
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".py")  # run code, or may, where they are loaded


@dataclass(frozen=True)
class Args:
    base_model: Path
    adapter_names: str
    adapter_1: Path
    decision_1: Path
    model: Path
    decision: Path
    adapter_2: Path | None = None
    decision_2: Path | None = None
    adapter_3: Path | None = None
    decision_3: Path | None = None
    adapter_4: Path | None = None
    decision_4: Path | None = None
    adapter_5: Path | None = None
    decision_5: Path | None = None
    adapter_6: Path | None = None
    decision_6: Path | None = None
    adapter_7: Path | None = None
    decision_7: Path | None = None
    adapter_8: Path | None = None
    decision_8: Path | None = None
    max_lora_rank: int = 64


@dataclass(frozen=True)
class Given:
    """An adapter with its name and the decision on it."""

    name: str
    adapter: Path
    decision: Path


def run(args: Args) -> dict[str, float]:
    given = read_given(args)
    check_base(args.base_model)
    for one in given:
        check(one, args)
    with records.whole_folder(args.model) as folder:
        copy(args.base_model, folder / "base")
        base_model_sha256 = lineage.sha256(folder / "base")
        entries = [copied(one, folder, base_model_sha256) for one in given]
        manifest = {"base_model_sha256": base_model_sha256, "adapters": entries}
        (folder / "adapters.json").write_text(as_json(manifest), encoding="utf-8")
        decision = as_json(combined_decision(entries, lineage.sha256(folder)))
    with records.whole_file(args.decision) as partial:
        partial.write_text(decision, encoding="utf-8")

    metrics = {"release/num_adapters": len(given)}
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    print(f"{len(given)} adapters on one base: " + ", ".join(f"{one['name']} (rank {one['r']})" for one in entries))
    return metrics


def read_given(args: Args) -> list[Given]:
    """The adapters in their order; ``UserError`` unless each has a decision and a name of its own."""
    pairs = [(i, getattr(args, f"adapter_{i}"), getattr(args, f"decision_{i}")) for i in range(1, MAX_ADAPTERS + 1)]
    for i, adapter, decision in pairs:
        if (adapter is None) != (decision is None):
            missing = "decision" if decision is None else "adapter"
            raise UserError(f"{missing}_{i} is missing: give each adapter together with the gate's decision on it")
    pairs = [pair for pair in pairs if pair[1] is not None]
    names = [name.strip() for name in args.adapter_names.split(",")]
    if len(names) != len(pairs):
        raise UserError(f"adapter_names has {len(names)} names for {len(pairs)} adapters; name each, in their order")
    for name in names:
        if not NAME.fullmatch(name) or name == NAME_OF_THE_BASE:
            raise UserError(
                f"adapter_names: {name!r}: lower-case letters, digits, '.', '_' and '-', and not "
                f"{NAME_OF_THE_BASE!r}, which is the base"
            )
        if names.count(name) > 1:
            raise UserError(f"adapter_names: {name!r} stands there twice; a request could not tell them apart")
    return [Given(name, adapter, decision) for name, (_, adapter, decision) in zip(names, pairs, strict=True)]


def check_base(base_model: Path) -> None:
    check_is_safe(base_model)
    for pattern in ("config.json", "*.safetensors", "tokenizer*"):
        if not any(base_model.glob(pattern)):
            raise UserError(f"{base_model}: no {pattern}; a whole model in Hugging Face layout is needed", INCOMPLETE)
    lora_adapter.check_has_none(base_model)


def check(one: Given, args: Args) -> None:
    """Refuse what the server should not or could not serve before anything is copied."""
    import release_evidence

    if (verdict := release_evidence.read_decision(one.decision).verdict) != "promote":
        raise UserError(f"{one.decision}: the verdict on {one.name} is {verdict}; only promote is served", NOT_PROMOTED)
    check_is_safe(one.adapter)
    adapter = lora_adapter.read(one.adapter, args.base_model)
    if adapter.r > args.max_lora_rank:
        raise UserError(
            f"{one.adapter}: rank {adapter.r}, and the server takes {args.max_lora_rank}; train {one.name} with a "
            "lower lora_r, or raise --max-lora-rank of the deployment and max_lora_rank"
        )
    lora_adapter.check_fits(adapter, args.base_model)


def check_is_safe(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; a folder in Hugging Face layout is needed", INCOMPLETE)
    if unsafe := next((file for file in lineage.files(folder) if file.suffix.lower() in UNSAFE), None):
        raise UserError(f"{unsafe}: may run code where it is loaded; save weights as safetensors, and nothing else")


def copy(source: Path, target: Path) -> None:
    """The files that are hashed and the lineage, without the rights that they have where they are mounted."""
    for file in (*lineage.files(source), source / lineage.NAME):
        if file.is_file():
            to = target / file.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)


def copied(one: Given, folder: Path, base_model_sha256: str) -> dict[str, Any]:
    """Copy an adapter and its decision; what the folder says of it, if the copy is what was evaluated on this base."""
    import release_evidence

    adapter, decided = folder / "adapters" / one.name, folder / "decisions" / f"{one.name}.json"
    copy(one.adapter, adapter)
    decided.parent.mkdir(exist_ok=True)
    shutil.copyfile(one.decision, decided)
    sha256 = lineage.sha256(adapter)
    model_sha256 = lineage.adapted_sha256(sha256, base_model_sha256)
    decision = release_evidence.read_decision(decided)
    release_evidence.check_evaluated(one.decision, decision, one.adapter, model_sha256)
    return {
        "name": one.name,
        "r": lora_adapter.read(adapter).r,
        "sha256": sha256,
        "model_sha256": model_sha256,
        "decision_sha256": lineage.sha256(decided),
        "verdict": decision.verdict,
        "candidate": decision.candidate,
        "baseline": decision.baseline,
    }


def combined_decision(entries: list[dict[str, Any]], model_sha256: str) -> dict[str, Any]:
    """The form of the gate's decision: each adapter is a rule that was passed."""
    return {
        "verdict": "promote",
        "candidate": ", ".join(one["name"] for one in entries),
        "baseline": "base",
        "model_sha256": model_sha256,
        "reasons": [
            {
                "rule": f"adapter {one['name']}",
                "outcome": "pass",
                "text": f"{one['name']} was promoted as {one['candidate']} against {one['baseline']}",
            }
            for one in entries
        ],
    }


def as_json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
