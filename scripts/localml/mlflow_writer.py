"""Writes the runs of a local job to MLflow, in a process of its own so that MLflow loads beside azure-ai-ml.

Reads a request a line from standard input and answers each with a line; ends with its input, so it never outlives the
runner, and removes then the folder that it is told of: a runner that was killed cannot.
"""

import contextlib
import fcntl
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Writer:
    """The calls that a request can name."""

    def __init__(self, uri: str) -> None:
        from mlflow.tracking import MlflowClient

        self._lock = Path(f"{uri.removeprefix('sqlite:///')}.lock")
        with self._alone():
            self._client = MlflowClient(uri)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time: runs that make the store, or an experiment in it, at the same moment spoil it."""
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def open_experiment(self, name: str, artifacts: str) -> str:
        """The id of an experiment, which is made when it is not there."""
        with self._alone():
            known = self._client.get_experiment_by_name(name)
            return known.experiment_id if known else self._client.create_experiment(name, artifact_location=artifacts)

    def create_run(self, experiment_id: str, name: str, tags: dict[str, str]) -> str:
        """The id of a new run."""
        return self._client.create_run(experiment_id, run_name=name, tags=tags).info.run_id

    def end_run(self, run_id: str, status: str) -> None:
        """Close a run."""
        self._client.set_terminated(run_id, status)

    def log(self, run_id: str, params: dict[str, Any], metrics: dict[str, float]) -> None:
        """Log what is not there yet: a parameter cannot be logged twice with texts that differ."""
        known = self._client.get_run(run_id).data
        for name, value in params.items():
            if name not in known.params:
                self._client.log_param(run_id, name, value)
        for name, value in metrics.items():
            if name not in known.metrics:
                self._client.log_metric(run_id, name, value)

    def log_rows(self, run_id: str, kind: str, rows: list[list[Any]]) -> None:
        """Log params, metrics or tags, each with the values of its MLflow entity, in one request."""
        from mlflow import entities

        entity = {"params": entities.Param, "metrics": entities.Metric, "tags": entities.RunTag}[kind]
        self._client.log_batch(run_id, **{kind: [entity(*row) for row in rows]})

    def log_artifact(self, run_id: str, path: str) -> None:
        """Attach a file, or the content of a folder below its name, to a run."""
        if Path(path).is_dir():
            self._client.log_artifacts(run_id, path, artifact_path=Path(path).name)
        else:
            self._client.log_artifact(run_id, path)

    def metric_names(self, run_id: str) -> list[str]:
        """What a run has logged."""
        return sorted(self._client.get_run(run_id).data.metrics)

    def metric_history(self, run_id: str, name: str) -> list[float]:
        """The values of a metric as they were logged; the same value logged twice at one step is one."""
        from mlflow.exceptions import MlflowException

        try:
            history = self._client.get_metric_history(run_id, name)
        except MlflowException:
            return []
        history.sort(key=lambda metric: (metric.timestamp, metric.step))
        return [
            metric.value
            for before, metric in zip([None, *history], history, strict=False)
            if before is None or (before.step, before.value) != (metric.step, metric.value)
        ]


def main(uri: str) -> None:
    """Answer requests until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what MLflow prints must not pass for an answer
    writer: Writer | None = None
    for line in sys.stdin:
        call, arguments = json.loads(line)
        answer: dict[str, Any]
        try:
            writer = writer or Writer(uri)
            answer = {"result": getattr(writer, call)(**arguments)}
        except Exception as error:  # whatever the store raises is for the runner to report
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    try:
        import mlflow.tracking  # noqa: F401  (before the first request comes)

        main(sys.argv[1])
    finally:
        for folder in sys.argv[2:]:
            shutil.rmtree(folder, ignore_errors=True)
