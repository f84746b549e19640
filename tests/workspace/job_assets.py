"""What a job of pipelines/jobs expects to be in a workspace: the data and models that its inputs name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_ASSET = re.compile(r"azureml:([\w.-]+)(?::([\w.-]+)|@latest)")
_IN_REGISTRY = re.compile(r"azureml://registries/([\w-]+)/models/([\w.-]+)/versions/(\w+)")


def register(client: Any, *jobs: Path) -> None:
    """Each asset once, without what it should hold: a submission asks only whether it is there."""
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Data, Model

    wanted, shared = {}, set()
    for job in jobs:
        for given in _inputs(yaml.safe_load(job.read_text(encoding="utf-8"))):
            if found := _ASSET.fullmatch(given["path"]):
                wanted[found[1], found[2] or "1"] = given["type"]
            elif found := _IN_REGISTRY.fullmatch(given["path"]):
                shared.add((*found.groups(), given["type"]))
    for (name, version), kind in wanted.items():
        path = f"azureml://datastores/workspaceblobstore/paths/{name}"
        make, collection = (Model, client.models) if kind.endswith("_model") else (Data, client.data)
        if version not in {known.version for known in collection.list(name)}:  # of a job that ran here
            collection.create_or_update(make(name=name, version=version, type=kind, path=path))
    for registry, name, version, kind in shared:
        models = MLClient(client._credential, registry_name=registry, show_progress=False).models
        models.create_or_update(Model(name=name, version=version, type=kind, path=Path(__file__).parent / "count_job"))


def _inputs(content: Any) -> Iterator[dict[str, str]]:
    """Those of the job and of its steps that are data or models."""
    if isinstance(content, dict) and {"path", "type"} <= content.keys():
        yield content
    for inner in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _inputs(inner)
