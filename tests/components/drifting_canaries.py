"""Canaries for the tests of detect_drift, as a short list of what was answered."""

from typing import Any


def canaries(outputs: list[Any], *, repeat: int = 0, edit: str | None = None, first: int = 0, **more: Any) -> list:
    """A canary for each output; None is a missing answer, and an answer scores whether it is "right"."""
    from drift_snapshot import Canary

    return [
        Canary(
            **{
                "id": f"c{number}:{edit or repeat}",
                "canary_id": f"c{number}",
                "edit": edit,
                "repeat": repeat,
                "cluster": f"c{number}",
                "slices": {},
                "output": output or "",
                "score": float(output == "right"),
                "failed": output is None,
                "references": ["right"],
                **{name: value(number) if callable(value) else value for name, value in more.items()},
            }
        )
        for number, output in enumerate(outputs, first)
    ]


def right(num: int, wrong: int = 0) -> list[str]:
    return ["right"] * num + ["wrong"] * wrong
