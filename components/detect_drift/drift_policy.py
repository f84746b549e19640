"""What follows from the signals of a window and those before it, by the policy: retrain, rollback, alert or none."""

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from drift_history import Line
from drift_settings import Policy, SignalSettings
from drift_signal import Effect, Signal

ACTIONS = ("rollback", "retrain", "alert", "none")  # the first that is wanted is taken
SIGNALS = ("llm_drift", "prompt_drift", "prompt_sensitivity", "input_drift", "service_drift")
NO_BASELINE = "This window becomes the baseline; there is none to compare with yet."
JUDGED = ("drift", "none")


@dataclass
class Wanted:
    """Which signals want what, and all that there is to say of it."""

    by: dict[str, list[str]] = field(default_factory=dict)
    reasons: list[tuple[str, str]] = field(default_factory=list)  # a signal, and a sentence on it

    def add(self, action: str, signal: str, reason: str) -> None:
        self.by.setdefault(action, []).append(signal)
        self.reasons.append((signal, reason))

    def said(self, caused_by: Collection[str]) -> list[str]:
        """The reasons, those of the signals that caused the action first."""
        return [reason for _, reason in sorted(self.reasons, key=lambda one: one[0] not in caused_by)]


def decide(
    policy: Policy,
    signals: list[Signal],
    past: list[Line],
    baseline_id: str,
    baseline: dict[str, Any] | None,
    served: dict[str, str | None],
) -> dict[str, Any]:
    """The decision, less its id; ``served`` says who answers now, ``baseline`` (a manifest) who did then."""
    of_baseline = [line for line in past if line.baseline_id == baseline_id and line.look]
    wanted = Wanted()
    first, now = identity(baseline or {}), identity(served)
    if now != first or None in now:  # those who answered at the baseline are not what a rollout broke
        _roll_back(policy, signals, [line.served for line in past] or [first], now, wanted)
    for signal in signals:
        settings: SignalSettings = getattr(policy, signal.name)
        if signal.verdict == "drift":
            _act(settings, signal, verdicts(signal.name, of_baseline), wanted)
        elif signal.verdict not in JUDGED:
            _say_blind(policy, signal, of_baseline, wanted)
    num_left = _hold_back(policy, past, wanted)
    action = next((action for action in ACTIONS if action in wanted.by), "none")
    caused_by = [] if action == "none" else [name for name in SIGNALS if name in wanted.by[action]]
    return {
        "action": action,
        "reasons": [*wanted.said(caused_by), *(_closing(signals) if baseline else [NO_BASELINE])],
        "caused_by": caused_by,
        "signals": {signal.name: signal.verdict for signal in signals},
        "consecutive": {signal.name: consecutive(signal, of_baseline) for signal in signals},
        "budget": {"retrains_left": num_left - (action == "retrain")},
    }


