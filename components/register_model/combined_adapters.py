"""A folder of combine_adapters: a base and adapters, each with the decision on it, verified again by their hashes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic
from release_evidence import OTHER_MODEL, Decision, Read, Sha256, read_decision

from slmkit import checked_files, lineage
from slmkit.errors import UserError

MANIFEST = "adapters.json"


class CombinedDecision(Decision):
    """The decision that combine_adapters writes: no comparison is of the folder as a whole."""

    comparison_sha256: None = None
    model_sha256: Sha256


class Entry(Read):
    name: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]  # of a folder below adapters/
    sha256: Sha256
    decision_sha256: Sha256


class Manifest(Read):
    base_model_sha256: Sha256
    adapters: Annotated[list[Entry], pydantic.Field(min_length=1)]


@dataclass(frozen=True)
class Adapter:
    """An adapter with the gate's decision on it, for the model card."""

    name: str
    sha256: str
    decision: Decision
    decision_sha256: str
    made: dict[str, Any]  # its lineage


def are_in(model: Path) -> bool:
    return (model / "base").is_dir() and (model / "adapters").is_dir()


def read(model: Path, sha256: str, decision_path: Path) -> tuple[CombinedDecision, list[Adapter]]:
    """The decision and the adapters; ``UserError`` unless every hash is as they say and every adapter was promoted."""
    decision = read_decision(decision_path, CombinedDecision, "combine_adapters")
    if decision.model_sha256 != sha256:
        raise UserError(
            f"{model}: not the folder that was decided on (SHA-256 {sha256[:16]}, decision: "
            f"{decision.model_sha256[:16]}); register what combine_adapters wrote, with its decision",
            OTHER_MODEL,
        )
    manifest = checked_files.load(model / MANIFEST, Manifest, "is it the output model of combine_adapters?")
    there = sorted(path.name for path in (model / "adapters").iterdir())
    if there != sorted(entry.name for entry in manifest.adapters):
        raise UserError(f"{model}: {MANIFEST} names other adapters than are there; run combine_adapters", OTHER_MODEL)
    check(model / "base", manifest.base_model_sha256)
    return decision, [adapter(model, entry, manifest.base_model_sha256) for entry in manifest.adapters]


def adapter(model: Path, entry: Entry, base_model_sha256: str) -> Adapter:
    """The adapter, if the decision on it is promote, and of this adapter on this base."""
    folder, decided = model / "adapters" / entry.name, model / "decisions" / f"{entry.name}.json"
    check(folder, entry.sha256)
    check(decided, entry.decision_sha256)
    decision = read_decision(decided)
    if decision.verdict != "promote":
        raise UserError(f"{decided}: the verdict is {decision.verdict}; run combine_adapters without it", OTHER_MODEL)
    if decision.model_sha256 != lineage.adapted_sha256(entry.sha256, base_model_sha256):
        raise UserError(f"{decided}: not of this adapter on this base; run combine_adapters", OTHER_MODEL)
    return Adapter(entry.name, entry.sha256, decision, entry.decision_sha256, lineage.read(folder))


def check(path: Path, sha256: str) -> None:
    if not path.exists() or lineage.sha256(path) != sha256:
        raise UserError(f"{path}: not what {MANIFEST} says; run combine_adapters", OTHER_MODEL)
