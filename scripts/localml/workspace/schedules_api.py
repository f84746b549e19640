"""Schedules: kept as they are given, checked as Azure checks them, and never fired on this machine."""

import re
from typing import Any, ClassVar

from localml.workspace.arm import ArmError, invalid
from localml.workspace.job_files import named
from localml.workspace.named_resources import NamedResources

# What each field of a cron expression may hold: minute, hour, day, month, weekday.
_CRON_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_CRON_PART = re.compile(r"(?P<first>\*|\d+)(?:-(?P<last>\d+))?(?:/(?P<step>[1-9]\d*))?")
_FREQUENCIES = ("Minute", "Hour", "Day", "Week", "Month")
_VIEWS = {"EnabledOnly": (True,), "DisabledOnly": (False,), "All": (True, False)}


class Schedules(NamedResources):
    kind = "schedules"
    added: ClassVar[dict[str, Any]] = {"isEnabled": True}

    def check(self, name: str, properties: dict[str, Any], known: dict[str, Any] | None) -> None:
        trigger, action = properties.get("trigger") or {}, properties.get("action") or {}
        if trigger.get("triggerType") == "Cron":
            _check_cron(str(trigger.get("expression", "")))
        elif trigger.get("triggerType") == "Recurrence":
            if trigger.get("frequency") not in _FREQUENCIES or not _is_count(trigger.get("interval")):
                raise invalid(f"trigger: a frequency of {', '.join(_FREQUENCIES)} and an interval of 1 or more.")
        else:
            raise invalid(f"trigger.triggerType {trigger.get('triggerType')!r} is neither Cron nor Recurrence.")
        if action.get("actionType") not in ("CreateJob", "CreateMonitor"):
            raise invalid(f"action.actionType {action.get('actionType')!r} is neither CreateJob nor CreateMonitor.")
        for component in named(action):
            if self._store.get(*component.key) is None:
                raise invalid(f"The schedule names {component}, which is not in {component.where}.")

    def check_deletion(self, resource: dict[str, Any]) -> None:
        if resource["properties"].get("isEnabled", True):
            raise ArmError(409, "Conflict", f"Schedule {resource['name']} is enabled; disable it first.")

    def is_listed(self, resource: dict[str, Any], query: dict[str, str]) -> bool:
        view = query.get("listViewType", "EnabledOnly")
        if view not in _VIEWS:
            raise invalid(f"listViewType {view!r} is none of {', '.join(_VIEWS)}.")
        return resource["properties"].get("isEnabled", True) in _VIEWS[view]


def _check_cron(expression: str) -> None:
    fields = expression.split()
    if len(fields) != len(_CRON_FIELDS):
        raise invalid(f"trigger.expression {expression!r}: five fields, as in '0 3 * * 1'.")
    for field, (low, high) in zip(fields, _CRON_FIELDS, strict=True):
        for part in field.split(","):
            found = _CRON_PART.fullmatch(part)
            numbers = (
                [int(number) for number in (found["first"], found["last"]) if number not in (None, "*")]
                if found
                else []
            )
            if not found or any(not low <= number <= high for number in numbers):
                raise invalid(f"trigger.expression {expression!r}: {field!r} is not within {low} to {high}.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
