"""Runs one step: its key, its snapshot, its processes, its outputs and its run in MLflow; or finds it done already."""

import dataclasses
import json
import os
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import Any

from localml import command, process, snapshot, store
from localml.assets import Assets
from localml.endpoints import client
from localml.environments import Environments
from localml.graph import Data, FromStep, Literal, Step
from localml.hashing import ContentHashes
from localml.progress import Progress
from localml.store import Finished, Store
from localml.tracking import Tracker

_SCRIPTS = Path(__file__).resolve().parents[1]
_LOG_LINES_ON_FAILURE = 15
_FROM_OUTSIDE = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_FROM_OUTSIDE_PREFIXES = ("HF_", "AZURE_", "OMP_", "MKL_", "CUDA_", "NVIDIA_", "SLMKIT_", "HTTP_", "HTTPS_", "NO_PROXY")
# By these a step of a job of the local workspace finds it, signs in, and calls MLflow's server.
_OF_A_WORKSPACE = (
    "IDENTITY_",
    "ARM_CLOUD_",
    "AZUREML_ARM_",
    "AZUREML_CURRENT_CLOUD",
    "REGISTRY_DISCOVERY_",
    "MLFLOW_TRACKING_TOKEN",
)


class StepError(Exception):
    """A step ended with an exit code that is not 0, or without one of its outputs."""

    def __init__(self, step: str, reason: str, log: Path, repeat: Path | None) -> None:
        super().__init__(f"step {step}: {reason}")
        self.reason, self.log, self.repeat = reason, log, repeat

    def details(self) -> str:
        """The end of the log and the way to run the step again."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES_ON_FAILURE:]
        except OSError:
            lines = []
        text = "".join(f"  | {line}\n" for line in lines) + f"  log:    {self.log}\n"
        return text + (f"  repeat: bash {shlex.quote(str(self.repeat))}\n" if self.repeat else "")


class StepEndedError(Exception):
    """A step was ended by ``Execution.end`` before it was finished."""


@dataclasses.dataclass
class Execution:
    """What the steps of one run share, and the way to run one of them."""

    job_name: str
    root: Path
    assets: Assets
    environments: Environments
    tracker: Tracker | None
    progress: Progress
    force_rerun: bool

    def __post_init__(self) -> None:
        self.store = Store(self.root)
        self.hashes = ContentHashes(self.root / "hashes.json")
        self.run_ids: dict[str, str] = {}  # in MLflow, by step
        self.stopping = threading.Event()
        self._snapshots: dict[str, snapshot.Snapshot] = {}
        self._running: dict[str, process.StepProcesses] = {}
        self._ended: set[str] = set()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End everything that runs; what has not started yet raises ``KeyboardInterrupt``."""
        self.stopping.set()
        with self._lock:
            running = list(self._running.values())
        for processes in running:
            processes.stop()

    def end(self, step_name: str) -> None:
        """End one step, whose ``run`` then raises ``StepEndedError``."""
        with self._lock:
            self._ended.add(step_name)
            processes = self._running.get(step_name)
        if processes:
            processes.stop()

    def snapshot(self, step: Step) -> snapshot.Snapshot:
        """The code of a step; steps of one component share it."""
        source = str(step.component._source_path)
        if source not in self._snapshots:
            self._snapshots[source] = snapshot.take(step.component)
        return self._snapshots[source]

    def input_paths(self, step: Step, finished: dict[str, Finished]) -> dict[str, Path]:
        """Where the data of a step lie, by input."""
        paths = {}
        for port, binding in step.inputs.items():
            if isinstance(binding, Data):
                paths[port] = self.assets.resolve(f"{step.name}.inputs.{port}", binding.path)
            elif isinstance(binding, FromStep):
                paths[port] = finished[binding.step].output(binding.port)
        return paths

    def key(self, step: Step, finished: dict[str, Finished]) -> str:
        """What a step is known by in the store: all that its outputs depend on."""
        inputs: dict[str, Any] = {port: b.value for port, b in step.inputs.items() if isinstance(b, Literal)}
        for port, path in self.input_paths(step, finished).items():
            binding = step.inputs[port]
            known = finished[binding.step].hashes[binding.port] if isinstance(binding, FromStep) else None
            inputs[port] = {"sha256": known or self.hashes.of(path)}
        parts = {
            "component": step.component_name,
            "code": self.snapshot(step).sha256,
            "command": step.component.command,
            "inputs": inputs,
            "environment": self.environments.identity(step.component),
            "environment_variables": step.environment_variables,
            "processes": step.num_processes,
        }
        return store.key_of({**parts, "sweep": step.sweep.identity} if step.sweep else parts)

    def is_reusable(self, step: Step) -> bool:
        """Whether equal keys mean equal outputs, and nobody asked for new ones."""
        return bool(step.component.is_deterministic) and not self.force_rerun

    def own_key(self, step: Step, key: str) -> str:
        """The key of what is kept for this job alone, but goes on in the same place after a kill."""
        return store.key_of({"key": key, "job": self.job_name, "step": step.name})

    def run(
        self, step: Step, finished: dict[str, Finished], *, parent: str | None = None, threads: int | None = None
    ) -> tuple[Finished, bool]:
        """A step's outputs, and whether they were there already.

        ``parent`` is the run in MLflow that it belongs to where that is not the job's, ``threads`` what a process of it
        may take of the processor.
        """
        key = self.key(step, finished)
        reusable = self.is_reusable(step)
        final_key = key if reusable else self.own_key(step, key)
        if reusable and (found := self.store.find(key)):
            return found, True
        tags = step.component.tags or {}
        with self.store.working(key, keep_partial=tags.get("resumable") == "true") as (work, lock):
            if reusable and (found := self.store.find(key)):  # finished by the run that we waited for
                return found, True
            return self._execute(step, self.input_paths(step, finished), work, lock, final_key, parent, threads), False

    def _execute(
        self,
        step: Step,
        paths: dict[str, Path],
        work: Path,
        lock: int,
        key: str,
        parent: str | None,
        threads: int | None,
    ) -> Finished:
        self.progress.set(step.name, "running")
        started = time.monotonic()
        code, outputs, log = work / "code", work / "outputs", work / "std_log.txt"
        self.snapshot(step).copy_to(code)
        outputs.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        ports = {name: outputs / name for name in step.component.outputs}
        for name, port in step.component.outputs.items():
            if port.type != "uri_file":
                ports[name].mkdir(exist_ok=True)  # Azure ML mounts an output folder before the step starts
        values = {name: str(b.value) for name, b in step.inputs.items() if isinstance(b, Literal)}
        arguments = command.render(step.name, step.component.command, {**values, **paths}, ports)
        variables = self._variables(step, paths, ports, threads)
        run_id = self.tracker.start_step(step.name, {"localml.step": key}, parent) if self.tracker else ""
        if self.tracker:
            variables |= self.tracker.environment(run_id)
        self.run_ids[step.name] = run_id
        status = "KILLED"
        try:
            self._wait_for(step, arguments, code, log, variables, lock)
            hashes = {name: self._hashed(step, name, path, log) for name, path in ports.items()}
            facts = {"step": step.name, "job": self.job_name, "component": step.component_name, "run_id": run_id}
            finished = self.store.commit(key, work, hashes, time.monotonic() - started, facts)
            status = "FINISHED"
        except StepError:
            status = "FAILED"
            raise
        finally:
            if self.tracker:
                self.tracker.end_step(run_id, status)
        self.progress.set(step.name, "finished", finished.seconds)
        return finished

    def _wait_for(
        self, step: Step, arguments: list[str], code: Path, log: Path, variables: dict[str, str], lock: int
    ) -> None:
        repeat = code.parent / "repeat.sh"
        ours = {name: value for name, value in variables.items() if os.environ.get(name) != value}
        process.write_repeat_script(repeat, arguments, code, ours)
        with self._lock:
            if self.stopping.is_set():
                raise KeyboardInterrupt
            if step.name in self._ended:
                raise StepEndedError
            processes = process.StepProcesses(
                arguments,
                folder=code,
                log=log,
                environment=variables,
                num_processes=step.num_processes,
                distributed=step.distributed,
                keep_open=(lock,),
                on_line=lambda line: self.progress.line(step.name, line),
            )
            self._running[step.name] = processes
        try:
            store.record_owner(code.parent, processes.groups)
            exit_code = processes.wait()
        finally:
            processes.stop()
            with self._lock:
                del self._running[step.name]
        if exit_code and step.name in self._ended:
            raise StepEndedError
        if exit_code:
            ended = f"ended by signal {-exit_code}" if exit_code < 0 else f"failed with exit code {exit_code}"
            raise StepError(step.name, f"{ended}{_last_error(log)}", log, repeat)

    def _hashed(self, step: Step, port: str, path: Path, log: Path) -> str:
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            raise StepError(step.name, f"exited 0 but wrote nothing to its output {port!r}", log, None)
        return self.hashes.of(path)

    def _variables(
        self, step: Step, paths: dict[str, Path], ports: dict[str, Path], threads: int | None
    ) -> dict[str, str]:
        """A step sees what Azure ML would show it, and of this machine only what it needs to work at all."""
        bin_folder = self.environments.bin_folder(step.component)
        outside = {
            name: value
            for name, value in os.environ.items()
            if name in _FROM_OUTSIDE or name.upper().startswith((*_FROM_OUTSIDE_PREFIXES, *_OF_A_WORKSPACE))
        }
        if threads is None and step.num_processes > 1:
            threads = process.num_cores() // step.num_processes
        return {
            **({} if threads is None else {"OMP_NUM_THREADS": str(max(1, threads))}),
            **outside,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            **{f"AZURE_ML_INPUT_{name}": str(path) for name, path in paths.items()},
            **{f"AZURE_ML_OUTPUT_{name}": str(path) for name, path in ports.items()},
            **self._local_services(step),
            **step.environment_variables,
        }

    def _local_services(self, step: Step) -> dict[str, str]:
        """Where a step finds what stands in for a service of Azure and outlives the job."""
        service = (step.component.tags or {}).get("local_service")
        if service == "endpoints":
            return {"LOCALML_ENDPOINTS": str(client.ensure_host(self.root))}
        if service == "pipelines":
            run = [sys.executable, str(_SCRIPTS / "run.py"), "--root", str(self.root), "--env", self.environments.mode]
            return {
                "LOCALML_PROJECT": str(_SCRIPTS.parent),
                "LOCALML_ROOT": str(self.root),
                "LOCALML_RUN": json.dumps(run),
            }
        return {}


def _last_error(log: Path) -> str:
    """The step's own last word, for the one line that everybody reads."""
    try:
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
    except OSError:
        return ""
    return f": {lines[-1]}" if lines else ""
