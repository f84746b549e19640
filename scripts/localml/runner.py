"""Runs the steps of a job side by side as their inputs become ready, and reuses those that are already done."""

import dataclasses
import os
import shlex
import shutil
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from localml import command, process, snapshot, store
from localml.assets import Assets
from localml.environments import Environments
from localml.graph import Data, FromStep, Graph, Literal, Step
from localml.hashing import ContentHashes
from localml.progress import Progress
from localml.store import Finished, Store
from localml.tracking import Tracker

_LOG_LINES_ON_FAILURE = 15
_FROM_OUTSIDE = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_FROM_OUTSIDE_PREFIXES = ("HF_", "AZURE_", "OMP_", "MKL_", "CUDA_", "NVIDIA_", "SLMKIT_", "HTTP_", "HTTPS_", "NO_PROXY")


class StepError(Exception):
    """A step ended with an exit code that is not 0, or without one of its outputs."""

    def __init__(self, step: str, reason: str, log: Path, repeat: Path | None) -> None:
        super().__init__(f"step {step}: {reason}")
        self.log, self.repeat = log, repeat

    def details(self) -> str:
        """The end of the log and the way to run the step again."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES_ON_FAILURE:]
        except OSError:
            lines = []
        text = "".join(f"  | {line}\n" for line in lines) + f"  log:    {self.log}\n"
        return text + (f"  repeat: bash {shlex.quote(str(self.repeat))}\n" if self.repeat else "")


@dataclasses.dataclass
class Runner:
    """Everything that the steps of one run share."""

    graph: Graph
    job_name: str
    root: Path
    assets: Assets
    environments: Environments
    tracker: Tracker | None
    progress: Progress
    force_rerun: bool = False

    def __post_init__(self) -> None:
        self.finished: dict[str, Finished] = {}
        self.reused: set[str] = set()
        self._store = Store(self.root)
        self._hashes = ContentHashes(self.root / "hashes.json")
        self._snapshots: dict[str, snapshot.Snapshot] = {}
        self._running: dict[str, process.StepProcesses] = {}
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Run all steps; raises ``StepError`` when those that were under way have ended too."""
        waiting = dict(self.graph.steps)
        failure: BaseException | None = None
        with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as pool:
            futures = {}
            try:
                while waiting or futures:
                    if failure is None:
                        for name in [n for n, step in waiting.items() if step.needs <= self.finished.keys()]:
                            futures[pool.submit(self._run_step, waiting.pop(name))] = name
                    if not futures:
                        break
                    done, _ = wait(futures, return_when=FIRST_COMPLETED)
                    for future in done:
                        name = futures.pop(future)
                        if future.exception() is None:
                            self.finished[name] = future.result()
                        else:
                            self.progress.set(name, "failed")
                            failure = failure or future.exception()
            except KeyboardInterrupt:
                self._stop()
                raise
            finally:
                self._hashes.save()
        for name in waiting:
            self.progress.set(name, "not run")
        if failure is not None:
            raise failure

    def check(self) -> None:
        """Find what is missing before the first step starts: data, code, a command that names an absent port."""
        for step in self.graph.steps.values():
            for port, binding in step.inputs.items():
                if isinstance(binding, Data):
                    self.assets.resolve(f"{step.name}.inputs.{port}", binding.path)
            self._snapshot(step)
            nowhere = {port: Path(port) for port in step.component.outputs}
            command.render(step.name, step.component.command, dict.fromkeys(step.inputs, ""), nowhere)

    def known(self, step: Step) -> Finished | None:
        """The finished step that would be reused, if its inputs are known."""
        if not step.needs <= self.finished.keys() or not step.component.is_deterministic or self.force_rerun:
            return None
        return self._store.find(self._key(step, self._input_paths(step)))

    def _stop(self) -> None:
        self._stopping.set()
        with self._lock:
            running = list(self._running.values())
        for processes in running:
            processes.stop()

    def _snapshot(self, step: Step) -> snapshot.Snapshot:
        source = str(step.component._source_path)
        if source not in self._snapshots:
            self._snapshots[source] = snapshot.take(step.component)
        return self._snapshots[source]

    def _input_paths(self, step: Step) -> dict[str, Path]:
        paths = {}
        for port, binding in step.inputs.items():
            if isinstance(binding, Data):
                paths[port] = self.assets.resolve(f"{step.name}.inputs.{port}", binding.path)
            elif isinstance(binding, FromStep):
                paths[port] = self.finished[binding.step].output(binding.port)
        return paths

    def _key(self, step: Step, paths: dict[str, Path]) -> str:
        inputs: dict[str, Any] = {port: b.value for port, b in step.inputs.items() if isinstance(b, Literal)}
        for port, path in paths.items():
            binding = step.inputs[port]
            known = self.finished[binding.step].hashes[binding.port] if isinstance(binding, FromStep) else None
            inputs[port] = {"sha256": known or self._hashes.of(path)}
        return store.key_of(
            {
                "component": step.component_name,
                "code": self._snapshot(step).sha256,
                "command": step.component.command,
                "inputs": inputs,
                "environment": self.environments.identity(step.component),
                "environment_variables": step.environment_variables,
                "processes": step.num_processes,
            }
        )

    def _run_step(self, step: Step) -> Finished:
        paths = self._input_paths(step)
        key = self._key(step, paths)
        reusable = step.component.is_deterministic and not self.force_rerun
        # What is not deterministic is kept for this job alone, but goes on in the same place after a kill.
        final_key = key if reusable else store.key_of({"key": key, "job": self.job_name, "step": step.name})
        if reusable and (found := self._store.find(key)):
            return self._reuse(step, found)
        tags = step.component.tags or {}
        with self._store.working(key, keep_partial=tags.get("resumable") == "true") as (work, lock):
            if reusable and (found := self._store.find(key)):  # finished by the run that we waited for
                return self._reuse(step, found)
            return self._execute(step, paths, work, lock, final_key)

    def _reuse(self, step: Step, found: Finished) -> Finished:
        if self.tracker:
            self.tracker.reuse_step(step.name, {"localml.step": found.folder.name})
        self.reused.add(step.name)
        self.progress.set(step.name, "reused", found.seconds)
        return found

    def _execute(self, step: Step, paths: dict[str, Path], work: Path, lock: int, key: str) -> Finished:
        self.progress.set(step.name, "running")
        started = time.monotonic()
        code, outputs, log = work / "code", work / "outputs", work / "std_log.txt"
        self._snapshot(step).copy_to(code)
        outputs.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        ports = {name: outputs / name for name in step.component.outputs}
        for name, port in step.component.outputs.items():
            if port.type != "uri_file":
                ports[name].mkdir(exist_ok=True)  # Azure ML mounts an output folder before the step starts
        values = {name: str(b.value) for name, b in step.inputs.items() if isinstance(b, Literal)}
        arguments = command.render(step.name, step.component.command, {**values, **paths}, ports)
        variables = self._variables(step, paths, ports)
        run_id = self.tracker.start_step(step.name, {"localml.step": key}) if self.tracker else ""
        if self.tracker:
            variables |= self.tracker.environment(run_id)
        status = "KILLED"
        try:
            self._wait_for(step, arguments, code, log, variables, lock)
            hashes = {name: self._hashed(step, name, path, log) for name, path in ports.items()}
            facts = {"step": step.name, "job": self.job_name, "component": step.component_name, "run_id": run_id}
            finished = self._store.commit(key, work, hashes, time.monotonic() - started, facts)
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
            if self._stopping.is_set():
                raise KeyboardInterrupt
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
        if exit_code:
            ended = f"ended by signal {-exit_code}" if exit_code < 0 else f"failed with exit code {exit_code}"
            raise StepError(step.name, f"{ended}{_last_error(log)}", log, repeat)

    def _hashed(self, step: Step, port: str, path: Path, log: Path) -> str:
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            raise StepError(step.name, f"exited 0 but wrote nothing to its output {port!r}", log, None)
        return self._hashes.of(path)

    def _variables(self, step: Step, paths: dict[str, Path], ports: dict[str, Path]) -> dict[str, str]:
        """A step sees what Azure ML would show it, and of this machine only what it needs to work at all."""
        bin_folder = self.environments.bin_folder(step.component)
        outside = {
            name: value
            for name, value in os.environ.items()
            if name in _FROM_OUTSIDE or name.upper().startswith(_FROM_OUTSIDE_PREFIXES)
        }
        return {
            **outside,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            **{f"AZURE_ML_INPUT_{name}": str(path) for name, path in paths.items()},
            **{f"AZURE_ML_OUTPUT_{name}": str(path) for name, path in ports.items()},
            **step.environment_variables,
        }


def _last_error(log: Path) -> str:
    """The step's own last word, for the one line that everybody reads."""
    try:
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
    except OSError:
        return ""
    return f": {lines[-1]}" if lines else ""


def link_outputs(runner: Runner, folder: Path) -> dict[str, Path]:
    """Lay the outputs of a job under ``jobs/<name>`` by step and port, as links to where they are stored."""
    for name, finished in runner.finished.items():
        target = folder / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for port in finished.hashes:
            (target / port).symlink_to(finished.output(port))
        if finished.log.exists():
            (target / "std_log.txt").symlink_to(finished.log)
    return {
        name: folder / out.step / out.port for name, out in runner.graph.outputs.items() if out.step in runner.finished
    }


def summary_texts(runner: Runner) -> list[str]:
    """What the steps that are tagged ``prints_summary`` have printed, in the order of the graph."""
    texts = []
    for name, finished in runner.finished.items():
        if (runner.graph.steps[name].component.tags or {}).get("prints_summary") == "true" and finished.log.exists():
            texts.append(finished.log.read_text(encoding="utf-8", errors="replace").rstrip())
    return texts
