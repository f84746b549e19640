"""The command line of a component: types from its dataclass; bounds, enums and help from its component.yml."""

import argparse
import contextlib
import dataclasses
import difflib
import itertools
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
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a finite number", Path: "a path"}


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
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    inputs, outputs = spec.get("inputs") or {}, spec.get("outputs") or {}
    hints = typing.get_type_hints(args_type)
    flags = ["--help", "--debug"]
    for field in dataclasses.fields(args_type):
        port = inputs.get(field.name) or outputs[field.name]
        required = field.default is dataclasses.MISSING
        flags.append(f"--{field.name}")
        parser.add_argument(
            flags[-1],
            required=required,
            type=_converter(_without_none(hints[field.name]), port, is_input=field.name in inputs),
            metavar=port["type"].upper(),
            help=_help(port, field.default, required),
        )
    values = vars(parser.parse_args(_joined(parser, flags, sys.argv[1:] if argv is None else argv)))
    _show_errors_in_one_line(spec["name"], debug=values.pop("debug", False) or bool(os.environ.get(DEBUG_VARIABLE)))
    return args_type(**values)


def own_arguments(args_type: type[ArgsT], argv: Sequence[str]) -> list[str]:
    """The flags of the specification with their values; Azure ML's parallel engine adds some of its own."""
    flags = {f"--{field.name}" for field in dataclasses.fields(args_type)}
    return [word for flag, value in itertools.pairwise(argv) if flag in flags for word in (flag, value)]


def _joined(parser: _Parser, flags: Sequence[str], argv: Sequence[str]) -> list[str]:
    """Join each flag with its value, since argparse takes a value like -1e-5 for a flag; refuse unknown flags first."""
    words: list[str] = []
    for word in argv:
        flag = word.partition("=")[0]
        if words and words[-1] in flags and flag not in flags:
            words[-1] += f"={word}"
        elif flag not in flags and word != "-h":
            close = difflib.get_close_matches(flag, flags, n=1)
            parser.error(f"unknown argument {word}" + (f"; did you mean {close[0]}?" if close else ""))
        elif any(flag == earlier.partition("=")[0] for earlier in words):
            parser.error(f"argument {flag}: given twice")
        else:
            words.append(word)
    return words


def _help(port: dict[str, Any], default: Any, required: bool) -> str:
    text = port.get("description", "")
    bounds = [f"{key} {port[key]}" for key in ("min", "max") if key in port]
    if "enum" in port:
        bounds.append("one of " + ", ".join(map(str, port["enum"])))
    if not required and default is not None:
        bounds.append(f"default {default}")
    return (f"{text} ({'; '.join(bounds)})" if bounds else text).replace("%", "%%")


def _converter(kind: type, port: dict[str, Any], *, is_input: bool) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            value = _value(kind, text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {_EXPECTED[kind]}") from None
        if "enum" in port and value not in port["enum"]:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(map(str, port['enum']))}")
        if "min" in port and value < _value(kind, str(port["min"])):
            raise argparse.ArgumentTypeError(f"{text} is below the minimum {port['min']}")
        if "max" in port and value > _value(kind, str(port["max"])):
            raise argparse.ArgumentTypeError(f"{text} is above the maximum {port['max']}")
        if is_input and kind is Path and port.get("mode") != "direct":  # which gives the URI of the data
            _check_there(value)
        return value

    return convert


def _check_there(path: Path) -> None:
    try:
        found = path.exists()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{str(path)!r} cannot be opened: {error.strerror}") from None
    if not found:
        raise argparse.ArgumentTypeError(f"no file or folder at {str(path)!r}; check the path given")


def _without_none(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


def _value(kind: type, text: str) -> Any:
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    if kind is int:
        return _whole_number(text)
    value = kind(text)
    if (kind is float and not math.isfinite(value)) or (kind is Path and not text):
        raise ValueError(text)
    return value


def _whole_number(text: str) -> int:
    with contextlib.suppress(ValueError):
        return int(text)
    value = float(text)  # Azure ML may hand 10 over as 10.0
    if not value.is_integer():
        raise ValueError(text)
    return int(value)


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
        if isinstance(error, UserError):
            sys.exit(error.exit_code)

    sys.excepthook = show
