"""The command line of a component: types from its dataclass; bounds, enums and help from its component.yml."""

import argparse
import dataclasses
import math
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from slmkit.errors import UserError

ArgsT = TypeVar("ArgsT")

DEBUG_VARIABLE = "SLMKIT_DEBUG"
_BOOLEANS = {"true": True, "false": False}
_PORT_WITH_PATH = {"uri_file", "uri_folder", "custom_model", "mlflow_model", "triton_model", "mltable"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of argparse's usage block, because the reader is mostly a log."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def parse(args_type: type[ArgsT], spec_path: Path, argv: Sequence[str] | None = None) -> ArgsT:
    """Read the command line into ``args_type`` (a dataclass that mirrors the ports of ``spec_path``).

    Exits 2 with one line that names flag, value and bound for an unknown flag, a wrong type, a value out of bounds or
    enum, and an input path that is not there. From then on an uncaught error is one line too; ``--debug``
    (or ``SLMKIT_DEBUG=1``) shows its traceback.
    """
    spec = yaml.safe_load(spec_path.read_text(encoding="utf-8"))
    parser = _Parser(
        prog=spec["name"],
        description=spec.get("description"),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    outputs = spec.get("outputs") or {}
    ports = {**(spec.get("inputs") or {}), **outputs}
    hints = typing.get_type_hints(args_type)
    for field in dataclasses.fields(args_type):
        port = ports[field.name]
        required = field.default is dataclasses.MISSING
        parser.add_argument(
            f"--{field.name}",
            required=required,
            type=_converter(field.name, hints[field.name], port, is_input=field.name not in outputs),
            metavar=port["type"].upper(),
            help=_help(port, field.default, required),
        )
    values = vars(parser.parse_args(argv))
    _show_errors_in_one_line(spec["name"], debug=values.pop("debug", False) or bool(os.environ.get(DEBUG_VARIABLE)))
    return args_type(**values)


def _help(port: dict[str, Any], default: Any, required: bool) -> str:
    text = port.get("description", "").replace("%", "%%")
    bounds = [f"{key} {port[key]}" for key in ("min", "max") if key in port]
    if "enum" in port:
        bounds.append("one of " + ", ".join(map(str, port["enum"])))
    if not required and default is not None:
        bounds.append(f"default {default}")
    return f"{text} ({'; '.join(bounds)})" if bounds else text


def _converter(name: str, hint: Any, port: dict[str, Any], *, is_input: bool) -> Callable[[str], Any]:
    kind = _without_none(hint)

    def convert(text: str) -> Any:
        try:
            value = _value(kind, text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {_article(port['type'])}") from None
        if "enum" in port and value not in port["enum"]:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(map(str, port['enum']))}")
        if "min" in port and value < float(port["min"]):
            raise argparse.ArgumentTypeError(f"{text} is below the minimum {port['min']}")
        if "max" in port and value > float(port["max"]):
            raise argparse.ArgumentTypeError(f"{text} is above the maximum {port['max']}")
        if is_input and port["type"] in _PORT_WITH_PATH and not value.exists():
            raise argparse.ArgumentTypeError(f"no file or folder at {text!r}; check the path given for input {name!r}")
        return value

    return convert


def _without_none(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


def _value(kind: type, text: str) -> Any:
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    value = kind(text)
    if kind is float and not math.isfinite(value):
        raise ValueError(text)
    return value


def _article(port_type: str) -> str:
    return {"boolean": "true or false", "integer": "a whole number", "number": "a finite number"}.get(
        port_type, f"a {port_type}"
    )


def _show_errors_in_one_line(component: str, *, debug: bool) -> None:
    def show(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        if debug:
            traceback.print_exception(kind, error, trace)
        if issubclass(kind, KeyboardInterrupt):
            line = "interrupted"
        elif isinstance(error, UserError):
            line = str(error)
        elif isinstance(error, OSError) and error.strerror:
            line = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        else:
            line = f"{kind.__name__}: {error}"
        hint = "" if debug or isinstance(error, UserError) else " (--debug shows the traceback)"
        print(f"{component}: error: {' '.join(line.split())}{hint}", file=sys.stderr, flush=True)

    sys.excepthook = show
