"""What is to be done about each asset: registered, left as it is, or refused and why."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from registration.sources import CONTENT_TAG, Source

# The tags of the version that is registered; None where there is none.
Find = Callable[[Source], dict[str, str] | None]
_AT_ONCE = 8  # questions to the service


@dataclasses.dataclass(frozen=True)
class Step:
    source: Source
    action: str  # register, unchanged, refuse
    why: str = ""


def make(sources: list[Source], find: Find, origin: tuple[str, Find] | None = None) -> list[Step]:
    """A step for each; with an ``origin``, a registry and what it has, only what is the same there is registered."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        there = threads.map(find, sources)
        before = threads.map(origin[1], sources) if origin else [None] * len(sources)
        origin_name = origin[0] if origin else None
        return [_step(*each, origin_name) for each in zip(sources, there, before, strict=True)]


def _step(source: Source, there: dict[str, str] | None, before: dict[str, str] | None, origin_name: str | None) -> Step:
    if there is not None:
        if there.get(CONTENT_TAG) == source.tags[CONTENT_TAG]:
            return Step(source, "unchanged")
        return Step(source, "refuse", f"{_difference(source, there)}; give {source.path} a new version")
    if origin_name is None:
        return Step(source, "register")
    if before is None:
        return Step(source, "refuse", f"it is not in {origin_name}; register it there first")
    if before.get(CONTENT_TAG) != source.tags[CONTENT_TAG]:
        why = f"it is not the one in {origin_name}: {_difference(source, before)}; check out the commit of that one"
        return Step(source, "refuse", why)
    return Step(source, "register", f"the same as in {origin_name}")


def _difference(source: Source, tags: dict[str, str]) -> str:
    if CONTENT_TAG not in tags:
        return f"version {source.version} was registered by other means, without the tag {CONTENT_TAG}"
    return f"changed since version {source.version} was registered: {source.changed_since(tags)}"


def table(steps: list[Step]) -> str:
    """A line for each step, in columns."""
    rows = [("ACTION", "KIND", "NAME", "VERSION", "WHY")]
    rows += [(step.action, step.source.kind, step.source.name, step.source.version, step.why) for step in steps]
    return aligned(rows)


def aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
