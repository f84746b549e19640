"""From a job as the client has sent it to files that the local runner takes: snapshots and data come from the blobs."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from localml.errors import RunError
from localml.workspace.arm import Place
from localml.workspace.blobs import ACCOUNT, DEFAULT_CONTAINER, Blobs
from localml.workspace.resource_store import ResourceStore

_DATASTORE = re.compile(r"azureml://(?:subscriptions/.*/)?datastores/(?P<store>[^/]+)/paths/(?P<path>.*)")
_READ_ONLY = ("id", "creation_context", "additional_includes")  # the last are in the snapshot already
_JOB_SCHEMA = "https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json"


class JobFiles:
    """Writes below ``folder`` what one job needs; code snapshots are shared by all jobs in ``snapshots``."""

    def __init__(self, store: ResourceStore, blobs: Blobs, folder: Path, snapshots: Path) -> None:
        self._store, self._blobs, self._folder, self._snapshots = store, blobs, folder, snapshots

    def write(self, resource: dict[str, Any]) -> Path:
        """The job file of a pipeline job, with everything that it names on this machine."""
        from azure.ai.ml._restclient.arm_ml_service.models import JobBase
        from azure.ai.ml.entities import Job

        (self._folder / "components").mkdir(parents=True, exist_ok=True)
        content = Job._from_rest_object(JobBase(resource))._to_dict()
        content = {key: value for key, value in content.items() if key not in (*_READ_ONLY, "name")}
        for name, given in content.get("inputs", {}).items():
            content["inputs"][name] = self._local_input(given)
        for node in content["jobs"].values():
            self._local_node(node)
        content["settings"] = {"default_compute": "azureml:local"}
        path = self._folder / "job.yml"
        path.write_text(yaml.safe_dump({"$schema": _JOB_SCHEMA} | content, sort_keys=False, allow_unicode=True))
        return path

    def _local_node(self, node: dict[str, Any]) -> None:
        for name, given in (node.get("inputs") or {}).items():
            node["inputs"][name] = self._local_input(given)
        for key in ("component", "trial"):
            if isinstance(node.get(key), str):
                node[key] = str(self._component(node[key].removeprefix("azureml:")))
        for key in ("compute", *(key for key in list(node) if key.startswith("_"))):
            node.pop(key, None)

    def _local_input(self, given: Any) -> Any:
        """An input whose data lie on this machine; values and bindings stay as they are."""
        if isinstance(given, dict) and list(given) == ["path"] and given["path"].startswith("${{"):
            return given["path"]  # a binding is no data, whatever the port is
        if not isinstance(given, dict) or not str(given.get("path", "")).startswith("azureml:"):
            return given
        return given | {"path": str(self.local_data(given["path"]))}

    def local_data(self, path: str) -> Path:
        """The copy on this machine of what a datastore path or a data or model asset names."""
        if found := _DATASTORE.fullmatch(path):
            place = found["path"].strip("/")
            target = self._folder / "data" / found["store"] / Path(place).parent
            return self._blobs.download(DEFAULT_CONTAINER, place, target)
        if place := Place.of(path.removeprefix("azureml:")):
            kind, name, _, version = place.tail
            if asset := self._store.get(kind, name, version):
                properties = asset["properties"]
                return self.local_data(properties.get("dataUri") or properties["modelUri"])
        raise RunError(f"{path} is not in this workspace; register it, or give a local path")

    def _component(self, resource_id: str) -> Path:
        """The spec of a component, with its code and environment beside it."""
        place = Place.of(resource_id)
        _, name, _, version = place.tail
        path = self._folder / "components" / f"{name}-{version}.yml"
        if not path.exists():
            spec = self._spec(name, version)
            if spec.get("code"):
                spec["code"] = str(self.snapshot(spec["code"]))
            if isinstance(spec.get("environment"), str):
                spec["environment"] = self._environment(spec["environment"])
            if isinstance(spec.get("task"), dict):  # a parallel component keeps both in its task
                spec["task"] = self._local_task(spec["task"])
            for node in (spec.get("jobs") or {}).values():
                self._local_node(node)
            spec = {
                key: value for key, value in spec.items() if not key.startswith(("_", "$")) and key not in _READ_ONLY
            }
            path.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True))
        return path

    def _spec(self, name: str, version: str) -> dict[str, Any]:
        """As it stood in the file; the nodes of a pipeline component are sent in another form."""
        from azure.ai.ml._restclient.arm_ml_service.models import ComponentVersion
        from azure.ai.ml.entities import Component

        resource = self._store.get("components", name, version)
        if resource["properties"]["componentSpec"].get("jobs"):
            return dict(Component._from_rest_object(ComponentVersion(resource))._to_dict())
        return dict(resource["properties"]["componentSpec"])

    def _local_task(self, task: dict[str, Any]) -> dict[str, Any]:
        local = dict(task)
        if task.get("code"):
            local["code"] = str(self.snapshot(task["code"]))
        if isinstance(task.get("environment"), str):
            local["environment"] = self._environment(task["environment"])
        return local

    def snapshot(self, code: str) -> Path:
        """The uploaded code, downloaded once."""
        place = Place.of(code.removeprefix("azureml:"))
        _, name, _, version = place.tail
        target = self._snapshots / f"{name}-{version}"
        if not target.exists():
            uri = urlsplit(self._store.get("codes", name, version)["properties"]["codeUri"])
            container, _, path = uri.path.removeprefix(f"/{ACCOUNT}/").partition("/")
            partial = self._folder / "snapshot" / f"{name}-{version}"
            found = self._blobs.download(container, path, partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                found.rename(target)
            except OSError:  # another job has brought it meanwhile
                if not target.exists():
                    raise
        return target

    def _environment(self, environment: str) -> dict[str, Any]:
        place = Place.of(environment.removeprefix("azureml:"))
        _, name, _, version = place.tail
        properties = self._store.get("environments", name, version)["properties"]
        local = {"name": name, "image": properties.get("image")}
        if properties.get("condaFile"):
            conda = self._folder / "components" / f"environment-{version}.yml"
            conda.write_text(properties["condaFile"])
            local["conda_file"] = str(conda)
        return local


def named(resource: dict[str, Any]) -> set[str]:
    """The ids of the components that a job or a pipeline component names."""
    text = json.dumps(resource)
    return set(re.findall(r"/subscriptions/[^\"]*/components/[^\"/]+/versions/[^\"/]+", text))
