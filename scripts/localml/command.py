"""Fills the command of a component with the values of its ports, as Azure ML does, but quoted."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from localml.errors import RunError

_OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)
_PORT = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")
# Azure ML hands the command to bash; without one of these characters that comes to the same as no shell at all.
_NEEDS_SHELL = re.compile(r"[;&|<>$`(){}*?\[\]~#!\\\n=]")


def render(where: str, template: str, inputs: Mapping[str, object], outputs: Mapping[str, Path]) -> list[str]:
    """The argument vector of a step. A port in ``$[[ ]]`` that has no value takes its bracket along."""

    def optional(match: re.Match) -> str:
        needed = [name for kind, name in _PORT.findall(match[1]) if kind == "inputs"]
        return match[1] if all(name in inputs for name in needed) else ""

    def value(match: re.Match) -> str:
        kind, name = match.groups()
        ports = inputs if kind == "inputs" else outputs
        if name not in ports:
            raise RunError(
                f"{where}: the command names {kind}.{name}, which has no value; put it in $[[ ]] if it is optional"
            )
        return shlex.quote(str(ports[name]))

    kept = _OPTIONAL.sub(optional, template)
    filled = _PORT.sub(value, kept)
    if _NEEDS_SHELL.search(_PORT.sub("", kept).strip()):
        return ["bash", "-c", filled]
    return shlex.split(filled)
