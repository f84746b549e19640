"""The decision of detect_drift, read with distrust: its id has to be the hash of its content."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal, NoReturn

import pydantic

from slmkit import checked_files
from slmkit.errors import UserError

EXIT_CODE = 3
MAX_BYTES = 2**20  # the decision of a monitor with hundreds of reasons has a tenth of that
ACTIONS = ("retrain", "rollback", "alert")
# The events that workflows listen for, the gravest first.
EVENTS = {
    "llm_drift": "llm-drift",
    "prompt_drift": "prompt-drift",
    "prompt_sensitivity": "prompt-drift",
    "input_drift": "data-drift",
}


class Decision(pydantic.BaseModel):
    """What is read of a decision; whatever else stands in it is part of its id."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True, strict=True)

    decision_id: str
    action: Literal["retrain", "rollback", "alert", "none"]
    reasons: list[str]
    signals: dict[str, Literal["drift", "none", "insufficient", "no_data"]]

    @property
    def job_name(self) -> str:
        """One name a decision, so that no service takes a second job for it."""
        return f"retrain-{self.decision_id[:12]}"

    @property
    def event_type(self) -> str:
        """The event that a workflow listens for."""
        if self.action != "retrain":
            return self.action
        found = (event for signal, event in EVENTS.items() if self.signals.get(signal) == "drift")
        if event := next(found, None):
            return event
        raise UserError(f"no signal of {', '.join(EVENTS)} drifts: give event_type", EXIT_CODE)


def read(path: Path) -> Decision:
    """Raises ``UserError`` for what is no decision, and for one that was changed after it was made."""
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES:,} bytes; give the decision of detect_drift", EXIT_CODE)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        decision = checked_files.load(path, Decision, "is it the decision of detect_drift?")
        expected = content_id(content)
    except UserError as error:
        raise UserError(str(error), EXIT_CODE) from None
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path}: not the JSON of a decision: {error}; give that of detect_drift", EXIT_CODE) from None
    if decision.decision_id != expected:
        raise UserError(
            f"{path}: decision_id {decision.decision_id[:12]!r} is not that of its content ({expected[:12]}): it was "
            "changed after detect_drift made it; give the original",
            EXIT_CODE,
        )
    return decision


def content_id(content: dict[str, Any]) -> str:
    """The SHA-256 of all but the id itself, in the one spelling that detect_drift hashes, too."""
    rest = {key: value for key, value in content.items() if key != "decision_id"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def chosen_actions(text: str) -> set[str]:
    """The actions that are acted on, from a list separated by commas."""
    actions = set(re.split(r"\s*,\s*", text.strip()))
    if unknown := actions - set(ACTIONS):
        raise UserError(f"actions: {sorted(unknown)[0]!r:.40} is not one of {', '.join(ACTIONS)}")
    return actions


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
