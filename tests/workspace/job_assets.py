"""What a job of pipelines/jobs expects to be in a workspace: the data and models that its inputs name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_ASSET = re.compile(r"azureml:([\w.-]+)(?::([\w.-]+)|@latest)")


def register(client: Any, *jobs: Path) -> None:
    """Each asset once, without any files behind it: a submission asks only whether it is there."""
    from azure.ai.ml.entities import Data, Model

    wanted = {}
    for job in jobs:
        for given in _inputs(yaml.safe_load(job.read_text(encoding="utf-8"))):
            if found := _ASSET.fullmatch(given["path"]):
                wanted[found[1], found[2] or "1"] = given["type"]
    for (name, version), kind in wanted.items():
        path = f"azureml://datastores/workspaceblobstore/paths/{name}"
        make, collection = (Model, client.models) if kind.endswith("_model") else (Data, client.data)
        collection.create_or_update(make(name=name, version=version, type=kind, path=path))


def _inputs(content: Any) -> Iterator[dict[str, str]]:
    """Those of the job and of its steps that are data or models."""
    if isinstance(content, dict) and {"path", "type"} <= content.keys():
        yield content
    for inner in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _inputs(inner)
