"""What a registration rests on: the decision, the audit and the quantization, and that they are of this very model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from slmkit import checked_files, lineage
from slmkit.errors import UserError

NO_DECISION, OTHER_MODEL = 3, 4  # exit codes
ROUNDING = 1e-12  # of the sums in a mean
Sha256 = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]


class Read(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(allow_inf_nan=False, frozen=True)


class Reason(Read):
    rule: str
    outcome: str
    text: str


class Decision(Read):
    """What is read of a decision of gate_promotion."""

    verdict: Literal["promote", "reject", "inconclusive"]
    candidate: str
    baseline: str
    reasons: Annotated[list[Reason], pydantic.Field(min_length=1)]
    comparison_sha256: Sha256
    model_sha256: Sha256 | None = None  # absent from decisions of earlier versions
    endpoint: str | None = None
    privacy_decision_sha256: Sha256 | None = None


DecisionT = TypeVar("DecisionT", bound=Decision)


class PrivacyDecision(Read):
    """What is read of a decision of audit_privacy."""

    verdict: Literal["pass", "fail"]
    reasons_to_fail: list[str]
    handling: str = ""
    reasons: list[Reason] = []


class Change(Read):
    before: float | None  # None where it could not be measured
    after: float | None


class Speed(Read):
    decode: Change
    prefill: Change


class MetricChange(Read):
    name: str
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    num_items: int


class Quantization(Read):
    """What is read of quantization.json, in the report of quantize_model."""

    method: str
    source_model_sha256: Sha256
    model_sha256: Sha256
    passed: bool
    size_bytes: Change | None = None
    tokens_per_second: Speed | None = None
    perplexity: Change | None = None
    metric: MetricChange
    max_quality_drop: float


def read_decision(path: Path, form: type[DecisionT] = Decision, maker: str = "gate_promotion") -> DecisionT:
    try:
        found = checked_files.load(path, form, f"is it the output decision of {maker}?")
    except UserError as error:
        raise UserError(str(error), NO_DECISION) from None
    if found.verdict == "promote" and (against := [one.rule for one in found.reasons if one.outcome != "pass"]):
        raise UserError(
            f"{path}: the verdict promote contradicts its own reasons ({', '.join(against)}); run {maker} again",
            NO_DECISION,
        )
    return found


def read_privacy_decision(path: Path, decision: Decision) -> PrivacyDecision:
    """The audit that the gate saw, and no other."""
    found = checked_files.load(path, PrivacyDecision, "is it the output decision of audit_privacy?")
    if decision.privacy_decision_sha256 != lineage.sha256(path):
        raise UserError(f"{path}: not the privacy decision that the gate has seen; give it to gate_promotion")
    if found.verdict == "fail" and decision.verdict == "promote":
        raise UserError(f"{path}: the audit failed, and the verdict is promote; run gate_promotion again", NO_DECISION)
    return found


def read_quantization(report: Path, model: Path, model_sha256: str) -> Quantization:
    """The report on how this folder was made smaller; ``UserError`` unless it is of this one, and good enough."""
    found = checked_files.load(report / "quantization.json", Quantization, "is it the output report of quantize_model?")
    if not found.passed or -found.metric.difference > found.max_quality_drop + ROUNDING:
        raise UserError(f"{report}: the quantized model lost more quality than max_quality_drop; register the original")
    if found.model_sha256 != model_sha256:
        raise UserError(
            f"{model}: not the model that the quantization report is about (SHA-256 {model_sha256[:16]}, "
            f"report: {found.model_sha256[:16]})",
            OTHER_MODEL,
        )
    for output in (report, model):
        source = lineage.read(output).get("inputs", {}).get("model", {}).get("sha256")
        if source not in (None, found.source_model_sha256):
            raise UserError(f"{output}: its lineage and the report name different source models", OTHER_MODEL)
    return found


def read_comparison(path: Path, decision: Decision) -> dict[str, Any]:
    """As compare_candidates wrote it, and the gate decided on it; it names the same model as the decision does."""
    if lineage.sha256(path) != decision.comparison_sha256:
        raise UserError(f"{path}: another comparison was decided on; run gate_promotion again")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    compared = [one for one in found["candidates"] if one["name"] == decision.candidate]
    for name in lineage.ASKED:
        if not compared or compared[0].get(name, getattr(decision, name)) != getattr(decision, name):
            raise UserError(
                f"{path}: it compared another {name} as {' '.join(decision.candidate.split())} than the decision says; "
                "run gate_promotion again",
                OTHER_MODEL,
            )
    return found


def check_evaluated(decision_path: Path, decision: Decision, model: Path, model_sha256: str) -> None:
    """The model is the one that was evaluated: by what the rows said, and by lineage as far as that reaches.

    ``model_sha256`` is that of the model, or of its source where it was quantized. Where nothing says what was
    evaluated, only a model that is not to be registered gets through.
    """
    candidate = " ".join(decision.candidate.split())
    evaluated = list(evaluated_models(decision_path, decision))
    for sha256, endpoint in evaluated:
        if sha256 is None or endpoint:
            raise UserError(
                f"{model}: {candidate} was evaluated at {endpoint}, not from a folder; evaluate the folder", OTHER_MODEL
            )
        if sha256 != model_sha256:
            raise UserError(
                f"{model}: not the model that was evaluated as {candidate} (SHA-256 {model_sha256[:16]}, "
                f"evaluated: {sha256[:16]}); evaluate it before it is registered",
                OTHER_MODEL,
            )
    if decision.verdict == "promote" and not evaluated:
        raise UserError(
            f"{decision_path}: neither it nor its lineage says which model was evaluated as {candidate}; "
            "run the evaluation again",
            OTHER_MODEL,
        )


def evaluated_models(decision_path: Path, decision: Decision) -> Iterator[tuple[str | None, Any]]:
    """Hash, or None and the endpoint, of what was asked: once as the rows said it, and by each step in lineage."""
    if decision.model_sha256 or decision.endpoint:
        yield decision.model_sha256, decision.endpoint
    for step in lineage.steps_that_asked(lineage.read(decision_path), decision.candidate):
        sha256, base_sha256 = (step.get("inputs", {}).get(name, {}).get("sha256") for name in ("model", "base_model"))
        if sha256 and base_sha256:
            sha256 = lineage.adapted_sha256(sha256, base_sha256)
        yield sha256, step["parameters"].get("endpoint")
