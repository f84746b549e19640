"""Autoscale as Azure Monitor does it: rules over a time window, cooldown, a count between minimum and maximum."""

import asyncio
import collections
import dataclasses
import datetime
import math
import operator
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable

import psutil

from localml.endpoints.contract import AutoscaleBody, Capacity, MetricTrigger, ScaleAction, ScaleRule
from localml.endpoints.deployment import Deployment
from localml.process import num_cores

_MAX_DECISIONS = 200
_OPERATORS = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqual": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqual": operator.le,
    "Equals": operator.eq,
    "NotEquals": operator.ne,
}
_STATISTICS = {"Average": statistics.fmean, "Min": min, "Max": max, "Sum": math.fsum}
_AGGREGATIONS = {
    "Average": statistics.fmean,
    "Minimum": min,
    "Maximum": max,
    "Total": math.fsum,
    "Last": lambda values: values[-1],
}


@dataclasses.dataclass(frozen=True)
class Decision:
    """A new instance count and what it was taken on."""

    count: int
    reason: str


class Window:
    """The values of a rule's metric, one a time grain, over its time window."""

    def __init__(self, trigger: MetricTrigger) -> None:
        self.trigger = trigger
        self._values = collections.deque(maxlen=math.ceil(trigger.time_window / trigger.time_grain))

    def add(self, value: float | None) -> None:
        """The metric in the grain that has just passed; a gap starts the window anew."""
        if value is None:
            self._values.clear()
        else:
            self._values.append(value)

    @property
    def value(self) -> float | None:
        """The aggregate over a whole window; None before one has passed."""
        if len(self._values) < self._values.maxlen:
            return None
        return _AGGREGATIONS[self.trigger.time_aggregation](self._values)


def decide(
    observed: Iterable[tuple[ScaleRule, float | None]], capacity: Capacity, count: int, seconds_since_last: float
) -> Decision | None:
    """What to do now: out if any rule for it holds, in only if every rule for it does."""
    if not capacity.minimum <= count <= capacity.maximum:
        within = min(max(count, capacity.minimum), capacity.maximum)
        return Decision(within, f"capacity is {capacity.minimum} to {capacity.maximum}")
    observed = list(observed)
    holding = [(rule, value) for rule, value in observed if _holds(rule.metric_trigger, value)]
    rested = [pair for pair in holding if seconds_since_last >= pair[0].scale_action.cooldown.total_seconds()]
    ways_out = [pair for pair in rested if pair[0].scale_action.direction == "Increase"]
    ways_in = [pair for pair in rested if pair[0].scale_action.direction == "Decrease"]
    num_decrease_rules = sum(rule.scale_action.direction == "Decrease" for rule, _ in observed)
    wanted = ways_out or (ways_in if len(ways_in) == num_decrease_rules else [])
    counts = [
        (min(max(_target(rule.scale_action, count), capacity.minimum), capacity.maximum), rule, value)
        for rule, value in wanted
    ]
    if not counts:
        return None
    target, rule, value = max(counts, key=lambda found: found[0])  # the most instances that any rule asks for
    trigger = rule.metric_trigger
    reason = f"{trigger.metric_name} {value:.4g} {trigger.operator} {trigger.threshold:g}"
    return Decision(target, reason) if target != count else None


def _holds(trigger: MetricTrigger, value: float | None) -> bool:
    return value is not None and _OPERATORS[trigger.operator](value, trigger.threshold)


def _target(action: ScaleAction, count: int) -> int:
    if action.type == "ExactCount":
        return action.value
    step = action.value if action.type == "ChangeCount" else max(1, round(count * action.value / 100))
    return count + step if action.direction == "Increase" else count - step


class Autoscale:
    """Watches a deployment and changes its instance count."""

    def __init__(self, body: AutoscaleBody, deployment: Deployment, scale: Callable[[int], Awaitable[None]]) -> None:
        self.body = body
        self._deployment, self._scale = deployment, scale
        self._profile = body.profiles[0]
        self._windows = [(rule, Window(rule.metric_trigger)) for rule in self._profile.rules]
        self._decisions: collections.deque[dict] = collections.deque(maxlen=_MAX_DECISIONS)
        self._last_action = -math.inf
        self._tasks = [asyncio.create_task(self._observe(window)) for _, window in self._windows]
        self._tasks.append(asyncio.create_task(self._act()))

    def describe(self) -> dict:
        """The rules, what they see now, and the decisions taken."""
        return {
            **self.body.model_dump(mode="json"),
            "observed": [
                {"metric_name": window.trigger.metric_name, "value": window.value} for _, window in self._windows
            ],
            "decisions": list(self._decisions),
        }

    async def stop(self) -> None:
        """Decide nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _observe(self, window: Window) -> None:
        grain = window.trigger.time_grain.total_seconds()
        cpu = CpuUtilization(self._deployment)
        while True:
            await asyncio.sleep(grain)
            name = window.trigger.metric_name
            if name == "CpuUtilizationPercentage":
                values = await asyncio.to_thread(cpu.by_instance)
                window.add(_STATISTICS[window.trigger.statistic](values) if values else None)
            elif name == "RequestsPerMinute":
                window.add(60 * self._deployment.metrics.summary(grain)["requests_per_second"])
            elif name.startswith("RequestLatency_P"):
                window.add(self._deployment.metrics.summary(grain)[f"p{name[-2:]}_milliseconds"])

    async def _act(self) -> None:
        while True:
            await asyncio.sleep(min([1.0, *(w.trigger.time_grain.total_seconds() for _, w in self._windows)]))
            count = len(self._deployment.instances)
            if not self.body.enabled or self._deployment.provisioning_state != "Succeeded":
                continue
            observed = [(rule, window.value) for rule, window in self._windows]
            decision = decide(observed, self._profile.capacity, count, time.monotonic() - self._last_action)
            if decision is None:
                continue
            self._last_action = time.monotonic()
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            change = {"from": count, "to": decision.count, "reason": decision.reason}
            self._decisions.append({"time": now, **change})
            await self._scale(decision.count)


class CpuUtilization:
    """How much of its share of the cores each instance of a deployment has used since the last question."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._before: dict[int, tuple[float, float]] = {}

    def by_instance(self) -> list[float]:
        """Percentages, of the instances that ran at the last question too."""
        now, pids = time.monotonic(), [instance.pid for instance in list(self._deployment.instances) if instance.pid]
        used = {pid: seconds for pid in pids if (seconds := _cpu_seconds(pid)) is not None}
        share = max(1, num_cores() // max(1, len(pids)))
        values = [
            100 * max(0.0, seconds - self._before[pid][1]) / ((now - self._before[pid][0]) * share)
            for pid, seconds in used.items()
            if pid in self._before
        ]
        self._before = {pid: (now, seconds) for pid, seconds in used.items()}
        return values


def _cpu_seconds(pid: int) -> float | None:
    """Of a server and the workers that it started; None where it has just ended."""
    total = 0.0
    try:
        server = psutil.Process(pid)
        for process in [server, *server.children(recursive=True)]:
            times = process.cpu_times()
            total += times.user + times.system
    except psutil.Error:
        return None
    return total
