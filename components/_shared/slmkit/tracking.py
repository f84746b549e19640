"""MLflow on the run that Azure ML or the local runner has already opened; a no-op that says so when there is none."""

import functools
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Azure ML's limits: https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity (runs, metrics)
MAX_PARAM_LENGTH = 500
MAX_BATCH = 100


@functools.cache
def _run() -> tuple[Any, str] | None:
    """The MLflow client and the id of the open run; None where nothing is to be logged."""
    if os.environ.get("RANK", "0") != "0":
        return None
    run_id = os.environ.get("MLFLOW_RUN_ID") or os.environ.get("AZUREML_RUN_ID")
    if not run_id or not os.environ.get("MLFLOW_TRACKING_URI"):
        print("tracking: no open MLflow run, metrics are only printed", file=sys.stderr)
        return None
    # The client, not the fluent API: that one would end the run, which belongs to whoever opened it.
    from mlflow.tracking import MlflowClient

    return MlflowClient(), run_id


def _batches(items: list[Any]) -> list[list[Any]]:
    return [items[start : start + MAX_BATCH] for start in range(0, len(items), MAX_BATCH)]


def log_params(params: Mapping[str, Any]) -> None:
    """Log parameters once, each value cut to the 500 characters that Azure ML keeps."""
    if (run := _run()) is None:
        return
    from mlflow.entities import Param

    client, run_id = run
    for batch in _batches([Param(name, str(value)[:MAX_PARAM_LENGTH]) for name, value in params.items()]):
        client.log_batch(run_id, params=batch)


def log_metrics(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Log numbers named ``<stage>/<metric>``, all at the same ``step``."""
    if (run := _run()) is None:
        return
    from mlflow.entities import Metric

    client, run_id = run
    now = int(time.time() * 1000)
    for batch in _batches([Metric(name, float(value), now, step or 0) for name, value in metrics.items()]):
        client.log_batch(run_id, metrics=batch)


def set_tags(tags: Mapping[str, str]) -> None:
    """Set tags on the open run."""
    if (run := _run()) is None:
        return
    from mlflow.entities import RunTag

    client, run_id = run
    for batch in _batches([RunTag(name, str(value)) for name, value in tags.items()]):
        client.log_batch(run_id, tags=batch)


def log_artifact(path: Path) -> None:
    """Attach a file, or the content of a folder, to the open run."""
    if (run := _run()) is None:
        return
    client, run_id = run
    if path.is_dir():
        client.log_artifacts(run_id, str(path), artifact_path=path.name)
    else:
        client.log_artifact(run_id, str(path))
