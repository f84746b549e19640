"""The interpreter of a step: this one, or a virtual environment made from the pins of the step's environment."""

import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

from localml.errors import RunError


class Environments:
    """``mode`` is ``current`` or ``isolated``; isolated environments are made once and kept under ``root``."""

    def __init__(self, root: Path, mode: str) -> None:
        self._root = root / "envs"
        self.mode = mode
        self._isolated = mode == "isolated"

    def identity(self, component: Any) -> dict[str, Any]:
        """What the reuse of a step depends on: the environment as declared, and the packages that really run it."""
        declared = {"image": component.environment.image, "conda": component.environment.conda_file}
        python = ".".join(map(str, sys.version_info[:3]))
        return {**declared, "python": python, "packages": "declared" if self._isolated else _installed_packages()}

    def bin_folder(self, component: Any) -> Path:
        """The folder whose ``python`` runs the step; an isolated environment is installed at its first use."""
        if not self._isolated:
            return Path(sys.executable).parent
        requirements = _requirements(component)
        digest = hashlib.sha256(json.dumps(requirements).encode()).hexdigest()[:16]
        folder = self._root / digest
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / f"{digest}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "complete").exists():
                _install(folder, requirements)
        return folder / "bin"


@functools.cache
def _installed_packages() -> str:
    site = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    # A set: once the importlib_metadata backport is imported, every distribution is found twice.
    names = sorted({f"{d.name}=={d.version}" for d in importlib.metadata.distributions(path=site)})
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _requirements(component: Any) -> list[str]:
    """The pip pins of a conda file; its Python must be the one that runs here, since a venv cannot bring another."""
    where = component.environment._source_path
    pins: list[str] = []
    for entry in (component.environment.conda_file or {}).get("dependencies", []):
        if isinstance(entry, dict):
            pins += entry.get("pip", [])
        elif entry.startswith("python="):
            wanted, here = entry.split("=")[-1].split(".")[:2], [str(part) for part in sys.version_info[:2]]
            if wanted != here:
                raise RunError(f"{where}: needs Python {'.'.join(wanted)}, but this is {'.'.join(here)}; use that one")
        elif not entry.startswith("pip"):
            raise RunError(f"{where}: {entry} is a conda package, which a virtual environment cannot hold")
    return pins


def _install(folder: Path, requirements: list[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    # torch comes first and alone: a package that needs it would else pull in another build of it.
    first = [pin for pin in requirements if pin.startswith("torch==")]
    for pins in filter(None, (first, [pin for pin in requirements if pin not in first])):
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *pins]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RunError(f"the environment could not be installed in {folder}: {last}")
    (folder / "complete").touch()
