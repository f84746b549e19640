#!/usr/bin/env python
"""Write components/README.md, the catalogue, from the component.yml files."""

import argparse
import sys
from pathlib import Path
from typing import Any

import localml.needs_venv  # noqa: F401 (before what a Python may lack)

# isort: split
import yaml

COMPONENTS = Path(__file__).resolve().parent.parent / "components"
STAGES = ["data", "train", "evaluate", "release", "monitor"]
VALUES = {"string", "integer", "number", "boolean"}
INTRODUCTION = """\
# Components

Each folder is one Azure ML command component: `component.yml` is its contract with the description of every port,
`main.py` does the work. `PYTHONPATH=components/_shared python components/<name>/main.py --help` lists its flags.

*Takes* leaves out the inputs that have a default; what is in parentheses may be absent. *Environment* is the folder in
[environments](../environments) that the component runs in. A component that is *reused* is not run again while its
code, inputs and environment are unchanged; one that *goes on* continues from its partial outputs after a kill.

<!-- The table is written by scripts/catalogue.py from the component.yml files; change those. -->

"""
HAND_WRITTEN = "<!-- Below this line everything is written by hand and kept. -->\n"


def render(components: Path) -> str:
    """The introduction and a row for each component, by stage and name."""
    specs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in components.glob("*/component.yml")]
    specs.sort(key=lambda spec: (STAGES.index(spec["tags"]["stage"]), spec["name"]))
    header = ["Stage", "Component", "What it does", "Takes", "Gives", "Environment", "Behavior"]
    table = [header, ["---"] * len(header), *map(_row, specs)]
    return INTRODUCTION + "".join(f"| {' | '.join(cells)} |\n" for cells in table)


def _row(spec: dict[str, Any]) -> list[str]:
    takes = [
        f"(`{port}`)" if value.get("optional") else f"`{port}`"
        for port, value in spec["inputs"].items()
        if "default" not in value and not (value.get("optional") and value["type"] in VALUES)
    ]
    cells = [
        spec["tags"]["stage"],
        f"[`{spec['name']}`]({spec['name']})",
        spec["description"].split(". ")[0].rstrip("."),
        ", ".join(takes),
        ", ".join(f"`{port}`" for port in spec["outputs"]),
        spec["environment"].split("/")[-2],
        _behavior(spec),
    ]
    return [" ".join(cell.split()).replace("|", r"\|") for cell in cells]


def _behavior(spec: dict[str, Any]) -> str:
    facts = ["reused" if spec["is_deterministic"] else "runs every time"]
    if spec["tags"].get("resumable") == "true":
        facts.append("goes on")
    if effect := spec["tags"].get("side_effect"):
        facts.append(f"side effect: {effect}")
    return ", ".join(facts)


def main(argv: list[str] | None = None) -> int:
    """Write the catalogue, or with --check say whether it is what would be written."""
    parser = argparse.ArgumentParser(prog="catalogue.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the catalogue is stale")
    args = parser.parse_args(argv)
    catalogue = COMPONENTS / "README.md"
    now = catalogue.read_text(encoding="utf-8") if catalogue.exists() else ""
    text = f"{render(COMPONENTS)}\n{HAND_WRITTEN}{now.partition(HAND_WRITTEN)[2]}"
    if now == text:
        return 0
    if args.check:
        print(f"stale: {catalogue}; run .venv/bin/python scripts/catalogue.py", file=sys.stderr)
        return 1
    catalogue.write_text(text, encoding="utf-8")
    print(f"written: {catalogue}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
