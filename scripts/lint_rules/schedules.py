"""Rules for schedules: one action, with inputs that its job has, that comes due in a time zone that Azure ML knows."""

import re
from datetime import datetime
from typing import Any

from lint_rules.documents import Document, UnreadableError, read
from lint_rules.paths import local_path
from lint_rules.rule import Found, is_count, rule

CRON = (("minutes", 0, 59), ("hours", 0, 23), ("days", 1, 31), ("months", 1, 12), ("days of the week", 0, 6))
PART = re.compile(r"(?:\*|(?P<first>\d{1,4})(?:-(?P<last>\d{1,4}))?)(?:/(?P<step>\d{1,4}))?")
CYCLES = ("minute", "hour", "day", "week", "month")
ACTIONS = ("create_job", "create_monitor", "import_data")
JOBS = ("pipeline", "command", "spark")
TRIGGER_TIME = "${{creation_context.trigger_time}}"  # of the two expressions, the one that inputs may have
PATTERN = {"hours": (0, 23), "minutes": (0, 59), "month_days": (1, 31)}


@rule("schedule")
def schedule_action(document: Document) -> Found:
    """a schedule without a trigger, or without exactly one thing to do"""
    given = [action for action in ACTIONS if document.content.get(action) is not None]
    if len(given) != 1:
        yield (
            (given[-1:] or ["trigger"]),
            f"it does {' and '.join(given) or 'nothing'}; write one of {', '.join(ACTIONS)}",
        )
    if not document.mapping("trigger"):
        yield (), "no trigger, so it never runs; write one of type cron or recurrence"


@rule("schedule")
def schedule_job(document: Document) -> Found:
    """a create_job that names no job, or gives inputs that the job does not have, which Azure ML drops"""
    create = document.at("create_job")
    where = ("create_job", "job") if isinstance(create, dict) else ("create_job",)
    job = _job(document, document.at(*where))
    if job is None:
        return
    if job.get("type", "command") not in JOBS or "trigger" in job or "is_deterministic" in job:
        yield where, f"{document.at(*where)!r:.80} is no job; name a file such as those of pipelines/jobs"
        return
    known = job.get("inputs")
    for name, value in document.mapping("create_job", "inputs").items():
        if not isinstance(known, dict) or name not in known:
            has = ", ".join(map(str, known)) if isinstance(known, dict) else "none"
            yield ("create_job", "inputs", name), f"{name!r:.60} is no input of the job; it has: {has:.200}"
        elif isinstance(value, str) and "${{" in value and value.strip() != TRIGGER_TIME:
            yield ("create_job", "inputs", name), f"{value!r:.60}: an input may be {TRIGGER_TIME} or a value"
        elif value == TRIGGER_TIME and not isinstance(known[name], str):
            yield ("create_job", "inputs", name), f"{name!r:.60} is not text in the job; only that can be a time"


def _job(document: Document, path: Any) -> dict[Any, Any] | None:
    """The job file that is named; another rule tells of one that is not there."""
    file = local_path(document, "create_job", path) if isinstance(path, str) else None
    try:
        return read(file).content if file and file.is_file() else None
    except (UnreadableError, OSError, ValueError):
        return {"type": "unreadable"}


@rule("schedule")
def cron(document: Document) -> Found:
    """a cron expression that never comes due, or not when it says"""
    trigger = document.mapping("trigger")
    if trigger.get("type") != "cron" and "expression" not in trigger:
        return
    fields = str(trigger.get("expression") or "").split()
    if len(fields) != len(CRON):
        wanted = " ".join(name.replace(" ", "-") for name, _, _ in CRON)
        yield ("trigger", "expression"), f"{len(fields)} fields; write five: {wanted}"
        return
    for field, (name, low, high) in zip(fields, CRON, strict=True):
        if problem := _problem(field, low, high):
            yield ("trigger", "expression"), f"{name} {field!r:.40}: {problem}"
        elif name in ("days", "months") and field != "*":
            yield ("trigger", "expression"), f"{name} {field!r:.40}: Azure ML ignores it; write * or take a recurrence"


def _problem(field: str, low: int, high: int) -> str | None:
    for part in field.split(","):
        match = PART.fullmatch(part)
        if not match:
            return f"{part!r:.20} is none of *, N, N-M, */N; write numbers from {low} to {high}"
        first, last = (int(match[name]) if match[name] else None for name in ("first", "last"))
        if any(number is not None and not low <= number <= high for number in (first, last)):
            return f"outside {low} to {high}; write a number inside"
        if first is not None and last is not None and last < first:
            return "the range runs backwards; write the smaller number first"
        if match["step"] and not 1 <= int(match["step"]) <= high:
            return f"a step of {int(match['step'])}; write 1 to {high}"
    return None


@rule("schedule")
def recurrence(document: Document) -> Found:
    """a recurrence without an interval or with hours and days that do not exist"""
    trigger = document.mapping("trigger")
    if trigger.get("type") != "recurrence":
        return
    frequency, interval = trigger.get("frequency"), trigger.get("interval")
    if str(frequency).lower() not in CYCLES:
        yield ("trigger", "frequency"), f"{frequency!r:.20}; write one of {', '.join(CYCLES)}"
    if not is_count(interval) or not 1 <= interval <= 1000:
        yield ("trigger", "interval"), f"every {interval!r:.20}; write a whole number from 1"
    for key, (low, high) in PATTERN.items():
        values = document.at("trigger", "schedule", key)
        for value in values if isinstance(values, list) else [values]:
            if value is not None and (not is_count(value) or not low <= value <= high):
                yield ("trigger", "schedule", key), f"{value!r:.20}; write a whole number from {low} to {high}"


@rule("schedule")
def schedule_period(document: Document) -> Found:
    """a time zone that Azure ML does not know, or an end before the start"""
    trigger = document.mapping("trigger")
    zone = trigger.get("time_zone")
    if zone is not None and str(zone).lower() not in _time_zones():
        yield ("trigger", "time_zone"), f"{zone!r:.60}; write the Windows name, such as UTC or Tokyo Standard Time"
    start, end = (_time(trigger.get(key)) for key in ("start_time", "end_time"))
    if start and end and end <= start:
        yield ("trigger", "end_time"), f"ends at {end} and starts at {start}; it would never run"


def _time_zones() -> set[str]:
    from azure.ai.ml.constants import TimeZone

    return {zone.value.lower() for zone in TimeZone}


def _time(value: object) -> datetime | None:
    """A time without its zone, which both have or neither."""
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return time.replace(tzinfo=None)
