"""The leaves of JSON texts by their paths, to tell which of the wanted ones an answer has."""

import json
import re
from typing import Any, NoReturn

from slmkit.answer_text import normalize

_FENCE = re.compile(r"\s*```[ \t]*(?:\w+[ \t]*)?\n(.*?)```\s*", re.DOTALL)
Path = tuple[str | int, ...]


def leaves(text: str) -> dict[Path, Any] | None:
    """Path -> value of each text, number, true, false, null and empty container; None when the text is not JSON.

    A Markdown code fence around the JSON is no part of it.
    """
    fence = _FENCE.fullmatch(text)
    try:
        root = json.loads(fence[1] if fence else text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    found: dict[Path, Any] = {}
    waiting: list[tuple[Path, Any]] = [((), root)]
    while waiting:  # not recursive, since an answer may nest as deep as it likes
        path, value = waiting.pop()
        if isinstance(value, dict | list) and value:
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += (((*path, key), inner) for key, inner in items)
        else:
            found[path] = value
    return found


def slot_accuracy(answer: str, wanted: dict[Path, Any]) -> tuple[float, float]:
    """The share of the wanted leaves that the answer has, texts compared as exact_match does; and 1 when both are the
    same JSON to the letter."""
    given = leaves(answer)
    if given is None:
        return 0.0, 0.0
    num_equal = sum(path in given and _loosely(given[path]) == _loosely(value) for path, value in wanted.items())
    same = {path: _typed(value) for path, value in given.items()} == {p: _typed(value) for p, value in wanted.items()}
    return num_equal / len(wanted), float(same)


def _loosely(value: Any) -> tuple[type, Any]:
    return _typed(normalize(value) if isinstance(value, str) else value)


def _typed(value: Any) -> tuple[type, Any]:
    """8 is 8.0, but true is not 1."""
    return (float if isinstance(value, int) and not isinstance(value, bool) else type(value)), value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
