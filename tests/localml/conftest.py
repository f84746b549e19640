"""Toy components and jobs, written to a folder for each test."""

import contextlib
import functools
import io
import json
import logging
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PORTS = {
    "text": {"type": "uri_file", "description": "d"},
    "folder": {"type": "uri_folder", "description": "d"},
}
SCRIPT = """
import argparse, os, pathlib, sys, time
class Ports(dict):
    __getattr__ = dict.__getitem__
args = Ports(zip([flag[2:] for flag in sys.argv[1::2]], sys.argv[2::2]))
"""


class WriterHere:
    """`localml.mlflow_writer` within this process: a process of its own takes three seconds for each of 150 jobs.

    What is started as a command line has the real one.
    """

    def __init__(self, command: list[str], **_: object) -> None:
        self._uri, self._answer = command[3], ""
        self.stdin = self.stdout = self

    def write(self, line: str) -> None:
        call, arguments = json.loads(line)
        try:
            answer = {"result": getattr(_writer(self._uri), call)(**arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        self._answer = json.dumps(answer)

    def readline(self) -> str:
        return self._answer

    def flush(self) -> None: ...

    close = kill = wait = flush


@functools.cache
def _writer(uri: str) -> object:
    import mlflow  # noqa: F401  (which sets its level)

    from localml.mlflow_writer import Writer

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it says on standard error that it makes a store
    return Writer(uri)


class Toys:
    """Writes components and jobs under one folder and runs them in a process of their own."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        environment = {"name": "toy", "image": "example.invalid/toy:1", "conda_file": "conda.yml"}
        self._write("environment/environment.yml", environment)
        self._write("environment/conda.yml", {"name": "toy", "dependencies": ["python=3.11.1", {"pip": []}]})

    def _write(self, name: str, content: object) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return path

    def component(self, name: str, script: str, inputs: dict | None = None, outputs: dict | None = None, **more) -> str:
        """Write a component whose script sees its ports as ``args.<port>``; gives the path that a job names."""
        inputs, outputs = inputs or {}, {"out": "text"} if outputs is None else outputs
        inputs = {port: PORTS.get(kind, kind) if isinstance(kind, str) else kind for port, kind in inputs.items()}
        flags = ["python main.py"]
        for port, spec in inputs.items():
            flag = f"--{port} ${{{{inputs.{port}}}}}"
            flags.append(f"$[[{flag}]]" if spec.get("optional") else flag)
        flags += [f"--{port} ${{{{outputs.{port}}}}}" for port in outputs]
        spec = {
            "type": "command",
            "name": name,
            "version": "1",
            "display_name": name,
            "inputs": inputs,
            "outputs": {port: PORTS[kind] for port, kind in outputs.items()},
            "code": ".",
            "environment": "file:../environment/environment.yml",
            "command": " ".join(flags),
            "is_deterministic": True,
            **more,
        }
        self._write(f"{name}/component.yml", spec)
        self._write(f"{name}/main.py", SCRIPT + textwrap.dedent(script))
        return f"../{name}/component.yml"

    def job(self, jobs: dict, name: str = "job", **more) -> Path:
        """Write a pipeline job; a node is given as ``{"component": path, "inputs": {...}}``."""
        nodes = {node: {"type": "command", **content} for node, content in jobs.items()}
        settings = {"default_compute": "azureml:cpu"}
        return self._write(f"jobs/{name}.yml", {"type": "pipeline", "settings": settings, **more, "jobs": nodes})

    def command(self, job: Path, *flags: str) -> list[str]:
        return [sys.executable, str(ROOT / "scripts" / "run.py"), "-f", str(job), "--root", str(self.root), *flags]

    def start(self, job: Path) -> subprocess.Popen:
        """Run the job in a process that Ctrl-C ends, as from a terminal: a test run in the background ignores it."""
        listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(job), stdout=pipe, stderr=pipe, text=True, preexec_fn=listen)

    def run(self, job: Path, *flags: str) -> subprocess.CompletedProcess:
        """Run the job in this process, which has azure-ai-ml and MLflow loaded already."""
        import run
        from localml import tracking

        command = self.command(job, *flags)
        stdout, stderr = io.StringIO(), io.StringIO()
        here = SimpleNamespace(Popen=WriterHere, PIPE=None, DEVNULL=None)
        with (
            mock.patch.object(tracking, "subprocess", here),
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            try:
                code = run.main(command[2:])
            except SystemExit as stop:
                code = stop.code
        return subprocess.CompletedProcess(command, code, stdout.getvalue(), stderr.getvalue())

    def output(self, job_name: str, step: str, port: str = "out") -> str:
        return (self.root / "jobs" / job_name / step / port).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def local_root(tmp_path_factory) -> Path:
    """One store for the whole test session: opening MLflow's database for the first time takes seconds."""
    return tmp_path_factory.mktemp("local")


@pytest.fixture
def toys(tmp_path, local_root) -> Toys:
    return Toys(tmp_path, local_root)
