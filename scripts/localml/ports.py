"""What the ports of a step are bound to, and the check that a value suits its port."""

import dataclasses
import math
from typing import Any

from localml.errors import RunError

_TYPES = {"integer": int, "number": (int, float), "boolean": bool, "string": str}


@dataclasses.dataclass(frozen=True)
class Literal:
    """A value written in the job file."""

    value: Any

    def __str__(self) -> str:
        return str(self.value)


@dataclasses.dataclass(frozen=True)
class Data:
    """A file, a folder or an asset that exists before the run: ``path`` as the job file writes it."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclasses.dataclass(frozen=True)
class FromStep:
    """The output of another step."""

    step: str
    port: str

    def __str__(self) -> str:
        return f"{self.step}.{self.port}"


Binding = Literal | Data | FromStep
Bound = dict[str, Binding | None]  # by input; None where an optional input is not given


def checked(where: str, port: Any, binding: Binding) -> Binding:
    """Refuse now what the component would refuse after the steps before it have run."""
    if not isinstance(binding, Literal):
        if port.type in _TYPES:
            raise RunError(f"{where}: expected a {port.type}, found {binding}")
        return binding
    if port.type not in _TYPES:
        if isinstance(binding.value, str):
            return Data(binding.value)
        raise RunError(f"{where}: expected a {port.type}, found the value {binding.value!r}")
    value = _parsed(binding.value, port.type)
    expected = _TYPES[port.type]
    if not isinstance(value, expected) or (isinstance(value, bool) and port.type != "boolean"):
        raise RunError(f"{where}: {binding.value!r} is not of type {port.type}")
    if port.type == "number" and not math.isfinite(value):
        raise RunError(f"{where}: {value} is no finite number")
    if port.min is not None and value < float(port.min):
        raise RunError(f"{where}: {value} is below the minimum {port.min}")
    if port.max is not None and value > float(port.max):
        raise RunError(f"{where}: {value} is above the maximum {port.max}")
    if port.enum and value not in port.enum:
        raise RunError(f"{where}: {value!r} is not one of {', '.join(map(str, port.enum))}")
    return Literal(value)


def _parsed(value: Any, port_type: str) -> Any:
    """The value of a literal that came as text, as those of pipeline components' defaults do."""
    if not isinstance(value, str):
        return str(value) if port_type == "string" else value
    try:
        if port_type == "integer":
            return int(value)
        if port_type == "number":
            return float(value)
    except ValueError:
        return value
    if port_type == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value
