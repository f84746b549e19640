"""The server processes that run, written down so that a killed host leaves none for ever."""

import contextlib
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import psutil

from localml.process import GRACE_SECONDS


def write_whole(path: Path, content: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, never half of one; for its owner alone."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)  # before there is anything to read in it
    partial.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
    partial.replace(path)


_logger = logging.getLogger(__name__)


class ProcessBook:
    """Process ids with the moment of their start, because an id alone is given out again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started: dict[int, float] = {}

    def add(self, pid: int) -> None:
        """A server was started; it leads a process group."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._started[pid] = psutil.Process(pid).create_time()
            self._write()

    def remove(self, pid: int) -> None:
        """A server has ended."""
        if self._started.pop(pid, None) is not None:
            self._write()

    def end_leftovers(self) -> int:
        """End what a host that was killed left running; gives how many servers that were."""
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0
        left = []
        for pid, started in known.items():
            with contextlib.suppress(psutil.NoSuchProcess, ValueError):
                process = psutil.Process(int(pid))
                if abs(process.create_time() - started) < 0.01:
                    left.append(process)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, number)
            psutil.wait_procs(left, timeout=GRACE_SECONDS)
        self._path.unlink(missing_ok=True)
        return len(left)

    def _write(self) -> None:
        try:
            write_whole(self._path, self._started)
        except OSError as error:  # servers are started and ended on a full disk, too
            _logger.warning("%s cannot be written: %s", self._path, error)
