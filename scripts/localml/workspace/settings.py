"""What a local workspace is reached by: ports, secrets and names, in one private file below `.local/workspace`."""

import dataclasses
import fcntl
import hmac
import json
import os
import secrets
import socket
from base64 import b64encode
from pathlib import Path

from localml.errors import RunError

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
RESOURCE_GROUP = "local"
WORKSPACE = "local"


@dataclasses.dataclass(frozen=True)
class Settings:
    port: int
    blob_port: int
    tracking_port: int
    secret: str
    blob_key: str
    studio_port: int
    pid: int = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def studio_url(self) -> str:
        """Without TLS, so that no browser warns of a certificate that it cannot know."""
        return f"http://127.0.0.1:{self.studio_port}"

    @property
    def tracking_url(self) -> str:
        return f"http://127.0.0.1:{self.tracking_port}"

    @property
    def tracking_token(self) -> str:
        """What MLflow's client says to the server; it takes no other, since whoever may call it may read files."""
        return hmac.new(self.secret.encode(), b"mlflow", "sha256").hexdigest()

    def variables(self, root: Path, *, trust_only_this: bool = False) -> dict[str, str]:
        """The environment variables with which azure-ai-ml and DefaultAzureCredential find this workspace.

        With ``trust_only_this`` no other server is trusted: a client that reads one certificate instead of all that
        browsers trust opens its connections faster.
        """
        return {
            "ARM_CLOUD_METADATA_URL": f"{self.url}/metadata/endpoints",
            "AZUREML_CURRENT_CLOUD": "LocalWorkspace",
            "REGISTRY_DISCOVERY_ENDPOINT_URL": f"{self.url}/",
            "IDENTITY_ENDPOINT": f"{self.url}/identity/token",
            "IDENTITY_HEADER": self.secret,
            "REQUESTS_CA_BUNDLE": str(authority(root) if trust_only_this else ca_bundle(root)),
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_RESOURCE_GROUP": RESOURCE_GROUP,
            "AZURE_ML_WORKSPACE": WORKSPACE,
            "MLFLOW_TRACKING_TOKEN": self.tracking_token,
        }

    def job_variables(self, root: Path) -> dict[str, str]:
        """As ``variables``, with those by which the steps of a job on Azure ML know their workspace."""
        return self.variables(root) | {
            "AZUREML_ARM_SUBSCRIPTION": SUBSCRIPTION,
            "AZUREML_ARM_RESOURCEGROUP": RESOURCE_GROUP,
            "AZUREML_ARM_WORKSPACE_NAME": WORKSPACE,
        }


def folder(root: Path) -> Path:
    return root.resolve() / "workspace"


def database(root: Path) -> Path:
    return folder(root) / "workspace.db"


def ca_bundle(root: Path) -> Path:
    return folder(root) / "tls" / "ca_bundle.pem"


def authority(root: Path) -> Path:
    return folder(root) / "tls" / "authority.pem"


def is_served(root: Path) -> bool:
    """Whether a service runs or is about to; it holds this lock until it ends, however it ends."""
    try:
        with (folder(root) / "service.lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def is_made(root: Path) -> bool:
    """Whether there are settings, be they damaged."""
    return _file(root).exists()


def read(root: Path) -> Settings:
    try:
        return Settings(**json.loads(_file(root).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RunError(f"there is no workspace below {root}; start one: python scripts/workspace.py up") from None
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{_file(root)}: {error}; `workspace.py down` and remove it") from None


def ensure(root: Path) -> Settings:
    """Those of an earlier start, since the clients of a workspace know its address, or new ones."""
    if is_made(root):
        return read(root)
    names = ("port", "blob_port", "tracking_port", "studio_port")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    key = b64encode(secrets.token_bytes(64)).decode()
    made = Settings(**ports, secret=secrets.token_urlsafe(32), blob_key=key)
    write(root, made)
    return made


def write(root: Path, known: Settings) -> None:
    folder(root).mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = folder(root) / "settings.json.partial"
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(dataclasses.asdict(known), file, indent=2)
    partial.replace(_file(root))


def _file(root: Path) -> Path:
    return folder(root) / "settings.json"


def _free_ports(number: int) -> list[int]:
    """Ports that are free now, taken all at once so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
