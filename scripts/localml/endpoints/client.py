"""Finds the host of a root or starts it, and calls its control API."""

import dataclasses
import fcntl
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from localml.endpoints.process_book import ProcessBook
from localml.errors import RunError

_SCRIPTS = Path(__file__).resolve().parents[2]
_START_SECONDS = 30.0
_CALL_SECONDS = 60.0
_ANSWER_SECONDS = 5.0  # of a host that is well


class CallError(RunError):
    """The host refused a call."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclasses.dataclass(frozen=True)
class Host:
    """A host that runs, as its host.json says."""

    url: str
    token: str
    pid: int

    def call(self, method: str, path: str, body: Any = None, timeout: float = _CALL_SECONDS) -> Any:
        """What the control API answers; ``CallError`` where it refuses, ``OSError`` where nobody is there."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=timeout)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionError(f"{self.url} is not the host of these endpoints ({type(error).__name__})") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise CallError(answer.status, content["error"]["code"], content["error"]["message"])
        return content


def find_host(root: Path, seconds: float = _ANSWER_SECONDS) -> Host | None:
    """The host of a root if it runs and answers in time."""
    try:
        content = json.loads(_file(root).read_text(encoding="utf-8"))
        host = Host(content["url"], content["token"], content["pid"])
        host.call("GET", "/onlineEndpoints", timeout=seconds)
        return host
    except (OSError, ValueError, KeyError, TypeError, CallError):
        return None


def running_host(root: Path) -> Host:
    """The host of a root, started unless it runs; all who ask at once get the same one.

    One that runs is not asked first whether it answers: that is seen by the call that it is wanted for.
    """
    if known := _written_by(root):
        return known[0]
    folder = _file(root).parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "start.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deadline = time.monotonic() + _START_SECONDS
        while is_hosted(root):  # by one that is about to answer or to end
            if host := find_host(root, _START_SECONDS):
                return host
            if time.monotonic() > deadline:
                raise RunError(f"the host of {root} does not answer; end it: python scripts/endpoint.py stop")
            time.sleep(0.05)
        return _start(root, folder)


def ensure_host(root: Path) -> Path:
    """The host.json of ``running_host``, by which a step finds it."""
    running_host(root)
    return _file(root)


def is_hosted(root: Path) -> bool:
    """Whether a host holds the endpoints of this root, be it one that does not answer."""
    try:
        with (_file(root).parent / "host.lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def stop_host(root: Path, seconds: float) -> None:
    """End the host and all its servers; one that does not answer, or not in time, is killed."""
    if host := find_host(root):
        host.call("POST", "/stop")
    deadline = time.monotonic() + (seconds if host else 0)
    while is_hosted(root):
        if time.monotonic() > deadline:
            _kill(root)
        time.sleep(0.05)


def end_leftovers(root: Path) -> int:
    """End the servers of a host that was killed; gives how many that were."""
    return 0 if is_hosted(root) else ProcessBook(_file(root).with_name("processes.json")).end_leftovers()


def path_of(endpoint: str, deployment: str | None = None) -> str:
    """Where the control API keeps an endpoint or a deployment."""
    path = f"/onlineEndpoints/{quote(endpoint, safe='')}"
    return path if deployment is None else f"{path}/deployments/{quote(deployment, safe='')}"


def _written_by(root: Path) -> tuple[Host, psutil.Process] | None:
    """The host that has written host.json, if its process still runs: a number alone is given out again."""
    try:
        content = json.loads(_file(root).read_text(encoding="utf-8"))
        process = psutil.Process(content["pid"])
        is_it = abs(process.create_time() - content["create_time"]) < 0.01
        if is_it and process.status() != psutil.STATUS_ZOMBIE:
            return Host(content["url"], content["token"], content["pid"]), process
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        pass
    return None


def _kill(root: Path) -> None:
    if (known := _written_by(root)) is None:
        raise RunError(f"the host of {root} does not answer, and its host.json does not say which process it is")
    try:
        known[1].kill()
        known[1].wait(_ANSWER_SECONDS)
    except psutil.NoSuchProcess:
        pass
    except psutil.Error as error:
        raise RunError(f"the host of {root} does not answer and cannot be ended: {error}") from None


def _start(root: Path, folder: Path) -> Host:
    log = folder / "host.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "localml.endpoints.host", str(root.resolve())],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(_SCRIPTS)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # it outlives the job that asks for it, and Ctrl-C is not meant for it
        )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if (host := find_host(root)) and host.pid == process.pid:
            return host
        if process.poll() is not None:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise RunError(f"the host of the local endpoints ended at once: {' '.join(last)}; see {log}")
        time.sleep(0.02)
    process.kill()
    raise RunError(f"the host of the local endpoints did not start within {_START_SECONDS:g} s; see {log}")


def _file(root: Path) -> Path:
    return root.resolve() / "endpoints" / "host.json"
