"""The verdict of a privacy audit as a rule of promotion, and whether the audit was of the candidate's data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from promotion_rules import Reason

from slmkit import checked_files, lineage

WIRING = "wire the output decision of audit_privacy to the input privacy_decision of gate_promotion"


class PrivacyDecision(pydantic.BaseModel):
    """What a gate reads of a decision of audit_privacy."""

    verdict: Literal["pass", "fail"]
    reasons_to_fail: list[str]
    synthetic_data_sha256: Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]


def judge(asked: str, decision_path: Path | None, comparison_path: Path, candidate: str) -> Iterator[Reason]:
    """Nothing where no audit is given and none is required."""
    if decision_path is None:
        if asked == "required":
            yield of_verdict(False, f"the policy requires a privacy verdict, and none was given; {WIRING}")
        return
    decision = checked_files.load(decision_path, PrivacyDecision, "is it the output decision of audit_privacy?")
    if decision.verdict == "fail":
        yield of_verdict(False, f"the audit failed: {' '.join(decision.reasons_to_fail) or 'it gives no reason'}")
        return
    audited = decision.synthetic_data_sha256
    trained_on = list(training_data(lineage.read(comparison_path), candidate))
    if trained_on and all(audited in hashes(entry) for entry in trained_on):
        yield of_verdict(True, "the audit passed, of data that stand in the lineage of what was trained on")
    elif any("lineage" in entry for entry in trained_on):
        text = f"the audit passed, but of other data (SHA-256 {audited[:16]}) than the training data were made from"
        yield of_verdict(False, f"{text}; audit those")
    else:
        text = "the audit passed; not checked: that it was of the candidate's training data, which the lineage of the "
        yield of_verdict(True, f"{text}comparison does not reach")


def of_verdict(holds: bool, text: str) -> Reason:
    return Reason(rule="privacy_verdict", outcome="pass" if holds else "fail", text=text)


def training_data(compared: dict[str, Any], candidate: str) -> Iterator[dict[str, Any]]:
    """What the candidate was trained on last, by each step that asked it; not the baseline, nor another candidate."""
    for step in lineage.steps_that_asked(compared, candidate):
        yield from last_training_data(step.get("inputs", {}).get("model", {}).get("lineage", {}))


def last_training_data(made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of the last fine-tuning and what followed it; what its base model was trained on was audited in its own time."""
    inputs = made.get("inputs", {})
    yield from (inputs[port] for port in ("train_data", "train_preferences") if port in inputs)
    if "train_data" not in inputs:
        for port in {"model", "base_model"} & inputs.keys():
            yield from last_training_data(inputs[port].get("lineage", {}))


def hashes(made_from: dict[str, Any]) -> Iterator[str]:
    yield made_from.get("sha256", "")
    for earlier in made_from.get("lineage", {}).get("inputs", {}).values():
        yield from hashes(earlier)
