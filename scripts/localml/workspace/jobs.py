"""The jobs of a local workspace: accepted once, queued, run each in its own process, found again after a kill."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

from localml.workspace.arm import ArmError, Place, envelope, invalid, not_found, now
from localml.workspace.job_files import named
from localml.workspace.resource_store import ResourceStore

ENDED = ("Completed", "Failed", "Canceled")
_AT_ONCE = 2  # jobs; each has steps that run side by side as well
_SCRIPTS = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.2
# What a client may still change of a job that is there.
_CHANGEABLE = ("tags", "description", "displayName", "isArchived", "properties")


class Jobs:
    """``start`` begins to run what is queued, in a thread of its own."""

    def __init__(self, store: ResourceStore, root: Path, studio_url: str, variables: dict[str, str]) -> None:
        self._store, self._root, self._studio_url, self._variables = store, root, studio_url, variables
        self._processes: dict[str, subprocess.Popen | psutil.Process] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Starts nothing more; what runs goes on and is found again by the next workspace."""
        self._stopping.set()
        self._thread.join()

    def submit(self, place: Place, name: str, body: Any) -> Any:
        """A new job, queued; the same one again is the one that is there."""
        properties = (body or {}).get("properties") or {}
        if properties.get("jobType") != "Pipeline":
            raise invalid(f"A {properties.get('jobType')} job does not run here; make it a node of a pipeline.")
        self._check(place, properties)
        studio = {"endpoint": f"{self._studio_url}/runs/{name}", "jobServiceType": "Studio"}
        made = envelope(
            f"{place.scope}/jobs/{name}",
            "jobs",
            properties | {"status": "NotStarted", "services": {"Studio": studio}, "submitted": properties},
        )
        if self._store.add("jobs", name, "", made):
            return made
        known = self._store.get("jobs", name)
        fixed = {key: value for key, value in known["properties"]["submitted"].items() if key not in _CHANGEABLE}
        changed = sorted(key for key in fixed if fixed[key] != properties.get(key))
        if changed:
            raise ArmError(
                409,
                "Conflict",
                f"Job {name} exists already and is another one ({', '.join(changed)}); take a new name.",
            )
        return self._store.change("jobs", name, {key: properties[key] for key in _CHANGEABLE if key in properties})

    def _check(self, place: Place, properties: dict[str, Any]) -> None:
        """What Azure refuses at submission: components, data and clusters that are not there."""
        waiting, seen = named(properties), set()
        while waiting:
            resource_id = waiting.pop()
            seen.add(resource_id)
            _, name, _, version = Place.of(resource_id).tail
            component = self._store.get("components", name, version)
            if component is None:
                raise invalid(f"The job names the component {name}:{version}, which is not in this workspace.")
            waiting |= named(component["properties"]) - seen
        computes = [node.get("computeId") for node in properties.get("jobs", {}).values()]
        for compute in [*computes, (properties.get("settings") or {}).get("default_compute")]:
            found = Place.of(compute or "")
            if found and self._store.get("computes", found.tail[1]) is None:
                raise invalid(f"The compute {found.tail[1]} is not in this workspace.")
        for port, given in (properties.get("inputs") or {}).items():
            found = Place.of(str(given.get("uri", "")).removeprefix("azureml:"))
            if found and len(found.tail) == 4:
                kind, name, _, version = found.tail
                if self._store.get(kind, name, version) is None:
                    raise invalid(f"Input {port} names {kind} {name}:{version}, which is not in this workspace.")

    def get(self, name: str) -> Any:
        if (found := self._store.get("jobs", name)) is None:
            raise not_found(f"Job {name}")
        return found

    def cancel(self, name: str) -> None:
        job = self.get(name)
        if job["properties"]["status"] in ENDED:
            return
        with self._lock:
            process = self._processes.get(name)
            self._store.change("jobs", name, {"status": "CancelRequested" if process else "Canceled"})
        if process:
            os.kill(process.pid, signal.SIGTERM)

    def steps(self, name: str) -> list[dict[str, Any]]:
        """The steps of a job that have started, in that order."""
        return [body for _, body in reversed(self._store.versions("steps", name))]

    def _run(self) -> None:
        self._find_again()
        while not self._stopping.wait(_POLL_SECONDS):
            for name, process in list(self._processes.items()):
                if _has_ended(process):
                    self._close(name)
            queued = [job for job in reversed(self._store.all("jobs")) if _status(job) == "NotStarted"]
            for job in queued[: _AT_ONCE - len(self._processes)]:
                self._begin(job["name"])

    def _find_again(self) -> None:
        """After a kill of the workspace: jobs that still run are watched; those that died with it go on."""
        for job in self._store.all("jobs"):
            if _status(job) in ("NotStarted", *ENDED):
                continue
            if process := _alive(job["properties"].get("process")):
                self._processes[job["name"]] = process
            elif _status(job) == "CancelRequested":
                self._store.change("jobs", job["name"], {"status": "Canceled", "ended": now()})
            else:
                self._store.change("jobs", job["name"], {"status": "NotStarted"})

    def _begin(self, name: str) -> None:
        folder = self._root / "workspace" / "jobs" / name
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock, (folder / "executionlogs.txt").open("ab") as log:
            if _status(self.get(name)) != "NotStarted":  # canceled meanwhile
                return
            process = subprocess.Popen(
                [sys.executable, "-m", "localml.workspace.job_process", str(self._root), name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **self._variables, "PYTHONPATH": str(_SCRIPTS)},
            )
            known = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
            self._store.change("jobs", name, {"status": "Preparing", "process": known, "started": now()})
            self._processes[name] = process

    def _close(self, name: str) -> None:
        """A process that ended without a word of its own has failed."""
        with self._lock:
            del self._processes[name]
            status = _status(self.get(name))
            if status == "CancelRequested":
                self._store.change("jobs", name, {"status": "Canceled", "ended": now()})
            elif status not in ENDED:
                why = {"code": "UserError", "message": "The job's process was killed; see its execution log."}
                self._store.change("jobs", name, {"status": "Failed", "error": why, "ended": now()})


def _status(job: Any) -> str:
    return job["properties"]["status"]


def _alive(known: dict[str, Any] | None) -> psutil.Process | None:
    """The process of a job, unless its number went to another one since."""
    try:
        process = psutil.Process(known["pid"]) if known else None
        return process if process and process.create_time() == known["created"] else None
    except psutil.NoSuchProcess:
        return None


def _has_ended(process: subprocess.Popen | psutil.Process) -> bool:
    if isinstance(process, subprocess.Popen):
        return process.poll() is not None
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
