"""From a job as the client has sent it to files that the local runner takes: snapshots and data come from the blobs."""

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from localml.errors import RunError
from localml.workspace.arm import Place
from localml.workspace.blobs import ACCOUNT, CONTAINERS, Blobs
from localml.workspace.resource_store import ResourceStore

_DATASTORE = re.compile(r"azureml://(?:subscriptions/.*/)?datastores/(?P<store>[^/]+)/paths/(?P<path>.*)")
_BLOB = re.compile(rf"https?://[^/]+/{ACCOUNT}/(?P<container>[^/]+)/?(?P<path>[^?]*)(?:\?.*)?")
_READ_ONLY = ("id", "creation_context", "additional_includes")  # the last are in the snapshot already
_JOB_SCHEMA = "https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json"


class JobFiles:
    """Writes below ``folder`` what one job needs; code snapshots are shared by all jobs of the root."""

    def __init__(self, store: ResourceStore, blobs: Blobs, folder: Path, root: Path) -> None:
        self._store, self._blobs, self._folder = store, blobs, folder
        self._snapshots, self._datastores = root / "workspace" / "snapshots", root / "datastores"

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
                node[key] = str(self._component(node[key]))
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
            if found["store"] not in CONTAINERS:
                raise RunError(f"{path}: what is in datastore {found['store']} is not on this machine; upload it")
            collected = self._datastores / found["store"] / found["path"].strip("/")
            if ".." not in collected.parts and collected.exists():  # by this machine's endpoints, which write files
                return collected
            return self._download(CONTAINERS[found["store"]], found["path"].strip("/"))
        if found := _BLOB.fullmatch(path):  # what a registry has
            return self._download(found["container"], found["path"].strip("/"))
        place = Place.of(path)
        if place and place.is_version and (asset := self._store.get(*place.key)):
            properties = asset["properties"]
            return self.local_data(properties.get("dataUri") or properties["modelUri"])
        raise RunError(f"{path} is not in {place.where if place else 'this workspace'}; register it as a version there")

    def _download(self, container: str, path: str) -> Path:
        """What lies at a path, in a folder of its own: that of another path may hold a part of it."""
        if ".." in PurePosixPath(path).parts:
            raise RunError(f"{path!r} leads out of its datastore")
        place = hashlib.sha256(f"{container}/{path}".encode()).hexdigest()[:16]
        return self._once(container, path, self._folder / "data" / place / (PurePosixPath(path).name or container))

    def _once(self, container: str, path: str, target: Path) -> Path:
        """What lies at a path, brought to ``target`` whole, and never again: a server may have it open."""
        if not target.exists():
            partial = self._folder / "partial"
            shutil.rmtree(partial, ignore_errors=True)  # of an attempt that was killed
            found = self._blobs.download(container, path, partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                found.rename(target)
            except OSError:  # another job has brought it meanwhile
                if not target.exists():
                    raise
        return target

    def _component(self, resource_id: str) -> Path:
        """The spec of a component, with its code and environment beside it."""
        place = Place.of(resource_id)
        path = self._folder / "components" / f"{_file_name(place)}.yml"
        if not path.exists():
            spec = self._spec(place)
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

    def _spec(self, place: Place) -> dict[str, Any]:
        """As it stood in the file; the nodes of a pipeline component are sent in another form."""
        from azure.ai.ml._restclient.arm_ml_service.models import ComponentVersion
        from azure.ai.ml.entities import Component

        resource = self._store.get(*place.key)
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
        place = Place.of(code)
        target = self._snapshots / _file_name(place)
        uri = _BLOB.fullmatch(self._store.get(*place.key)["properties"]["codeUri"])
        return self._once(uri["container"], uri["path"], target)

    def _environment(self, environment: str) -> dict[str, Any]:
        place = Place.of(environment)
        if place is None or (found := self._store.get(*place.key)) is None:
            raise RunError(f"environment {environment} is not in {place.where if place else 'this workspace'}")
        properties = found["properties"]
        local = {"name": place.tail[1], "image": properties.get("image")}
        if properties.get("condaFile"):
            conda = self._folder / "components" / f"{_file_name(place)}.conda.yml"
            conda.write_text(properties["condaFile"])
            local["conda_file"] = str(conda)
        return local


def named(resource: Any) -> set[Place]:
    """The components that a job or a pipeline component names."""
    places = (Place.of(text) for text in _strings(resource))
    return {place for place in places if place and place.is_version and place.tail[0] == "components"}


def _strings(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for inner in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _strings(inner)


def _file_name(place: Place) -> str:
    """No two assets have the same: neither '@' nor ',' is in the name or version of one."""
    registry = f",{place.workspace}" if place.in_registry else ""
    return f"{place.tail[1]}@{place.tail[3]}{registry}"
