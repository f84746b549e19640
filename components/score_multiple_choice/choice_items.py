"""Multiple-choice questions read from eval items; what is wrong with one names its file and line."""

from pathlib import Path
from typing import Any

from slmkit import records
from slmkit.errors import UserError

Item = dict[str, Any]


def read_items(path: Path, method: str) -> dict[str, Item]:
    """The eval items by id, each with choices and the index of the right one."""
    items: dict[str, Item] = {}
    for item, source, line in records.read_located(path):
        if reason := what_is_wrong(item, items, method):
            raise UserError(f"{source}:{line}: {reason}")
        items[item["id"]] = item
    if not items:
        raise UserError(f"{path}: no eval items; is this the right file?")
    return items


def what_is_wrong(item: Item, earlier: dict[str, Item], method: str) -> str | None:
    id, choices, gold, labels = (item.get(name) for name in ("id", "choices", "gold", "labels"))
    if not isinstance(id, str) or not id or id in earlier:
        return f"'id' is missing, empty or not unique ({id!r}); give each item its own"
    if not are_texts(choices) or len(choices) < 2:
        return f"item {id!r} needs 'choices', a list of two texts or more that differ and are not blank"
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(choices):
        return f"item {id!r} needs 'gold', the index of the right choice from 0 to {len(choices) - 1}, not {gold!r}"
    if labels is not None and (not are_texts(labels) or len(labels) != len(choices)):
        return f"item {id!r} needs as many 'labels' that differ as it has choices"
    if labels is None and method == "letter":
        return f"item {id!r} has no 'labels'; prepare the benchmark with answer_style=letter, or use method=text"
    return None


def are_texts(values: Any) -> bool:
    return (
        isinstance(values, list)
        and all(isinstance(value, str) and value.strip() for value in values)
        and len({value.strip() for value in values}) == len(values)
    )