def identified(decision: dict[str, Any]) -> dict[str, Any]:
    """The decision under its id, the hash of all that it says; trigger_retraining holds it to that."""
    text = json.dumps(decision, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {"decision_id": hashlib.sha256(text.encode()).hexdigest(), **decision}


def verdicts(name: str, lines: Iterable[Line]) -> list[str]:
    """A signal's verdicts in the windows that it was judged in; the others say nothing of it."""
    found = [line.signals[name].verdict for line in lines if name in line.signals]
    return [verdict for verdict in found if verdict in JUDGED]


def consecutive(signal: Signal, lines: list[Line]) -> int:
    """In how many windows with a verdict, up to this one, the signal has drifted without a break."""
    judged = [*verdicts(signal.name, lines), *([signal.verdict] if signal.verdict in JUDGED else [])]
    return next((i for i, verdict in enumerate(reversed(judged)) if verdict != "drift"), len(judged))


def _act(settings: SignalSettings, signal: Signal, before: list[str], wanted: Wanted) -> None:
    recent = [*before, signal.verdict][-settings.num_windows :]
    count = f"{label(signal.name)} in {recent.count('drift')} of its last {len(recent)} windows"
    why = f": {signal.reasons[0]}" if signal.reasons else "."
    if recent.count("drift") < settings.num_drift_windows:
        needed = f"{settings.num_drift_windows} of {settings.num_windows} are asked for before anything is done"
        wanted.add("none", signal.name, f"{count}, {needed}{why}")
    else:
        wanted.add(settings.action, signal.name, f"{count}{why}")


def _roll_back(
    policy: Policy, signals: list[Signal], earlier: list[tuple], now: tuple[str | None, ...], wanted: Wanted
) -> None:
    """An accuracy far below the baseline's right after a rollout says that the rollout did it."""
    accuracy = overall(signals, "llm_drift", "accuracy")
    if policy.rollback is None or accuracy is None or accuracy.change is None or accuracy.high is None:
        return
    since = windows_since_rollout(earlier, now)
    if since is None or since > policy.rollback.num_windows:
        return
    if accuracy.change <= -policy.rollback.min_accuracy_drop and accuracy.high < 0:
        when = "in the first window" if since == 1 else f"{since} windows"
        wanted.add(
            "rollback",
            "llm_drift",
            f"Accuracy is {-100 * accuracy.change:.1f} points below the baseline's {when} after another deployment or "
            f"model began to answer (now {now[0] or 'of unknown name'}).",
        )


def identity(served: dict[str, str | None]) -> tuple[str | None, ...]:
    return served.get("deployment"), served.get("model_sha256")


def windows_since_rollout(earlier: list[tuple], now: tuple[str | None, ...]) -> int | None:
    """1 in the first window after the deployment or its model changed; None where no change is known."""
    return next((since for since, before in enumerate(reversed(earlier), start=1) if changed(before, now)), None)


def changed(before: tuple[str | None, ...], now: tuple[str | None, ...]) -> bool:
    return any(old and new and old != new for old, new in zip(before, now, strict=True))


def overall(signals: Iterable[Signal], signal_name: str, effect_name: str) -> Effect | None:
    effects = [effect for signal in signals if signal.name == signal_name for effect in signal.effects]
    return next((effect for effect in effects if effect.name == effect_name and effect.slice is None), None)


def _say_blind(policy: Policy, signal: Signal, lines: list[Line], wanted: Wanted) -> None:
    """A signal that was judged once and then, window after window, is not."""
    found = [line.signals[signal.name].verdict for line in lines if signal.name in line.signals]
    streak = 1 + next((i for i, verdict in enumerate(reversed(found)) if verdict in JUDGED), len(found))
    if streak >= policy.max_insufficient_windows and any(verdict in JUDGED for verdict in found):
        wanted.add("alert", signal.name, f"{label(signal.name)} could not be judged in {streak} windows in a row.")


def _hold_back(policy: Policy, past: list[Line], wanted: Wanted) -> int:
    """Take back a retraining within the cooldown or beyond the budget; how many retrainings are left."""
    budget = policy.retrain_budget
    recent = past[-(budget.num_windows - 1) :] if budget.num_windows > 1 else []
    num_left = max(0, budget.num_retrains - sum(line.action == "retrain" for line in recent))
    if "retrain" not in wanted.by:
        return num_left
    since = next((i for i, line in enumerate(reversed(past), start=1) if line.action == "retrain"), None)
    if since is not None and since <= policy.cooldown_windows:
        signals = wanted.by.pop("retrain")
        wanted.by.setdefault("none", []).extend(signals)
        ago = "in the last window" if since == 1 else f"{since} windows ago"
        said = f"one was decided {ago}, and the policy waits for {policy.cooldown_windows} windows."
        wanted.reasons.append((signals[-1], f"No further retraining: {said}"))
    elif not num_left:
        signals = wanted.by.pop("retrain")
        wanted.by.setdefault("alert", []).extend(signals)
        used_up = f"The budget of {budget.num_retrains} retrainings in {budget.num_windows} windows is used up"
        wanted.reasons.append((signals[-1], f"{used_up}: an alert in place of another one; someone has to look."))
    return num_left


def _closing(signals: list[Signal]) -> list[str]:
    """What is to be said where nothing is done: quiet and blind are not the same."""
    unjudged = [words(signal.name) for signal in signals if signal.verdict not in JUDGED]
    quiet = [words(signal.name) for signal in signals if signal.verdict == "none"]
    said = []
    if quiet and not any(signal.verdict == "drift" for signal in signals):
        said.append(f"No drift is seen in {listed(quiet)}.")
    if unjudged and len(unjudged) == len(signals):
        said.append("Nothing could be judged in this window; that is not the same as no drift.")
    elif unjudged:
        said.append(f"Not judged: {listed(unjudged)}.")
    return said


def words(name: str) -> str:
    return name.replace("llm", "LLM").replace("_", " ")


def label(name: str) -> str:
    """The same at the beginning of a sentence."""
    said = words(name)
    return said[:1].upper() + said[1:]


def listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
