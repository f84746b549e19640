"""Rules for Azure ML's own model monitors: signals that can fire, on windows that do not overlap."""

import re
from collections.abc import Iterator
from typing import Any

from lint_rules.documents import Document
from lint_rules.rule import Found, rule
from slmkit.checked_files import Location

SIGNALS = ("create_monitor", "monitoring_signals")
DAYS = re.compile(r"P(?:(?P<days>\d{1,4})D|(?P<weeks>\d{1,3})W)")
RATE = ("rate", "distance", "test", "gain", "accuracy", "precision", "recall", "f1_score")  # names of what is at most 1
UNBOUNDED = ("wasserstein", "token_count", "per_instance")


@rule("schedule")
def monitor_signals(document: Document) -> Found:
    """a monitor that watches nothing, a signal that Azure ML does not have or that can never fire"""
    if not document.mapping("create_monitor"):
        return
    if not document.mapping(*SIGNALS):
        yield SIGNALS, "no signal is watched; write at least one"
    if not document.mapping("create_monitor", "monitoring_target"):
        yield ("create_monitor",), "no monitoring_target; name endpoint_deployment_id or model_id"
    for name, signal in document.mapping(*SIGNALS).items():
        if not isinstance(signal, dict):
            continue
        known = _signal_types()
        if str(signal.get("type")).lower() not in known:
            yield (*SIGNALS, name, "type"), f"{signal.get('type')!r:.60}; write one of {', '.join(sorted(known))}"
        thresholds = list(_numbers(signal.get("metric_thresholds"), (*SIGNALS, name, "metric_thresholds")))
        if signal.get("alert_enabled") and not thresholds and signal.get("type") != "custom":
            yield (*SIGNALS, name), "alert_enabled without metric_thresholds; write what it has to exceed"
        for where, value in thresholds:
            if value < 0 or (value > 1 and _is_rate(str(where[-1]))):
                yield where, f"{value!r:.40}; write a number from 0" + (" to 1" if value > 1 else "")
        rate = signal.get("sampling_rate")
        if isinstance(rate, int | float) and not 0 < rate <= 1:
            yield (*SIGNALS, name, "sampling_rate"), f"{rate!r:.40}; write a share above 0, at most 1"


@rule("schedule")
def monitor_windows(document: Document) -> Found:
    """a window of a monitor that is no number of days, or a baseline that holds what is compared with it"""
    for where, value in document.everything():
        is_window = where and str(where[-1]).startswith("lookback_window") and where[:1] == SIGNALS[:1]
        if is_window and not DAYS.fullmatch(str(value)):
            yield where, f"{value!r:.40} is no number of days; write P7D"
    for name in document.mapping(*SIGNALS):
        now, before = (document.mapping(*SIGNALS, name, side) for side in ("production_data", "reference_data"))
        if not now or now.get("input_data") != before.get("input_data"):
            continue
        end, start = _days(before, "offset"), _days(now, "size")
        if end is not None and start is not None and end < start + (_days(now, "offset") or 0):
            yield (
                (*SIGNALS, name, "reference_data", "data_window"),
                f"the baseline ends {end} days ago and the window begins {start} days ago, of the same data",
            )


def _days(data: dict[Any, Any], which: str) -> int | None:
    window = data.get("data_window")
    found = DAYS.fullmatch(str(window.get(f"lookback_window_{which}"))) if isinstance(window, dict) else None
    return found and (int(found["days"]) if found["days"] else 7 * int(found["weeks"]))


def _numbers(value: Any, where: Location) -> Iterator[tuple[Location, float]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(inner, (*where, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield where, value


def _is_rate(name: str) -> bool:
    return any(word in name for word in RATE) and not any(word in name for word in UNBOUNDED)


def _signal_types() -> set[str]:
    from azure.ai.ml.constants._monitoring import MonitorSignalType

    return {signal.value for signal in MonitorSignalType}
