"""How large the packages of each environment are, with all that they need, as installed where this runs."""

import argparse
import importlib.metadata
import re
from functools import cache
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


@cache
def size_and_needs(name: str) -> tuple[int, tuple[Requirement, ...]]:
    """The bytes of a package and what it needs; packages that are not installed raise PackageNotFoundError."""
    found = importlib.metadata.distribution(name)
    size = sum(path.stat().st_size for file in found.files or () if (path := Path(file.locate())).is_file())
    return size, tuple(map(Requirement, found.requires or ()))


def closure(pins: list[str]) -> tuple[dict[str, int], set[str]]:
    """Each package with its bytes, and the pins that are not installed here."""
    sizes: dict[str, int] = {}
    absent: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(pin), True) for pin in pins]
    while waiting:
        requirement, pinned = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                sizes[name], needs = size_and_needs(name)
            except importlib.metadata.PackageNotFoundError:
                absent |= {name} if pinned else set()
                continue
            waiting += [
                (need, False) for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})
            ]
    return sizes, absent


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("| environment | packages | MB | the largest | not installed here |\n|---|---:|---:|---|---|")
    for conda_file in sorted((ROOT / "environments").glob("*/conda.yml")):
        entries = yaml.safe_load(conda_file.read_text(encoding="utf-8"))["dependencies"]
        sizes, absent = closure(next(entry["pip"] for entry in entries if isinstance(entry, dict)))
        largest = sorted(sizes, key=sizes.get, reverse=True)[:3]
        largest = ", ".join(f"{name} {sizes[name] / 1e6:,.0f}" for name in largest)
        total = sum(sizes.values()) / 1e6
        print(f"| `{conda_file.parent.name}` | {len(sizes)} | {total:,.0f} | {largest} | {', '.join(sorted(absent))} |")


if __name__ == "__main__":
    main()
