"""One server process of a deployment: started, probed, restarted when it dies, and given up when that does not help."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from localml.endpoints.contract import DeploymentBody
from localml.endpoints.process_book import ProcessBook
from localml.endpoints.servers import Server
from localml.process import GRACE_SECONDS, free_port

_STARTING_POLL_SECONDS = 0.1
_POLL_SECONDS = 0.05
_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_STABLE_SECONDS = 60.0  # one that has served for so long starts its count of crashes anew
_MAX_CRASHES = {False: 2, True: 5}  # in a row, before and after it has served for the first time
_MAX_LOG_BYTES = 16 * 2**20
_LOG_LINES_IN_ERROR = 3


class Instance:
    """A place in a deployment and the process that fills it at the moment."""

    def __init__(
        self,
        number: int,
        body: DeploymentBody,
        server: Server,
        environment: dict[str, str],
        folder: Path,
        session: aiohttp.ClientSession,
        book: ProcessBook,
        on_change: Callable[[], None],
    ) -> None:
        self.number, self.server = number, server
        self.log = folder / f"instance-{number}.log"
        self.healthy = self.suspected = self.has_served = False
        self.in_flight = self.last_taken = self.restarts = 0
        self.pid: int | None = None
        self.port: int | None = None
        self.error: str | None = None  # why it was given up
        self._body, self._environment, self._folder = body, environment, folder
        self._session, self._book, self._on_change = session, book, on_change
        self._look = asyncio.Event()  # probe now
        self._task = asyncio.create_task(self._keep())

    def url(self, path: str) -> str:
        """Where its server takes requests."""
        return f"http://127.0.0.1:{self.port}{path}"

    def suspect(self) -> None:
        """A connection to it broke: no more requests until it has answered a probe, which goes out at once."""
        if self.healthy:
            self.healthy, self.suspected = False, True
            self._look.set()

    def describe(self) -> dict:
        """What the control API says of it."""
        return {"pid": self.pid, "port": self.port, "healthy": self.healthy, "restarts": self.restarts}

    async def drain(self, seconds: float) -> None:
        """Let the requests under way end, once nothing sends it new ones."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.in_flight:
                    await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """End the process and whatever it started."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        crashes = 0
        while True:
            started = time.monotonic()
            reason, may_help = await self._live()
            crashes = 1 if self.has_served and time.monotonic() - started > _STABLE_SECONDS else crashes + 1
            if not may_help or crashes >= _MAX_CRASHES[self.has_served]:
                times = f" ({crashes} times in a row)" if crashes > 1 else ""
                self.error = f"instance {self.number} {reason}{times}{self._last_words()}"
                self._on_change()
                return
            await asyncio.sleep(min(_BACKOFF_SECONDS * 2 ** (crashes - 1), _LONGEST_BACKOFF_SECONDS))
            self.restarts += 1

    async def _live(self) -> tuple[str, bool]:
        """One process from its start to its end: why it ended, and whether another start may help."""
        self.port = free_port()
        try:
            process = self._start()
        except (OSError, ValueError) as error:  # a ValueError for a zero byte in the command or its environment
            return f"cannot be started: {getattr(error, 'strerror', None) or error}", False
        self.pid = process.pid
        self._book.add(process.pid)
        ended, watched = asyncio.create_task(_ended(process)), asyncio.create_task(self._watch())
        try:
            await asyncio.wait({ended, watched}, return_when=asyncio.FIRST_COMPLETED)
            if watched.done():
                return watched.result(), self.has_served
            code = ended.result()
            return (f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"), True
        finally:
            self.healthy = self.suspected = False
            self._on_change()
            watched.cancel()
            ended.cancel()
            await asyncio.shield(self._end(process))

    def _start(self) -> subprocess.Popen:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.server.at(self.port),
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _end(self, process: subprocess.Popen) -> None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await _ended(process)
        _signal_group(process.pid, signal.SIGKILL)  # also what it may have left behind in its group
        await _ended(process)
        self._book.remove(process.pid)
        self.pid = None

    async def _watch(self) -> str:
        """Keep ``healthy`` true to the probes; returns why the process must be replaced."""
        liveness, readiness = self._body.liveness_probe, self._body.readiness_probe
        started = answered = time.monotonic()
        successes, ready = 0, False
        while True:
            answers = await self._probe(max(liveness.timeout, readiness.timeout))
            now = time.monotonic()
            if answers:
                answered = now
                successes += 1
                if successes >= readiness.success_threshold:
                    ready = True
                    self._set_healthy(True)
            else:
                successes = 0
                if not ready and now - started >= readiness.deadline:
                    return f"did not answer {self.server.liveness_path} within {readiness.deadline:g} s"
                if self.suspected or now - answered >= readiness.period * readiness.failure_threshold:
                    self._set_healthy(False)
                silent = liveness.period * liveness.failure_threshold
                if ready and now - started >= liveness.initial_delay and now - answered >= silent:
                    return f"did not answer {self.server.liveness_path} for {silent:g} s"
            self._limit_log()
            pause = min(liveness.period, readiness.period)
            self._look.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause if self.healthy else min(pause, _STARTING_POLL_SECONDS)):
                    await self._look.wait()

    def _set_healthy(self, healthy: bool) -> None:
        self.has_served |= healthy
        if (self.healthy, self.suspected) != (healthy, False):
            self.healthy, self.suspected = healthy, False
            self._on_change()

    async def _probe(self, timeout: float) -> bool:
        try:
            limit = aiohttp.ClientTimeout(total=timeout)
            async with self._session.get(self.url(self.server.liveness_path), timeout=limit) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def _limit_log(self) -> None:
        """Keep the newest part of a log that has grown large; the server goes on writing at its end."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > _MAX_LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".1.log"))
                os.truncate(self.log, 0)

    def last_lines(self, count: int) -> list[str]:
        """The end of the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 400 * count - 4096))
                return file.read().decode("utf-8", "replace").splitlines()[-count:]
        except OSError:
            return []

    def _last_words(self) -> str:
        lines = [line.strip() for line in self.last_lines(50) if line.strip()][-_LOG_LINES_IN_ERROR:]
        return f"; its last words: {' | '.join(lines)}" if lines else "; it said nothing"


async def _ended(process: subprocess.Popen) -> int:
    """The exit code of a process, once it has one; asyncio's own subprocesses hang when a start is canceled."""
    while (code := process.poll()) is None:
        await asyncio.sleep(_POLL_SECONDS)
    return code


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
