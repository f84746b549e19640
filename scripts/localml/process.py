"""Runs the processes of one step: environment, log files, and an end to all of them when one fails."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.02


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class StepProcesses:
    """One or more processes of a step; ``on_line`` gets each line that the first one prints."""

    def __init__(
        self,
        command: list[str],
        *,
        folder: Path,
        log: Path,
        environment: Mapping[str, str],
        num_processes: int = 1,
        distributed: bool = False,
        keep_open: tuple[int, ...] = (),
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        port = free_port() if distributed else 0
        self._processes: list[subprocess.Popen] = []
        self._readers: list[threading.Thread] = []
        try:
            for rank in range(num_processes):
                variables = {**environment, **(_rank_variables(rank, num_processes, port) if distributed else {})}
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=keep_open,
                )
                self._processes.append(process)
                path = log if rank == 0 else log.with_name(f"{log.stem}_process_{rank}{log.suffix}")
                reader = threading.Thread(
                    target=_copy, args=(process, path, on_line if rank == 0 else None), daemon=True
                )
                reader.start()
                self._readers.append(reader)
        except BaseException:
            self.stop()
            raise

    @property
    def groups(self) -> list[int]:
        """The process groups, for whoever has to end them later."""
        return [process.pid for process in self._processes]

    def wait(self) -> int:
        """The first exit code that is not 0, or 0; the others are ended as soon as one has failed."""
        if len(self._processes) == 1:
            self._processes[0].wait()  # sooner known than by asking now and then
        while True:
            codes = [process.poll() for process in self._processes]
            failed = next((code for code in codes if code), None)
            if failed is not None or None not in codes:
                self.stop()
                return failed or 0
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Ask every process and its children to end, and end them after a grace period."""
        for process in self._processes:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for process in self._processes:
            _signal(process, signal.SIGKILL)  # also what the process may have left behind in its group
            process.wait()
        for reader in self._readers:
            reader.join(GRACE_SECONDS)


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _copy(process: subprocess.Popen, path: Path, on_line: Callable[[str], None] | None) -> None:
    with process.stdout, path.open("ab") as log:
        for line in process.stdout:
            log.write(line)
            log.flush()
            if on_line:
                on_line(line.decode("utf-8", "replace").rstrip("\n"))


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _rank_variables(rank: int, world_size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def write_repeat_script(path: Path, command: list[str], folder: Path, variables: Mapping[str, str]) -> None:
    """A script that runs a failed step again just as it ran, for whoever looks for the reason."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
    path.write_text(
        f"#!/usr/bin/env bash\nset -eu\ncd {shlex.quote(str(folder))}\n{exports}{shlex.join(command)}\n",
        encoding="utf-8",
    )
    path.chmod(0o755)
