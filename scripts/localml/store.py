"""The finished steps on disk: a step whose key is already here is reused; one that was killed leaves nothing behind."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localml.errors import RunError

FORMAT = 1  # part of every key: raise it when what is stored changes its meaning


def key_of(parts: dict[str, Any]) -> str:
    """The identity of a step: equal parts give equal outputs."""
    text = json.dumps({"format": FORMAT, **parts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished step: its folder, the content hash of each output, and what is known of its run."""

    folder: Path
    hashes: dict[str, str]
    seconds: float
    run_id: str = ""  # of the run in MLflow in which it was made

    def output(self, port: str) -> Path:
        """Where an output lies."""
        return self.folder / "outputs" / port

    @property
    def log(self) -> Path:
        """What the step printed."""
        return self.folder / "std_log.txt"


class Store:
    """``steps/<key>`` holds what is finished, ``work/<key>`` what is under way."""

    def __init__(self, root: Path) -> None:
        self._steps = root / "steps"
        self._work = root / "work"
        self._steps.mkdir(parents=True, exist_ok=True)
        self._work.mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> Finished | None:
        """The finished step of this key; None as well when an output of it has since been removed."""
        folder = self._steps / key
        try:
            record = json.loads((folder / "step.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        finished = Finished(folder, record["hashes"], record["seconds"], record.get("run_id", ""))
        return finished if all(finished.output(port).exists() for port in finished.hashes) else None

    @contextlib.contextmanager
    def working(self, key: str, *, keep_partial: bool) -> Iterator[tuple[Path, int]]:
        """Hold ``work/<key>`` alone, and give it with the descriptor of its lock.

        The lock is handed to the step's processes, so it lasts as long as any of them. A runner that finds it held by
        the orphans of a killed runner ends them first; one held by a living runner is waited for. What an earlier
        attempt left is wiped unless ``keep_partial``.
        """
        folder = self._work / key
        lock = os.open(self._work / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _end_orphans(folder / "owner.json")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not keep_partial:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            yield folder, lock
        finally:
            os.close(lock)

    def end_orphans(self) -> None:
        """End the processes of steps whose runner was killed."""
        for owner in self._work.glob("*/owner.json"):
            with owner.parent.with_suffix(".lock").open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    _end_orphans(owner)

    def commit(self, key: str, work: Path, hashes: dict[str, str], seconds: float, facts: dict[str, Any]) -> Finished:
        """Turn a work folder into a finished step by one rename."""
        shutil.rmtree(work / "code", ignore_errors=True)
        record = {"hashes": hashes, "seconds": round(seconds, 3), **facts}
        (work / "step.json").write_text(json.dumps(record, ensure_ascii=False, indent=2), encoding="utf-8")
        target = self._steps / key
        if target.exists():  # unusable, or find() would have given it
            shutil.rmtree(target)
        try:
            work.rename(target)
        except OSError as error:
            raise RunError(f"{target}: the finished step could not be stored: {error.strerror}") from error
        return Finished(target, hashes, seconds, facts["run_id"])


def record_owner(work: Path, groups: list[int]) -> None:
    """Note who works here, so that a later runner can end the processes if this one is killed."""
    (work / "owner.json").write_text(json.dumps({"runner": os.getpid(), "groups": groups}), encoding="utf-8")


def _end_orphans(owner_file: Path) -> None:
    try:
        owner = json.loads(owner_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if _is_alive(owner["runner"]):
        return
    for group in owner["groups"]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A killed runner that nobody has waited for is a zombie: it has the pid but runs no more.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
