"""MLflow for local runs: a parent run for the pipeline, a child run for each step, in a SQLite store."""

import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from localml.errors import RunError
from localml.tracking_socket import TrackingSocket


class Tracker:
    """Sends its calls to ``mlflow_writer`` one after the other, from a thread, so that no step waits for a reused one.

    Nothing is written before ``open``, so that a job file that is refused leaves no run behind.
    """

    def __init__(self, root: Path, experiment: str, job_name: str) -> None:
        self.uri = f"sqlite:///{(root / 'mlflow.db').as_posix()}"
        self._artifacts = (root / "mlartifacts").as_uri()
        self._experiment, self._job_name = experiment, job_name
        self._experiment_id = self._parent_id = ""
        self._opened: Future | None = None
        self._calls = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._server = os.environ.get("LOCALML_TRACKING_SERVER")
        self._socket = None if self._server else TrackingSocket(self._ask_in_turn)
        removed = [str(self._socket.folder)] if self._socket else []  # by the writer, should this process be killed
        self._writer = subprocess.Popen(
            [sys.executable, "-m", "localml.mlflow_writer", self.uri, *removed],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
            start_new_session=True,  # Ctrl-C is for the runner, which still has runs to close
        )

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket:
            self._socket.close()
        self._calls.shutdown(cancel_futures=True)
        self._writer.stdin.close()
        if self._opened is None:
            self._writer.kill()
        self._writer.wait()
        self._writer.stdout.close()

    def _ask(self, call: str, **arguments: Any) -> Any:
        try:
            self._writer.stdin.write(json.dumps([call, arguments]) + "\n")
            self._writer.stdin.flush()
            answer = json.loads(self._writer.stdout.readline())
        except (OSError, ValueError):
            answer = {"error": "its process has ended"}
        if "error" in answer:
            raise RunError(f"MLflow ({self.uri}): {answer['error']}")
        return answer["result"]

    def _ask_in_turn(self, call: str, **arguments: Any) -> Any:
        """As ``_ask``, after all that was asked before."""
        return self._calls.submit(self._ask, call, **arguments).result()

    def _create(self, name: str, tags: dict[str, str]) -> str:
        return self._ask("create_run", experiment_id=self._experiment_id, name=name, tags=tags)

    def open(self) -> None:
        """Open the parent run; a store that cannot be opened is an error at the first step."""

        def opened() -> None:
            self._experiment_id = self._ask("open_experiment", name=self._experiment, artifacts=self._artifacts)
            tags = {"mlflow.source.type": "JOB", "azureml.jobName": self._job_name}
            self._parent_id = self._create(self._job_name, tags)

        self._opened = self._calls.submit(opened)

    def start_step(self, name: str, tags: dict[str, str], parent: str | None = None) -> str:
        """Open a child run of the job's run, or of ``parent``, and return its id."""

        def start() -> str:
            return self._create(name, {"mlflow.parentRunId": parent or self._parent_id, **tags})

        self._opened.result()
        return self._calls.submit(start).result()

    def reuse_step(
        self,
        name: str,
        tags: dict[str, str],
        parent: str | None = None,
        params: dict[str, Any] | None = None,
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Record a step that did not have to run; nobody waits for it."""

        def reuse() -> None:
            above = {"mlflow.parentRunId": parent or self._parent_id}
            run_id = self._create(name, {**above, "azureml.isReused": "true", **tags})
            self._ask("log", run_id=run_id, params=params or {}, metrics=metrics or {})
            self._ask("end_run", run_id=run_id, status="FINISHED")

        self._calls.submit(reuse)

    def log(self, run_id: str, params: dict[str, Any], metrics: dict[str, float]) -> None:
        """Log to a run what its step has not logged itself; nobody waits for it."""
        self._calls.submit(self._ask, "log", run_id=run_id, params=params, metrics=metrics)

    def log_artifact(self, run_id: str, path: Path) -> None:
        """Attach a file to a run."""
        self._ask_in_turn("log_artifact", run_id=run_id, path=str(path))

    def metric_history(self, run_id: str, name: str) -> list[float]:
        """The values of a metric in the order in which they were logged; empty for a run that is not there."""
        return self._ask_in_turn("metric_history", run_id=run_id, name=name)

    def metric_names(self, run_id: str) -> list[str]:
        """What a run has logged."""
        return self._ask_in_turn("metric_names", run_id=run_id)

    def end_step(self, run_id: str, status: str) -> None:
        """Close a child run; ``status`` is FINISHED, FAILED or KILLED."""
        self._calls.submit(self._ask, "end_run", run_id=run_id, status=status)

    def environment(self, run_id: str) -> dict[str, str]:
        """The variables by which a step finds the run that is open for it, as Azure ML sets them.

        What it logs it hands to this process (LOCALML_TRACKING); in a local workspace it talks to a server instead,
        which offers what Azure ML's does (LOCALML_TRACKING_SERVER).
        """
        by_server = {"MLFLOW_REGISTRY_URI": self.uri, "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
        return {
            "MLFLOW_TRACKING_URI": self._server or self.uri,
            **(by_server if self._server else {"LOCALML_TRACKING": self._socket.address}),
            "MLFLOW_RUN_ID": run_id,
            "MLFLOW_EXPERIMENT_ID": self._experiment_id,
            "MLFLOW_EXPERIMENT_NAME": self._experiment,
            "AZUREML_RUN_ID": run_id,
            "AZUREML_ROOT_RUN_ID": self._parent_id,
            "AZUREML_EXPERIMENT_NAME": self._experiment,
        }

    def close(self, status: str) -> None:
        """Close the parent run, after everything else that is still to be written."""
        if self._opened and not self._opened.exception():
            self._ask_in_turn("end_run", run_id=self._parent_id, status=status)
