"""The servers that a deployment can run: how each is started, asked and probed, and what it sees of this machine."""

import dataclasses
import os
import sys
from pathlib import Path

from localml.endpoints.contract import DeploymentBody
from localml.process import num_cores

_SCRIPTS = Path(__file__).resolve().parents[2]
# A server gets no more of the user's environment than it needs to work: no tokens, no proxies.
_FROM_OUTSIDE = ("HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
_FROM_OUTSIDE_PREFIXES = ("CUDA_", "NVIDIA_")


@dataclasses.dataclass(frozen=True)
class Server:
    """A command with ``{port}`` to fill in, its routes and what it needs of the environment."""

    command: list[str]
    scoring_path: str
    liveness_path: str
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    is_chat: bool = False  # one that takes the chat form on trust, and ends a stream without a word

    def at(self, port: int) -> list[str]:
        """The command that serves on this port."""
        return [part.replace("{port}", str(port)) for part in self.command]


def server_of(body: DeploymentBody, code: Path) -> Server:
    """How to run what a deployment asks for; ``code`` is the deployment's own copy of the code folder."""
    model, server = str(body.model), body.server
    if server.kind == "transformers_serve":
        # The file beside this interpreter, which is the one of its environment whatever PATH says.
        serve = [str(Path(sys.executable).with_name("transformers")), "serve", model]
        command = [*serve, "--host", "127.0.0.1", "--port", "{port}"]
        return Server(command, "/v1/chat/completions", "/health", is_chat=True)
    if server.kind == "inference_server":
        script = ["--entry_script", str(code / server.scoring_script), "--model_dir", model, "--port", "{port}"]
        command = [sys.executable, "-m", "localml.inference_server", *script]
        # All would put their control socket at the same place in the home folder.
        variables = {"PYTHONPATH": str(_SCRIPTS), "GUNICORN_CMD_ARGS": "--no-control-socket"}
        return Server(command, "/score", "/", variables)
    command = [part.replace("{model}", model) for part in server.command]
    return Server(command, server.scoring_path, server.liveness_path)


def environment_of(body: DeploymentBody, server: Server, num_instances: int) -> dict[str, str]:
    """The variables of one instance: its share of the cores, and what the deployment asks for."""
    outside = {
        name: value
        for name, value in os.environ.items()
        if name in _FROM_OUTSIDE or name.startswith(_FROM_OUTSIDE_PREFIXES)
    }
    return {
        **outside,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(max(1, num_cores() // num_instances)),
        **server.variables,
        **body.environment_variables,
        "AZUREML_MODEL_DIR": str(body.model),
    }
