"""The rows of a log as requests, responses and whole chats, whoever wrote them.

The form of Azure ML's data collector (CloudEvents, for payloads and for the collections of azureml-ai-monitoring) is
that of https://learn.microsoft.com/azure/machine-learning/how-to-collect-production-data, the local host's the same.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

import collection_window
from log_files import REQUESTS, RESPONSES, LogFile, Refuse

from slmkit import records

_SOURCE = re.compile(r"/onlineEndpoints/([^/]+)/deployments/([^/]+)", re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_MAX_BLOB_BYTES = 16 * 2**20
_MAX_KEY_LENGTH = 256
_TIMES = ("timestamp", "time", "created_at", "created")


class Row(NamedTuple):
    """``key`` is what a request and its response have in common, ``retry_key`` a request and its repetition."""

    kind: str  # request, response, chat, or other: of a collection that holds neither
    key: str
    retry_key: str
    event_id: str | None
    moment: float | None  # seconds since 1970
    resolution: float | None  # seconds to which the moment is known; None where it does not tell how long it took
    data: Any
    status: int | None
    endpoint: str | None
    deployment: str | None
    file: str
    line: int


class UnusableBodyError(ValueError):
    """The row is whole, but not what was sent: too large for the log, or no text at all."""


def read(file: LogFile, refuse: Refuse) -> Iterator[Row]:
    """The rows of a file; what is none goes to ``refuse`` with a reason that quotes nothing of it."""
    try:
        located = records.read_located(file.path, lambda bad: _refuse(bad, file, refuse))
        for content, _, line in located:
            try:
                yield from _rows(content, file, line)
            except UnusableBodyError as error:
                refuse(file.name, line, str(error), damaged=False)
            except ValueError as error:
                refuse(file.name, line, str(error))
    except records.RecordError:
        refuse(file.name, 0, "the gzip or Parquet file is damaged; what came before the damage was read")
    except FileNotFoundError:
        refuse(file.name, 0, "the file went away while it was to be read")


def _refuse(bad: records.Refused, file: LogFile, refuse: Refuse) -> None:
    # Whole lines that a client can bring about, and stop a monitor with if they were damage.
    is_of_client = bad.reason.startswith("half a character") or "recursion depth" in bad.reason
    refuse(file.name, bad.line, bad.reason.partition(":")[0], damaged=not is_of_client)


def _rows(content: dict[str, Any], file: LogFile, line: int) -> Iterator[Row]:
    if "specversion" in content:
        yield from _event_rows(content, file, line)
    elif isinstance(content.get("messages"), list):
        given = next((content[name] for name in _TIMES if content.get(name) is not None), None)
        moment = None if given is None else _moment(given)
        key = content.get("id")
        key = str(key) if isinstance(key, str | int) and str(key) else ""
        texts = (content.get(name) for name in ("endpoint", "deployment"))
        endpoint, deployment = (text if isinstance(text, str) else None for text in texts)
        status = content.get("status")
        yield Row("chat", key, key, None, moment, None, content, status, endpoint, deployment, file.name, line)
    else:
        raise ValueError("neither a row of the data collector nor a chat")


def _event_rows(event: dict[str, Any], file: LogFile, line: int) -> Iterator[Row]:
    collection = str(event.get("type", "")).rpartition(".")[2] or file.collection
    kind = "request" if collection in REQUESTS else "response" if collection in RESPONSES else "other"
    moment = _moment(event.get("time"))
    if kind == "other":
        yield Row(kind, "", "", None, moment, None, None, None, None, None, file.name, line)
        return
    found = _SOURCE.search(str(event.get("source", "")))
    endpoint, deployment = found.groups() if found else (None, None)
    correlation, retry, own = (event.get(name) for name in ("correlationid", "xrequestid", "id"))
    key = correlation or retry or own
    if not isinstance(key, str) or len(key) > _MAX_KEY_LENGTH:
        raise ValueError("no correlationid, xrequestid or id that is a text of a sensible length")
    retry = retry if isinstance(retry, str) and retry else key
    own = own if isinstance(own, str) else None
    data, status = _data(event, file), event.get("statuscode")
    is_table = collection not in ("request", "response")
    # Both tables of azureml-ai-monitoring have the time at which the request came.
    resolution = None if is_table else 0.001 if "." in str(event["time"]) else 1.0
    parts = data if is_table and isinstance(data, list) else [data]  # requests close together come as one table
    for number, row in enumerate(parts):
        part = f":{number}" if len(parts) > 1 else ""
        one = row.get("correlationid") if part and isinstance(row, dict) else None
        is_key = isinstance(one, str) and 0 < len(one) <= _MAX_KEY_LENGTH
        keys = (one, one) if is_key else (key + part, retry + part)
        event_id = None if own is None else f"{collection}:{own}{part}"
        yield Row(kind, *keys, event_id, moment, resolution, row, status, endpoint, deployment, file.name, line)


def _data(event: dict[str, Any], file: LogFile) -> Any:
    if found := _RANGE.fullmatch(str(event.get("contentrange", ""))):
        first, last, total = map(int, found.groups())
        if first or last + 1 < total:
            raise UnusableBodyError("its body was cut when it was logged (contentrange)")
    if str(event.get("datainblob", "")).lower() == "true":
        # Beside the log, under the name that the address ends with: the last part of a path, which leads nowhere else.
        name = PurePosixPath(unquote(str(event.get("data", "")))).name
        try:
            blob = file.path.with_name(name)
            if not blob.is_symlink() and blob.is_file() and blob.stat().st_size <= _MAX_BLOB_BYTES:
                return _text(blob.read_bytes())
        except UnusableBodyError:
            raise
        except (OSError, ValueError):  # a name that is none, or too long for one
            pass
        raise UnusableBodyError("its body is in a blob of its own, which is not beside the log")
    if "data" not in event and isinstance(event.get("data_base64"), str):
        try:
            return _text(base64.b64decode(event["data_base64"], validate=True))
        except binascii.Error:
            raise ValueError("its data_base64 is no Base64") from None
    return event.get("data")


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise UnusableBodyError("its body is not UTF-8") from None


def _moment(value: Any) -> float:
    try:
        return collection_window.seconds_of(value)
    except (ValueError, OverflowError):
        raise ValueError("its time is not one") from None
