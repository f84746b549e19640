"""Rules for how many instances and nodes there may be, and when that changes."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lint_rules.documents import Document
from lint_rules.rule import Found, is_count, rule

BOUNDS = (("min_instances", "max_instances"), ("min_nodes", "max_nodes"), ("min_node_count", "max_node_count"))
METRICS = Literal[
    "CpuMemoryUtilizationPercentage",
    "CpuUtilizationPercentage",
    "DiskUtilization",
    "GpuMemoryUtilizationPercentage",
    "GpuUtilizationPercentage",
    "RequestLatency_P50",
    "RequestLatency_P90",
    "RequestLatency_P95",
    "RequestLatency_P99",
    "RequestsPerMinute",
]
Grain = Annotated[timedelta, Field(ge=timedelta(minutes=1), le=timedelta(hours=12))]
Window = Annotated[timedelta, Field(ge=timedelta(minutes=5), le=timedelta(hours=12))]
Cooldown = Annotated[timedelta, Field(ge=timedelta(minutes=1), le=timedelta(weeks=1))]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Trigger(Strict):
    """`MetricTrigger` of Azure Monitor; the deployment that it watches is filled in."""

    metric_name: METRICS
    time_grain: Grain
    statistic: Literal["Average", "Min", "Max", "Sum", "Count"]
    time_window: Window
    time_aggregation: Literal["Average", "Minimum", "Maximum", "Total", "Count", "Last"]
    operator: Literal["Equals", "NotEquals", "GreaterThan", "GreaterThanOrEqual", "LessThan", "LessThanOrEqual"]
    threshold: float = Field(allow_inf_nan=False)


class Action(Strict):
    direction: Literal["Increase", "Decrease"]
    type: Literal["ChangeCount", "PercentChangeCount", "ExactCount"]
    value: int = Field(ge=1)
    cooldown: Cooldown


class ScaleRule(Strict):
    metric_trigger: Trigger
    scale_action: Action


class Capacity(Strict):
    minimum: int = Field(ge=1)
    maximum: int = Field(ge=1)
    default: int = Field(ge=1)


class Profile(Strict):
    name: str
    capacity: Capacity
    rules: list[ScaleRule] = Field(max_length=10)


class Autoscale(Strict):
    profiles: list[Profile] = Field(min_length=1, max_length=20)


@rule("autoscale")
def autoscale(document: Document) -> Found:
    """autoscale rules that Azure Monitor does not take, or that scale up and down in turns"""
    try:
        settings = Autoscale.model_validate(document.content)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            yield found["loc"], f"{'.'.join(map(str, found['loc']))}: {found['msg']}; see specs/*/autoscale.yml"
        return
    for index, profile in enumerate(settings.profiles):
        ups = [rule.metric_trigger for rule in profile.rules if rule.scale_action.direction == "Increase"]
        downs = [rule.metric_trigger for rule in profile.rules if rule.scale_action.direction == "Decrease"]
        for up, down in ((up, down) for up in ups for down in downs if up.metric_name == down.metric_name):
            if down.threshold >= up.threshold:
                yield (
                    ("profiles", index, "rules"),
                    f"{up.metric_name} scales out above {up.threshold:g} and in below {down.threshold:g}, in turns; "
                    "leave room between the two",
                )


@rule()
def max_below_min(document: Document) -> Found:
    """a smallest number of nodes or instances above the largest"""
    for where, value in document.everything():
        if not isinstance(value, dict):
            continue
        bounds = [*BOUNDS, *([("minimum", "maximum")] if where and where[-1] == "capacity" else [])]
        for low, high in bounds:
            least, most = value.get(low, 0), value.get(high)
            if is_count(least) and is_count(most) and most < max(least, 1):
                yield (*where, high), f"{high} {most} is below {low} {least} or below 1; raise it or lower {low}"
            if is_count(least) and least < 0:
                yield (*where, low), f"{low} is {least}; write 0 or more"
        least, usual, most = (value.get(key) for key in ("minimum", "default", "maximum"))
        if all(map(is_count, (least, usual, most))) and least <= most and not least <= usual <= most:
            yield (*where, "default"), f"default {usual} is outside {least} to {most}; write one inside"
