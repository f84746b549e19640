"""Who writes to the open MLflow run: MLflow's client or, for a step on one machine, the runner that started it."""

import json
import socket
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]  # the values of an MLflow Param, Metric or RunTag
TIMEOUT_SECONDS = 120.0


class TrackingError(Exception):
    """What MLflow said to the runner."""


class MlflowWriter:
    """By MLflow's own client.

    Not by its fluent API, which would end the run: that belongs to whoever opened it.
    """

    def __init__(self) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()

    def log_rows(self, run_id: str, kind: str, rows: list[Row]) -> None:
        """``kind`` is params, metrics or tags."""
        from mlflow import entities

        entity = {"params": entities.Param, "metrics": entities.Metric, "tags": entities.RunTag}[kind]
        self._client.log_batch(run_id, **{kind: [entity(*row) for row in rows]})

    def log_artifact(self, run_id: str, path: Path) -> None:
        """A file, or the content of a folder below its name."""
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), artifact_path=path.name)
        else:
            self._client.log_artifact(run_id, str(path))


class RunnerWriter:
    """The same by the local runner, which has MLflow loaded already: that takes longer than many a step.

    ``address`` is the socket of its ``localml.tracking_socket``.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def log_rows(self, run_id: str, kind: str, rows: list[Row]) -> None:
        self._ask("log_rows", run_id=run_id, kind=kind, rows=rows)

    def log_artifact(self, run_id: str, path: Path) -> None:
        self._ask("log_artifact", run_id=run_id, path=str(path.absolute()))

    def _ask(self, call: str, **arguments: Any) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect(self._address)
            with connection.makefile("rw", encoding="utf-8") as stream:
                stream.write(json.dumps([call, arguments]) + "\n")
                stream.flush()
                answer = json.loads(stream.readline() or '{"error": "the runner has ended"}')
        if "error" in answer:
            raise TrackingError(answer["error"])
