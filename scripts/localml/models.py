"""The models that were registered on this machine, by the names that a job file gives them."""

import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from localml.errors import RunError

_REFERENCE = re.compile(r"azureml:(?P<name>[\w.-]+)(?::(?P<version>\d+)|@(?P<label>[\w-]+))")


def folder_of(store: Path, reference: str) -> Path | None:
    """The folder of ``azureml:name:version``, ``azureml:name@latest`` or ``azureml:name@alias`` in MLflow's registry.

    ``store`` is MLflow's SQLite file. None where no model has this name; ``RunError`` where it has, but not this
    version.
    """
    found = _REFERENCE.fullmatch(reference)
    if not found or not store.is_file():
        return None

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store.as_posix()}")
    versions = {int(v.version): v for v in client.search_model_versions(f"name = '{found['name']}'")}
    if not versions:
        return None
    registered = client.get_registered_model(found["name"]).aliases
    aliases = {"latest": max(versions)} | {alias: int(version) for alias, version in registered.items()}
    version = int(found["version"]) if found["version"] else aliases.get(found["label"])
    if version not in versions:
        known = ", ".join([*map(str, sorted(versions)), *(f"@{alias}" for alias in aliases)])
        raise RunError(f"{reference}: the registry of this machine has {known} of {found['name']}")
    return folder_of_source(versions[version].source)


def folder_of_source(source: str) -> Path:
    """Where the files of a version lie by MLflow, which keeps a path as it was given or as a URI with its escapes."""
    return Path(url2pathname(urlsplit(source).path)) if source.startswith("file:") else Path(source)
