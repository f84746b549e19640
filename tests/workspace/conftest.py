"""One local workspace for all tests of this folder that run in the same process."""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localml.endpoints import client as endpoint_host
from localml.workspace import blobs, settings

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Workspace:
    root: Path

    @property
    def variables(self) -> dict[str, str]:
        """What azure-ai-ml finds it by, for the environment of a process."""
        return settings.read(self.root).variables(self.root, trust_only_this=True)

    def script(self, *flags: str) -> subprocess.CompletedProcess:
        """`scripts/workspace.py` for this workspace."""
        command = [sys.executable, str(ROOT / "scripts" / "workspace.py"), "--root", str(self.root)]
        return subprocess.run([*command, *flags], check=True, capture_output=True, text=True)

    def client(self, **names: Any) -> Any:
        """azure-ai-ml's own client; ``registry_name`` in place of the workspace."""
        from azure.ai.ml import MLClient
        from azure.identity import DefaultAzureCredential

        names = names or {"workspace_name": settings.WORKSPACE}
        credential = DefaultAzureCredential()
        return MLClient(credential, settings.SUBSCRIPTION, settings.RESOURCE_GROUP, show_progress=False, **names)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Iterator[Workspace]:
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("the local workspace needs Node.js: install node and npm")
    shared, root = ROOT / ".local", tmp_path_factory.mktemp("workspace")
    shared.mkdir(exist_ok=True)
    with (shared / "npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # installed once, by the first
        blobs.azurite_command(shared)
    if (shared / "npm").exists():
        (root / "npm").symlink_to(shared / "npm")
    made = Workspace(root)
    made.script("up")
    try:
        yield made
    finally:
        made.script("down")
        endpoint_host.stop_host(root, seconds=60)  # which serves on when a workspace is down


@pytest.fixture(scope="module", autouse=True)
def _environment(workspace) -> Iterator[None]:
    """The variables of the workspace, for the tests of this folder alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in workspace.variables.items():
            patch.setenv(name, value)
        yield
