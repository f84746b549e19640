#!/usr/bin/env python
"""How long `--help` of each component takes, the slowest first."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

COMPONENTS = Path(__file__).resolve().parents[2] / "components"


def help_seconds(main: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": str(COMPONENTS / "_shared")}
    started = time.perf_counter()
    subprocess.run([sys.executable, main, "--help"], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-runs", type=int, default=5, help="runs of each component (default 5)")
    args = parser.parse_args()
    components = sorted(spec.parent for spec in COMPONENTS.glob("*/component.yml"))
    seconds = {
        folder.name: sorted(help_seconds(folder / "main.py") for _ in range(args.num_runs)) for folder in components
    }
    print(f"{'--help, seconds':<28}{'min':>8}{'median':>8}{'max':>8}")
    for name, values in sorted(seconds.items(), key=lambda item: -median(item[1])):
        print(f"{name:<28}{values[0]:8.2f}{median(values):8.2f}{values[-1]:8.2f}")


if __name__ == "__main__":
    main()
