#!/usr/bin/env python
"""Print what scripts/requirements.txt is made from: the pins of all environments and the tools to work with."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("hypothesis", "psutil", "pytest", "pytest-xdist", "rich", "ruff")


def main() -> None:
    """One requirement a line; an environment's pin wins over a tool without one."""
    pins: set[str] = set(TOOLS)
    for conda_file in sorted((ROOT / "environments").glob("*/conda.yml")):
        for entry in yaml.safe_load(conda_file.read_text(encoding="utf-8"))["dependencies"]:
            pins.update(entry["pip"] if isinstance(entry, dict) else ())
    print("\n".join(sorted(pins)))


if __name__ == "__main__":
    main()
