"""The next cycle on this machine: a pipeline job in a process of its own, by scripts/run.py, once for a decision.

The lock of a job is handed to its process, so it is held as long as the job runs, whoever started it and whether that
one still lives. What a finished job was, the runner has written into its folder.
"""

import contextlib
import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml
from retraining_job import FAILED, REFUSED, Outcome, Wanted

from slmkit.errors import UserError

STATUS = {"FINISHED": "Completed", "FAILED": "Failed", "KILLED": "Canceled"}  # MLflow's word, Azure ML's
OF_THIS_STEP = ("MLFLOW_", "AZUREML_", "AZURE_ML_", "LOCALML_")
LAST_LINES = 10
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Runner:
    """The runner that this step runs under: the project with its job files, its root, and the command to run one."""

    project: Path
    root: Path
    command: tuple[str, ...]

    @classmethod
    def found(cls, environment: Mapping[str, str]) -> "Runner":
        try:
            command = tuple(json.loads(environment["LOCALML_RUN"]))
            return cls(Path(environment["LOCALML_PROJECT"]).resolve(), Path(environment["LOCALML_ROOT"]), command)
        except KeyError:
            raise UserError("target local: works under scripts/run.py; elsewhere take azure or github") from None

    def job_file(self, pipeline: str) -> Path:
        path = (self.project / pipeline).resolve()
        if not path.is_relative_to(self.project):
            raise UserError(f"pipeline {pipeline!r:.120} is outside of the project; name one of its job files", REFUSED)
        if not path.is_file():
            raise UserError(f"pipeline {pipeline!r:.120}: no such file in {self.project}", REFUSED)
        return path

    def finished(self, job_name: str) -> dict[str, Any]:
        """What the runner wrote when the job had ended; nothing for one that never ran or was killed."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.root / "jobs" / job_name / "job.json").read_text(encoding="utf-8"))
        return {}


def start(wanted: Wanted, *, dry_run: bool, wait: bool) -> Outcome:
    runner = Runner.found(os.environ)
    command = [*runner.command, "--file", str(runner.job_file(wanted.pipeline)), "--name", wanted.name]
    for name, value in wanted.inputs.items():
        command += ["--set", _setting(name, value)]
    folder = runner.root / "retrainings"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{wanted.name}.lock").open("a") as lock:
        is_ours = _lock(lock, wait=wait and not dry_run)
        if not is_ours and (dry_run or not wait):
            return _outcome(runner, wanted.name, False, "it runs already", "Running")
        known = runner.finished(wanted.name).get("status")
        if known == "FINISHED":
            return _outcome(runner, wanted.name, False, "it has run already", STATUS[known])
        if not is_ours:
            raise UserError(f"{wanted.name}, started by another step, {STATUS.get(known, 'Failed')}", FAILED)
        if dry_run:
            _check(runner, command)
            return _outcome(runner, wanted.name, False, "dry_run: it would be started", None)
        return _run(runner, wanted.name, command, folder / f"{wanted.name}.log", lock, wait)


def _run(runner: Runner, name: str, command: list[str], log: Path, lock: IO[str], wait: bool) -> Outcome:
    shutil.rmtree(runner.root / "jobs" / name, ignore_errors=True)  # links, of an attempt that failed
    print(f"{name}: started; log: {log}", flush=True)
    with _stops_at_sigterm(), log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=runner.project,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(lock.fileno(),),
            start_new_session=True,  # it outlives this step, or is asked by this step to stop, once
        )
        if not wait:
            return _outcome(runner, name, True, "started", "Running")
        try:
            exit_code = process.wait()
        finally:
            _stop(process)
    if exit_code:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        print(*(f"  | {line}" for line in lines), sep="\n", file=sys.stderr)
        said = next((line for line in reversed(lines) if "error:" in line), lines[-1] if lines else "it said nothing")
        raise UserError(f"{name} failed with exit code {exit_code}: {said.strip()}; log: {log}", FAILED)
    return _outcome(runner, name, True, "started", "Completed")


def _check(runner: Runner, command: list[str]) -> None:
    """All that the runner checks before the first step: the file, its inputs, the data."""
    done = subprocess.run(
        [*command, "--dry-run"], cwd=runner.project, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["run.py said nothing"])[-1], REFUSED)


def _outcome(runner: Runner, name: str, started: bool, why: str, status: str | None) -> Outcome:
    folder = runner.root / "jobs" / name
    endpoint = runner.finished(name).get("outputs", {}).get("endpoint") if status == "Completed" else None
    return Outcome(started, why, name, folder.as_uri(), status, (folder / endpoint).read_bytes() if endpoint else None)


def _setting(name: str, value: Any) -> str:
    """As --set reads it: text in quotes as YAML, so that a name like 007 or {a} stays one."""
    key, content = (f"inputs.{name}.path", value["path"]) if isinstance(value, dict) else (f"inputs.{name}", value)
    if isinstance(content, str):
        text = yaml.safe_dump(content, default_style='"', allow_unicode=True, width=math.inf).strip()
    else:
        text = json.dumps(content)
    return f"{key}={text}"


def _lock(file: IO[str], *, wait: bool) -> bool:
    """Whether the lock was free; with ``wait`` it is held afterwards in any case."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if wait:
            with _stops_at_sigterm():
                fcntl.flock(file, fcntl.LOCK_EX)
        return False
    return True


def _environment() -> dict[str, str]:
    """The new job has a run of its own in MLflow."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OF_THIS_STEP)}


@contextlib.contextmanager
def _stops_at_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(process: subprocess.Popen) -> None:
    """The runner ends its steps and closes its runs when it is asked to."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
