"""MLflow for local runs: a parent run for the pipeline, a child run for each step, in a SQLite store."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any


class Tracker:
    """All calls go through one thread: MLflow loads while the job file is read, and SQLite has a single writer here.

    Nothing is written before ``open``, so that a job file that is refused leaves no run behind.
    """

    def __init__(self, root: Path, experiment: str, job_name: str) -> None:
        self.uri = f"sqlite:///{(root / 'mlflow.db').as_posix()}"
        self._artifacts = (root / "mlartifacts").as_uri()
        self._experiment, self._job_name = experiment, job_name
        self._client: Any = None
        self._experiment_id = self._parent_id = ""
        self._calls = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._loaded = self._calls.submit(_load)
        self._opened: Future | None = None

    def open(self) -> None:
        """Open the parent run; a store that cannot be opened is an error at the first step."""
        self._opened = self._calls.submit(self._open)

    def _open(self) -> None:
        MlflowClient = self._loaded.result()  # noqa: N806
        self._client = MlflowClient(self.uri)
        known = self._client.get_experiment_by_name(self._experiment)
        self._experiment_id = (
            known.experiment_id
            if known
            else self._client.create_experiment(self._experiment, artifact_location=self._artifacts)
        )
        tags = {"mlflow.source.type": "JOB", "azureml.jobName": self._job_name}
        self._parent_id = self._create(self._job_name, tags)

    def _create(self, name: str, tags: dict[str, str]) -> str:
        return self._client.create_run(self._experiment_id, run_name=name, tags=tags).info.run_id

    def start_step(self, name: str, tags: dict[str, str]) -> str:
        """Open a child run and return its id."""

        def start() -> str:
            return self._create(name, {"mlflow.parentRunId": self._parent_id, **tags})

        self._opened.result()
        return self._calls.submit(start).result()

    def reuse_step(self, name: str, tags: dict[str, str]) -> Future:
        """Record a step that did not have to run; nobody waits for it."""

        def reuse() -> None:
            run_id = self._create(name, {"mlflow.parentRunId": self._parent_id, "azureml.isReused": "true", **tags})
            self._client.set_terminated(run_id, "FINISHED")

        return self._calls.submit(reuse)

    def end_step(self, run_id: str, status: str) -> None:
        """Close a child run; ``status`` is FINISHED, FAILED or KILLED."""
        self._calls.submit(self._client.set_terminated, run_id, status)

    def environment(self, run_id: str) -> dict[str, str]:
        """The variables by which a step finds the run that is open for it, as Azure ML sets them."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_RUN_ID": run_id,
            "MLFLOW_EXPERIMENT_ID": self._experiment_id,
            "MLFLOW_EXPERIMENT_NAME": self._experiment,
            "AZUREML_RUN_ID": run_id,
            "AZUREML_ROOT_RUN_ID": self._parent_id,
            "AZUREML_EXPERIMENT_NAME": self._experiment,
        }

    def close(self, status: str) -> None:
        """Close the parent run if it was opened, and wait for what is still to be written."""
        if self._opened and not self._opened.exception():
            self._calls.submit(self._client.set_terminated, self._parent_id, status).result()
        self._calls.shutdown()


def _load() -> Any:
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow.tracking import MlflowClient

    return MlflowClient
