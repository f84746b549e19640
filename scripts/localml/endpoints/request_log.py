"""The data collector of a deployment: requests and responses as JSON Lines, in the form that Azure ML's has.

That form (CloudEvents) and the folders are those of
https://learn.microsoft.com/azure/machine-learning/how-to-collect-production-data; ``statuscode`` is an attribute of our
own, as that log does not say how a request ended.
"""

import asyncio
import base64
import concurrent.futures
import json
import logging
import math
import os
import random
import time
import uuid
from pathlib import Path
from typing import NoReturn

from localml.endpoints.contract import DataCollector

FOLDER = Path("datastores") / "workspaceblobstore" / "modelDataCollector"  # below the root
_MAX_BODY_BYTES = 4 * 2**20  # Azure ML keeps longer ones in blobs of their own; here they are cut, and say so
_MAX_HELD_BYTES = 64 * 2**20  # of a deployment's requests that are under way or not written yet
_MAX_REQUEST_ID = 128
_ROLLED = {"minute": "%Y/%m/%d/%H/%M", "hour": "%Y/%m/%d/%H", "day": "%Y/%m/%d"}
_logger = logging.getLogger(__name__)


class RequestLog:
    """Writes from a thread of its own and in bounded memory: a request that finds no room there is left out."""

    def __init__(self, folder: Path, endpoint: str, deployment: str, settings: DataCollector) -> None:
        self._folder = folder / endpoint / deployment
        self._collections = [name for name, collection in settings.collections.items() if collection.is_enabled]
        self._settings = settings
        self._source = f"/onlineEndpoints/{endpoint}/deployments/{deployment}"
        self._file = f"{uuid.uuid4()}.jsonl"
        self._held = self._num_left_out = 0
        self._is_closed = False
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="request_log")
        self._folder.mkdir(0o700, parents=True, exist_ok=True)  # a log without a row is not one that is missing

    def begin(self, path: str, content_type: str, request_id: str | None, body: bytes) -> "Exchange | None":
        """A request that has come; None where it is not in the sample or finds no room."""
        if random.random() >= self._settings.sampling_rate:
            return None
        exchange = Exchange(self, path, request_id)
        return exchange if exchange.request.add(body, content_type) else None

    def hold(self, num_bytes: int) -> bool:
        """Whether there is room for so much more; called on the event loop alone, as is ``release``."""
        if self._held + num_bytes > _MAX_HELD_BYTES:
            if self._num_left_out.bit_count() < 2:  # the 1st, 2nd, 3rd, 5th, 9th, ... time
                _logger.warning("%s: no room for a request in the log (%d before it)", self._folder, self._num_left_out)
            self._num_left_out += 1
            return False
        self._held += num_bytes
        return True

    def finish(self, exchange: "Exchange", status: int) -> None:
        """Write it, later."""
        if self._is_closed:  # its deployment was deleted under it
            return
        loop = asyncio.get_running_loop()
        written = self._writer.submit(self._write, exchange, status, exchange.elapsed())
        size = exchange.request.num_held + exchange.response.num_held

        def release(_: concurrent.futures.Future) -> None:
            loop.call_soon_threadsafe(self._release, size)

        written.add_done_callback(release)

    def _release(self, num_bytes: int) -> None:
        self._held -= num_bytes

    async def close(self) -> None:
        """Write what is left."""
        self._is_closed = True
        await asyncio.to_thread(self._writer.shutdown)

    def _write(self, exchange: "Exchange", status: int, seconds: float) -> None:
        try:
            for collection in self._collections:
                is_request = collection == "request"
                moment = exchange.began if is_request else exchange.began + seconds
                row = {
                    "specversion": "1.0",
                    "id": str(uuid.uuid4()),
                    "source": self._source,
                    "type": f"azureml.inference.{collection}",
                    "time": _iso(moment),
                    **(exchange.request if is_request else exchange.response).attributes(),
                    **({"path": exchange.path, "method": "POST"} if is_request else {"statuscode": status}),
                    "correlationid": exchange.correlation_id,
                    "xrequestid": exchange.request_id,
                }
                rolled = time.strftime(_ROLLED[self._settings.rolling_rate], time.gmtime(moment))
                # A lone surrogate, which JSON may hold, becomes the escape that it came as.
                line = json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
                _append(self._folder / collection / rolled / self._file, line)
        except (OSError, RecursionError) as error:
            _logger.warning("%s: a request was not logged: %s", self._folder, error)


class Exchange:
    """A request and, as it comes, its response."""

    def __init__(self, log: RequestLog, path: str, request_id: str | None) -> None:
        self.path, self.began, self._started = path, time.time(), time.perf_counter()
        self.correlation_id = str(uuid.uuid4())
        is_short = request_id is not None and 0 < len(request_id) <= _MAX_REQUEST_ID
        self.request_id = request_id if is_short else self.correlation_id
        self._log = log
        self.request, self.response = Body(log), Body(log)

    def elapsed(self) -> float:
        """By a clock that nobody sets."""
        return time.perf_counter() - self._started

    def end(self, status: int) -> None:
        """The client has its answer, or has gone."""
        self._log.finish(self, status)


class Body:
    """The parts of a body, up to what is kept of it."""

    def __init__(self, log: RequestLog) -> None:
        self._log, self._parts, self._content_type = log, [], "application/json"
        self.num_held = self._num_bytes = 0

    def add(self, part: bytes, content_type: str | None = None) -> bool:
        """Whether there was room for it."""
        self._content_type = content_type or self._content_type
        kept = part[: max(0, _MAX_BODY_BYTES - self.num_held)] if self.num_held == self._num_bytes else b""
        has_room = self._log.hold(len(kept))
        if has_room:
            self._parts.append(kept)
            self.num_held += len(kept)
        self._num_bytes += len(part)
        return has_room

    def attributes(self) -> dict:
        """Those of the event that say what it held."""
        body = b"".join(self._parts)
        last = max(0, len(body) - 1)
        found = {"datacontenttype": self._content_type, "contentrange": f"bytes 0-{last}/{self._num_bytes}"}
        is_whole = len(body) == self._num_bytes
        try:
            text = body.decode("utf-8", "strict" if is_whole else "ignore")
        except UnicodeDecodeError:
            return found | {"data_base64": base64.b64encode(body).decode("ascii")}
        try:
            return found | {"data": json.loads(text, parse_constant=_refuse, parse_float=_finite)}
        except (ValueError, RecursionError):  # such as a stream of events
            return found | {"data": text}


def _append(path: Path, line: bytes) -> None:
    """All of the line or nothing: a full disk must not leave half of one for the next to be written to."""
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(file, line[written:])
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    """1e999 would be written as Infinity, which spoils the line for its readers."""
    number = float(digits)
    return number if math.isfinite(number) else _refuse("infinity")


def _iso(moment: float) -> str:
    milliseconds = round(1000 * moment)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + f".{milliseconds % 1000:03}Z"
