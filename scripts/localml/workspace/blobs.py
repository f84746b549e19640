"""The blob store of a local workspace: Azurite, Microsoft's emulator, over TLS on loopback."""

import contextlib
import datetime
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ContainerClient, ResourceTypes
from azure.storage.blob import generate_account_sas as sign

from localml.endpoints.process_book import ProcessBook
from localml.errors import RunError

AZURITE = "azurite@3.37.0"
ACCOUNT = "localworkspace"
DEFAULT_CONTAINER = "azureml-blobstore"
ARTIFACTS_CONTAINER = "azureml"
CONTAINERS = {"workspaceblobstore": DEFAULT_CONTAINER, "workspaceartifactstore": ARTIFACTS_CONTAINER}  # by datastore
_START_SECONDS = 60.0
_INSTALL_SECONDS = 200.0  # with a start of Azurite less than what `workspace.py up` waits
_HOURS = 24


def azurite_command(root: Path) -> list[str]:
    """How to start Azurite; it is installed by npm under ``root`` where the machine has none."""
    if installed := shutil.which("azurite-blob"):
        return [installed]
    folder = root / "npm"
    script = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise RunError("the local workspace keeps blobs in Azurite, which needs Node.js: install node and npm")
    if not script.exists():
        partial = root / "npm.partial"
        shutil.rmtree(partial, ignore_errors=True)  # of a start that was killed
        partial.mkdir(parents=True)
        _install(npm, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return [node, str(script)]


def _install(npm: str, folder: Path) -> None:
    """By npm, which is ended with all that it has started where it takes too long or this process is stopped."""
    install = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder), AZURITE]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(install, cwd=folder, text=True, start_new_session=True, **pipes) as process:
        try:
            _, said = process.communicate(timeout=_INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            took = f"npm did not install {AZURITE} within {_INSTALL_SECONDS:g} s"
            raise RunError(f"{took}; start again, or install it yourself: npm install -g {AZURITE}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        last = (said.strip().splitlines() or ["no reason given"])[-1]
        raise RunError(f"npm could not install {AZURITE}: {last}")


def end(folder: Path) -> None:
    """Stop Azurite, whoever started it; it writes first what it has in memory."""
    _book(folder).end_leftovers()


def _book(folder: Path) -> ProcessBook:
    return ProcessBook(folder / "processes.json")


class Blobs:
    """One storage account; paths in it are ``container/path``."""

    def __init__(self, port: int, key: str, ca_bundle: Path) -> None:
        self.host, self._key, self._ca_bundle = f"127.0.0.1:{port}", key, ca_bundle
        self.url = f"https://{self.host}/{ACCOUNT}"

    def start(self, command: list[str], folder: Path, certificate: Path, key: Path) -> subprocess.Popen:
        """The process of Azurite, once it answers."""
        folder.mkdir(parents=True, exist_ok=True)
        end(folder)  # a workspace that was killed leaves it to the jobs that still run
        port = self.host.rpartition(":")[2]
        flags = ["--blobHost", "127.0.0.1", "--blobPort", port, "--location", str(folder), "--silent"]
        flags += ["--cert", str(certificate), "--key", str(key), "--skipApiVersionCheck", "--disableTelemetry"]
        log = (folder / "azurite.log").open("wb")
        process = subprocess.Popen(
            [*command, *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{self._key}"},
            start_new_session=True,
        )
        _book(folder).add(process.pid)
        log.close()
        ends = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < ends:
            if b"successfully listens" in (folder / "azurite.log").read_bytes():
                for container in CONTAINERS.values():
                    self.create_container(container)
                return process
            time.sleep(0.05)
        process.kill()
        lines = (folder / "azurite.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RunError(f"Azurite did not start on port {port}: {lines[-1] if lines else 'it said nothing'}")

    def sas(self) -> str:
        """A signature for everything in this account, for a day."""
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=_HOURS)
        everything = ResourceTypes(service=True, container=True, object=True)
        return sign(ACCOUNT, self._key, everything, AccountSasPermissions.from_string("rwdlacup"), ends)

    def create_container(self, name: str) -> None:
        container = self._container(name)
        if not container.exists():
            container.create_container()

    def write(self, container: str, path: str, content: bytes) -> None:
        self._container(container).upload_blob(path, content, overwrite=True)

    def upload(self, source: Path, container: str, path: str) -> None:
        """A file to ``path``, or what is in a folder below it; links are followed within the outputs of a step."""
        target = self._container(container)
        files: Iterable[Path] = [source] if source.is_file() else (f for f in source.rglob("*") if f.is_file())
        for file in files:
            name = path if source.is_file() else str(PurePosixPath(path, file.relative_to(source).as_posix()))
            with file.open("rb") as content:
                target.upload_blob(name, content, overwrite=True)

    def download(self, container: str, path: str, target: Path) -> Path:
        """What lies at ``path``, as a file or folder of its own name below ``target``."""
        source = self._container(container)
        path = path.strip("/")
        names = [blob.name for blob in source.list_blobs(name_starts_with=path)]
        names = [name for name in names if name == path or name.startswith(f"{path}/")]
        if not names:
            raise RunError(f"there is nothing at {container}/{path} in the workspace's blob store")
        top = target / (PurePosixPath(path).name or container)
        for name in names:
            inner = PurePosixPath(name[len(path) :].strip("/"))
            if ".." in inner.parts:
                raise RunError(f"{name!r} in the blob store leads out of its folder")
            file = top / inner if inner.parts else top
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as content:
                source.download_blob(name).readinto(content)
        return top

    def _container(self, name: str) -> ContainerClient:
        service = BlobServiceClient(f"{self.url}?{self.sas()}", connection_verify=str(self._ca_bundle))
        return service.get_container_client(name)
