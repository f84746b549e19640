"""MLflow on the run that Azure ML or the local runner has already opened; says so once when there is none.

Tracking never costs a step its outputs: what cannot be logged is a warning. An unreachable server may hold each call
for minutes, so after a failure nothing is sent for ten times as long as it took.
"""

import functools
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slmkit.tracking_clients import MlflowWriter, Row, RunnerWriter

Writer = MlflowWriter | RunnerWriter
MAX_PARAM_LENGTH = 500  # of a value, in Azure ML
MAX_BATCH = 100  # parameters or tags a request, in MLflow
REST_FACTOR = 10

_resume_at = 0.0  # on the monotonic clock


def log_params(params: Mapping[str, Any]) -> None:
    """Log parameters once, each value cut to the 500 characters that Azure ML keeps."""
    _log_batches("params", [(name, str(value)[:MAX_PARAM_LENGTH]) for name, value in params.items()])


def log_metrics(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Log numbers named ``<stage>/<metric>``, all at the same ``step``."""
    now = int(time.time() * 1000)
    _log_batches("metrics", [(_path_of(name), float(value), now, step or 0) for name, value in metrics.items()])


def _path_of(name: str) -> str:
    """A name as MLflow takes it, which refuses all metrics of a request for one that it does not (``a/../b: c``)."""
    parts = re.sub(r"[^\w\-./ ]", "_", name).split("/")
    return "/".join(part for part in parts if part.strip("."))


def set_tags(tags: Mapping[str, str]) -> None:
    """Set tags on the open run."""
    _log_batches("tags", [(name, str(value)) for name, value in tags.items()])


def log_artifact(path: Path) -> None:
    """Attach a file, or the content of a folder, to the open run."""
    _attempt(lambda writer, run_id: writer.log_artifact(run_id, path))


def _log_batches(kind: str, rows: list[Row]) -> None:
    def send(writer: Writer, run_id: str) -> None:
        for start in range(0, len(rows), MAX_BATCH):
            writer.log_rows(run_id, kind, rows[start : start + MAX_BATCH])

    _attempt(send)


def _attempt(send: Callable[[Writer, str], None]) -> None:
    global _resume_at
    if os.environ.get("RANK", "0") != "0":
        return
    run_id = os.environ.get("MLFLOW_RUN_ID") or os.environ.get("AZUREML_RUN_ID")
    if not run_id or not os.environ.get("MLFLOW_TRACKING_URI"):
        _say_once("no open MLflow run, metrics are only printed")
        return
    started = time.monotonic()
    if started < _resume_at:
        return
    try:
        writer = _writer()
        started = time.monotonic()  # the import is no sign of a slow server
        send(writer, run_id)
    except Exception as error:  # whatever a store or its plugin raises
        ended = time.monotonic()
        _resume_at = ended + REST_FACTOR * (ended - started)
        _say_once(f"not everything is logged, the step goes on: {type(error).__name__}: {error}")


def _writer() -> Writer:
    address = os.environ.get("LOCALML_TRACKING")
    return RunnerWriter(address) if address and Path(address).exists() else MlflowWriter()


@functools.cache
def _say_once(line: str) -> None:
    print(f"tracking: {' '.join(line.split())[:500]}", file=sys.stderr)
