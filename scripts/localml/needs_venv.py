"""Imported before everything else by what a user starts: one line, no traceback, in a Python without the packages."""

# Read by whatever Python there is: the standard library and the syntax of 3.8 alone.
from __future__ import annotations

import importlib.util
import sys


def _absent() -> str | None:
    for package in ("yaml", "azure.ai.ml"):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:  # of the package that it is in
            found = None
        if found is None:
            return package
    return None


if absent := _absent():
    script = sys.argv[0].rpartition("/")[2]
    remedy = f"run scripts/setup.sh, then .venv/bin/python scripts/{script}"
    sys.exit(f"{script}: error: {absent} is not installed in this Python ({sys.executable}): {remedy}")
