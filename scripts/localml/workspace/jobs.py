"""The jobs of a local workspace: accepted once, queued, run each in its own process, found again after a kill.

Of a job the store has three things: ``jobs``, which clients see; ``submissions``, what was sent, which never changes;
``runs``, what only we need to know (its process, its times, its outputs).
"""

import collections
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil

from localml.store import Store
from localml.workspace.arm import ArmError, Place, envelope, invalid, not_found, now
from localml.workspace.job_files import named
from localml.workspace.resource_store import ResourceStore

ENDED = ("Completed", "Failed", "Canceled")
_SCRIPTS = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.2
_CANCEL_SECONDS = 30.0  # then the process of a job is killed
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_OF_THE_JOB = re.compile(r"\$\{\{parent\.inputs\.(?P<port>[^}.]+)\}\}")
# What a client may still change of a job that is there.
_CHANGEABLE = ("tags", "description", "displayName", "isArchived", "properties")
_OF_THE_WORKSPACE = ("status", "services")  # which a client that has read a job sends back


class Jobs:
    """``start`` begins to run what is queued, in a thread of its own."""

    def __init__(self, store: ResourceStore, root: Path, studio: Any, variables: dict[str, str], at_once: int) -> None:
        self._store, self._root, self._studio, self._variables = store, root, studio, variables
        self._at_once = at_once
        self._queue: collections.deque[str] = collections.deque()
        self._processes: dict[str, subprocess.Popen | psutil.Process] = {}
        self._kill_at: dict[str, float] = {}
        self._stopping, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        for job in reversed(self._store.all("jobs")):
            self._find_again(job["name"], job["properties"]["status"])
        self._thread.start()

    def stop(self) -> None:
        """Starts nothing more; what runs goes on and is found again by the next workspace."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def submit(self, place: Place, name: str, body: Any) -> Any:
        """A new job, queued; the same one again is the one that is there."""
        properties = (body or {}).get("properties") or {}
        if not _NAME.fullmatch(name):
            raise invalid(f"{name!r} is no name of a job: letters, digits, - and _, at most 255.")
        if properties.get("jobType") != "Pipeline":
            raise invalid(f"A {properties.get('jobType')} job does not run here; make it a node of a pipeline.")
        self._check(place, properties)
        studio = {"endpoint": self._studio.address(name), "jobServiceType": "Studio"}
        shown = properties | {"status": "NotStarted", "services": {"Studio": studio}}
        made = envelope(f"{place.scope}/jobs/{name}", "jobs", shown)
        with self._store.transaction():
            if self._store.add("jobs", name, "", made):
                self._store.add("submissions", name, "", properties)
                self._store.add("runs", name, "", {"properties": {}})
                self._queue.append(name)
                self._wake.set()
                return made
        known = self._store.get("submissions", name)
        fixed = (known.keys() | properties.keys()) - {*_CHANGEABLE, *_OF_THE_WORKSPACE}
        changed = sorted(key for key in fixed if not _is_same(known.get(key), properties.get(key)))
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
            seen.add(place := waiting.pop())
            if (component := self._store.get(*place.key)) is None:
                raise invalid(f"The job names {place}, which is not in {place.where}.")
            waiting |= named(component["properties"]) - seen
        computes = [node.get("computeId") for node in properties.get("jobs", {}).values()]
        for compute in [*computes, (properties.get("settings") or {}).get("default_compute")]:
            found = Place.of(compute or "")
            if found and self._store.get("computes", found.tail[1]) is None:
                raise invalid(f"The compute {found.tail[1]} is not in this workspace.")
        for owner in (properties, *properties.get("jobs", {}).values()):
            for port, given in (owner.get("inputs") or {}).items():
                found = Place.of(str(given.get("uri", "")))
                if found and found.is_version and self._store.get(*found.key) is None:
                    raise invalid(f"Input {port} names {found}, which is not in {found.where}.")
                bound = _OF_THE_JOB.fullmatch(str(given.get("value", "")))
                if bound and bound["port"] not in (properties.get("inputs") or {}):
                    raise invalid(
                        f"Input {port} is bound to {bound[0]}, which the job does not give; "
                        "azure-ai-ml does not send one that is null or an empty text."
                    )

    def get(self, name: str) -> Any:
        if (found := self._store.get("jobs", name)) is None:
            raise not_found(f"Job {name}")
        return found

    def run_of(self, name: str) -> dict[str, Any]:
        """What is known of how a job runs or ran."""
        return self._store.get("runs", name)["properties"]

    def page(self, query: dict[str, str], size: int = 100) -> tuple[list[Any], int | None]:
        """The jobs that a client asks for, the newest first, and where the next page begins."""
        view = query.get("listViewType", "ActiveOnly")
        skip = query.get("$skip", "")
        found = self._store.page("jobs", size, int(skip) if skip.isdecimal() else None)
        jobs = []
        for _, job in found:
            properties = job["properties"]
            is_shown = view == "All" or bool(properties.get("isArchived")) == (view == "ArchivedOnly")
            if is_shown and query.get("tag", "") in ("", *(properties.get("tags") or {})):
                jobs.append(job)
        return jobs, found[-1][0] if len(found) == size else None

    def cancel(self, name: str) -> None:
        """At once where the job is queued; a job that runs gets the time to end its steps."""
        with self._store.transaction():
            status = self.get(name)["properties"]["status"]
            if status in (*ENDED, "CancelRequested"):
                return
            if status == "NotStarted":
                close(self._store, name, "Canceled")
                return
            self._store.change("jobs", name, {"status": "CancelRequested"})
        if process := alive(self.run_of(name).get("process")):
            self._end(name, process)

    def _end(self, name: str, process: psutil.Process) -> None:
        self._kill_at[name] = time.monotonic() + _CANCEL_SECONDS
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)

    def delete(self, name: str) -> None:
        """What is known of a job that has ended; its files stay."""
        with self._store.transaction():
            if (status := self.get(name)["properties"]["status"]) not in ENDED:
                raise ArmError(409, "Conflict", f"Job {name} is {status}; cancel it first.")
            for kind in ("jobs", "submissions", "runs"):
                self._store.delete(kind, name)
            for step in self.steps(name):
                self._store.delete("steps", name, step["name"])

    def steps(self, name: str) -> list[dict[str, Any]]:
        """The steps of a job that have started, in that order."""
        return [body for _, body in reversed(self._store.versions("steps", name))]

    def step(self, run_id: str) -> tuple[str, dict[str, Any]] | None:
        """The job and the step that the id of a run is for: JOB_STEP."""
        for place in (match.start() for match in re.finditer("_", run_id)):
            if found := self._store.get("steps", run_id[:place], run_id[place + 1 :]):
                return run_id[:place], found
        return None

    def _run(self) -> None:
        while not self._stopping.is_set():
            for name, process in list(self._processes.items()):
                if _has_ended(process):
                    self._close(name)
                elif time.monotonic() > self._kill_at.get(name, float("inf")):
                    process.kill()
            while self._queue and len(self._processes) < self._at_once:
                self._begin(self._queue.popleft())
            self._wake.wait(_POLL_SECONDS if self._processes else None)
            self._wake.clear()

    def _find_again(self, name: str, status: str) -> None:
        """After a kill of the workspace: jobs that still run are watched; those that died with it go on."""
        if status in ENDED:
            return
        if process := alive(self.run_of(name).get("process")):
            self._processes[name] = process
            if status == "CancelRequested":  # the workspace may have ended before it told the process
                self._end(name, process)
        elif status == "CancelRequested":
            close(self._store, name, "Canceled")
        else:
            self._store.change("jobs", name, {"status": "NotStarted"})
            self._queue.append(name)

    def _begin(self, name: str) -> None:
        """Start the process of a job, which takes the job for itself: whoever else started one, it runs once."""
        folder = self._root / "workspace" / "jobs" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "std_log.txt").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "localml.workspace.job_process", str(self._root), name],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, **self._variables, "PYTHONPATH": str(_SCRIPTS)},
                )
        except OSError as error:
            close(self._store, name, "Failed", f"The job could not be started: {error}")

    def _close(self, name: str) -> None:
        """A process that ended without a word of its own has failed; the steps that it left are ended."""
        process = self._processes.pop(name)
        self._kill_at.pop(name, None)
        try:
            job = self._store.get("jobs", name)
            status = job["properties"]["status"] if job else "Canceled"
            if status in ENDED:
                return
            Store(self._root).end_orphans()
            if status == "CancelRequested":
                close(self._store, name, "Canceled")
            elif alive(known := self.run_of(name).get("process")) and known["pid"] != process.pid:
                self._processes[name] = psutil.Process(known["pid"])  # it was taken by another one
            else:
                close(self._store, name, "Failed", "The process of the job was killed; see its execution log.")
        except Exception:  # the other jobs go on
            traceback.print_exc()


def close(store: ResourceStore, name: str, status: str, message: str = "", code: str = "UserError") -> None:
    """The end of a job, and of the steps of it that did not come to one."""
    with store.transaction():
        for step_name, step in store.versions("steps", name):
            if step["status"] not in (*ENDED, "NotStarted"):
                left = "Canceled" if status == "Canceled" else "Failed"
                store.put("steps", name, step_name, step | {"status": left, "at": now()})
        error = {"error": {"code": code, "message": message}} if message else {}
        store.change("runs", name, {"ended": now(), **error})
        store.change("jobs", name, {"status": status})


def alive(known: dict[str, Any] | None) -> psutil.Process | None:
    """The process of a job, unless its number went to another one since."""
    try:
        process = psutil.Process(known["pid"]) if known else None
        return process if process and process.create_time() == known["created"] and not _has_ended(process) else None
    except psutil.NoSuchProcess:
        return None


def _has_ended(process: subprocess.Popen | psutil.Process) -> bool:
    if isinstance(process, subprocess.Popen):
        return process.poll() is not None
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _is_same(known: Any, given: Any) -> bool:
    """Whether it was sent before: a client that has read a job sends it back with fields that are not set."""
    if isinstance(known, dict) and isinstance(given, dict):
        return all(_is_same(known.get(key), given.get(key)) for key in known.keys() | given.keys())
    return known == given
