"""One process of several that train together, forked from one that has loaded what they need."""

import os
import runpy
import sys
from pathlib import Path


def run(variables: dict[str, str], command: list[str], log: Path) -> None:
    """Run a script as ``python SCRIPT FLAG...`` would; what it prints goes to ``log``."""
    os.environ.update(variables)
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")
