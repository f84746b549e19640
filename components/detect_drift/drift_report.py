"""The report of a run as one self-contained page: the decision, each signal over time, slices, examples and words."""

import functools
from pathlib import Path
from typing import Any

import changed_canaries
import drift_figures
import drift_policy
import drift_timelines
import jinja2
import report_charts
import telling_terms
import traffic_conversations
from drift_history import Line
from drift_settings import Policy
from drift_signal import Effect, Signal
from drift_snapshot import Snapshot

MAX_CHARACTERS = 900
MAX_REASON = 240  # of one in the headline; its signal says all of it
MAX_SLICES = 40
MAX_QUESTIONS = 5000  # whose words are counted
ACTIONS = {
    "retrain": "Retrain the model",
    "rollback": "Roll back the last deployment",
    "alert": "Someone has to look",
    "none": "Nothing to do",
}
VERDICTS = {"drift": "drift", "none": "no drift", "insufficient": "not enough to judge", "no_data": "no data"}
ASKS = {
    "llm_drift": "Does the model still answer the canary questions as well as it did?",
    "prompt_drift": "Do the same prompts still get such answers as before?",
    "prompt_sensitivity": "Does the wording of a prompt change its answer more than it used to?",
    "input_drift": "Do users ask other things than before?",
    "service_drift": "Are answers slower, longer, dearer or failing more often?",
}


def render(
    drift: dict[str, Any],
    decision: dict[str, Any],
    signals: list[Signal],
    lines: list[Line],
    baseline: Snapshot | None,
    current: Snapshot,
    policy: Policy,
) -> str:
    """``lines`` are the history with this run as its last one."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(report_charts.__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "title_of": drift_figures.title,
        "label": drift_policy.label,
        "slice_title": drift_figures.slice_title,
        "value": drift_figures.value,
        "change": drift_figures.change,
        "span": drift_figures.span,
        "p_value": drift_figures.p_value,
        "has_plot": drift_figures.has_plot,
        "shorten": functools.partial(shorten, most=MAX_CHARACTERS),
        "brief": functools.partial(shorten, most=MAX_REASON),
        "cut": functools.partial(shorten, most=24),
    }
    return environment.get_template("drift_report.html.j2").render(
        drift=drift,
        decision=decision,
        headline=headline(decision),
        cards=[card(signal, lines) for signal in signals],
        grid=drift_timelines.grid(lines),
        several=len(lines) > 1,
        now=current.manifest,
        then=baseline and baseline.manifest,
        changed=changed_canaries.changed_canaries(baseline, current) if baseline else None,
        words=words(baseline, current) if baseline else None,
        verdicts=VERDICTS,
        policy=policy,
    )


def headline(decision: dict[str, Any]) -> str:
    """What to do and because of which signals, in one sentence; its reasons stand below."""
    if decision["action"] == "none":
        if not decision["look"]:
            return "The baseline is set: later windows are compared with this one"
        if "drift" in decision["signals"].values():
            return "Drift is seen, and nothing is done yet"
        judged = any(verdict == "none" for verdict in decision["signals"].values())
        return "No drift: nothing to do" if judged else "Nothing could be judged in this window"
    causes = drift_policy.listed([drift_policy.words(name) for name in decision["caused_by"]])
    after = f" after the rollout of {decision['deployment']}" if decision["action"] == "rollback" else ""
    return f"{ACTIONS[decision['action']]}: {causes}{after}"


def card(signal: Signal, lines: list[Line]) -> dict[str, Any]:
    """A signal with its effects, those over all before those of slices, each on the axis of its name."""
    axes = {
        name: drift_figures.Axis([effect for effect in signal.effects if effect.name == name])
        for name in {effect.name for effect in signal.effects}
    }
    slices = sorted((effect for effect in signal.effects if effect.slice), key=lambda one: (not one.drift, one.slice))
    return {
        "signal": signal,
        "asks": ASKS[signal.name],
        "first": first_effect(signal),
        "axes": axes,
        "effects": [effect for effect in signal.effects if not effect.slice],
        "slices": slices[:MAX_SLICES],
        "charts": drift_timelines.charts(lines, signal.name),
    }


def first_effect(signal: Signal) -> Effect | None:
    """What stands for the signal at a glance: its first drifting effect over all, or else its first one."""
    known = [effect for effect in signal.effects if not effect.slice and effect.current is not None]
    return next((effect for effect in known if effect.drift), known[0] if known else None)


def words(baseline: Snapshot, current: Snapshot) -> dict[str, list[telling_terms.Term]] | None:
    """The words of users' questions that became more and less frequent."""
    if not (baseline.traffic and current.traffic):
        return None
    num_rows = min(len(baseline.traffic), len(current.traffic), MAX_QUESTIONS)
    found = traffic_conversations.distinct(baseline.traffic, current.traffic, num_rows, seed=0)
    more, less = telling_terms.telling_terms(list(map(traffic_conversations.question, found.rows)), found.labels)
    return {"more": more, "less": less} if more or less else None


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " …"
