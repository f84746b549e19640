"""What a sweep node asks for: its trials with their parameters, the metric that ranks them, and when to end."""

import dataclasses
import math
import re
from typing import Any

from localml import early_termination, search_space
from localml.errors import RunError
from localml.ports import Literal, checked

# Azure ML has no field for a goal but keeps the tags of a node, so one file serves both.
GOAL_TAG = "stop_when"
_GOAL = re.compile(r"\s*(\S+)\s*(<=|>=)\s*(\S+)\s*")


@dataclasses.dataclass(frozen=True)
class Plan:
    """``trials`` are the values of the swept inputs; ``target`` is the value of the metric that is good enough."""

    trials: list[dict[str, Literal]]
    metric: str
    minimize: bool
    policy: Any  # one of the policies of azure.ai.ml.sweep, or None
    target: float | None
    max_concurrent: int | None
    timeout: float | None
    trial_timeout: float | None
    notes: list[str]

    @property
    def identity(self) -> dict[str, Any]:
        """What the result depends on."""
        return {
            "trials": [{name: literal.value for name, literal in trial.items()} for trial in self.trials],
            "objective": [self.metric, self.minimize, self.target],
            "early_termination": vars(self.policy) if self.policy else None,
        }

    def is_better(self, value: float, other: float) -> bool:
        """Whether one value of the metric is better than another; one that is not a number is worse than any."""
        if math.isnan(value) or math.isnan(other):
            return math.isnan(other) and not math.isnan(value)
        return value < other if self.minimize else value > other

    def meets_target(self, value: float) -> bool:
        """Whether a trial with this value is good enough to end the sweep."""
        return self.target is not None and not math.isnan(value) and not self.is_better(self.target, value)


def read(where: str, node: Any) -> Plan:
    """The plan of a sweep node; raises ``RunError`` for what Azure ML would find only when the trials run."""
    objective, limits, ports = node.objective, node.limits, node.trial.inputs
    if objective is None or not objective.primary_metric:
        raise RunError(f"{where}.objective: needs a primary_metric")
    space = node.search_space or {}
    for name in space:
        if name not in ports:
            raise RunError(f"{where}.search_space: the trial has no input {name!r}; it has: {', '.join(ports)}")
        if name in node.inputs and node.inputs[name]._data is not None:
            raise RunError(f"{where}.inputs.{name}: is in search_space too; give it once")
    drawn, notes = search_space.draw(where, space, node.sampling_algorithm, getattr(limits, "max_total_trials", None))
    trials = [
        {name: _literal(f"{where}.search_space.{name}", ports[name], value) for name, value in trial.items()}
        for trial in drawn
    ]
    early_termination.check(f"{where}.early_termination", node.early_termination)
    minimize = str(objective.goal).lower() == "minimize"
    concurrent = getattr(limits, "max_concurrent_trials", None)
    if concurrent is not None and concurrent < 1:
        raise RunError(f"{where}.limits.max_concurrent_trials: {concurrent} is below 1")
    return Plan(
        trials=trials,
        metric=objective.primary_metric,
        minimize=minimize,
        policy=node.early_termination,
        target=_target(where, (node.tags or {}).get(GOAL_TAG), objective.primary_metric, minimize),
        max_concurrent=concurrent,
        timeout=getattr(limits, "timeout", None),
        trial_timeout=getattr(limits, "trial_timeout", None),
        notes=notes,
    )


def _literal(where: str, port: Any, value: Any) -> Literal:
    """A drawn value as its port takes it: a whole number that was drawn as 8.0 is an integer."""
    if port.type == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    literal = checked(where, port, Literal(value))
    if not isinstance(literal, Literal):
        raise RunError(f"{where}: the input is a {port.type}; only numbers, texts and booleans can be swept")
    return literal


def _target(where: str, goal: str | None, metric: str, minimize: bool) -> float | None:
    """``eval/loss <= 0.8`` as the number that must be reached."""
    if goal is None:
        return None
    match, sign = _GOAL.fullmatch(str(goal)), "<=" if minimize else ">="
    try:
        if match and match[1] == metric and match[2] == sign and math.isfinite(target := float(match[3])):
            return target
    except ValueError:
        pass
    raise RunError(f"{where}.tags.{GOAL_TAG}: cannot read {goal!r}; expected '{metric} {sign} NUMBER'")
