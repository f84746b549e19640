"""What steps register in MLflow's registry of this machine: models of the workspace, as both are one on Azure ML."""

import contextlib
import sqlite3
from pathlib import Path

from localml.models import folder_of_source
from localml.workspace.arm import envelope
from localml.workspace.blobs import DEFAULT_CONTAINER, Blobs
from localml.workspace.resource_store import ResourceStore
from localml.workspace.workspace_api import SCOPE

_VERSIONS = "SELECT name, CAST(version AS TEXT), source, description FROM model_versions WHERE current_stage <> ?"
_TAGS = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?"
_DELETED = "Deleted_Internal"


def publish(root: Path, store: ResourceStore, blobs: Blobs) -> None:
    """Bring the versions that the workspace does not have yet, oldest first; reads without loading MLflow."""
    if not (root / "mlflow.db").is_file():
        return
    with contextlib.closing(sqlite3.connect(f"file:{root / 'mlflow.db'}?mode=ro", uri=True, timeout=30)) as registry:
        try:
            versions = registry.execute(_VERSIONS + " ORDER BY name, version", (_DELETED,)).fetchall()
        except sqlite3.OperationalError:  # another process is about to make its tables
            return
        for name, version, source, description in versions:
            folder = folder_of_source(source)
            if store.get("models", name, version) or not folder.is_dir():
                continue
            path = f"models/{name}/{version}"
            blobs.upload(folder, DEFAULT_CONTAINER, path)
            properties = {
                "modelType": "mlflow_model" if (folder / "MLmodel").is_file() else "custom_model",
                "modelUri": f"azureml:/{SCOPE}/datastores/workspaceblobstore/paths/{path}",
                "description": description,
                "tags": dict(registry.execute(_TAGS, (name, version)).fetchall()),
                "properties": {},
                "flavors": {},
                "isArchived": False,
            }
            store.add(
                "models", name, version, envelope(f"{SCOPE}/models/{name}/versions/{version}", "models", properties)
            )
