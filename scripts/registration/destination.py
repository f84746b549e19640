"""A workspace or a registry, through azure-ai-ml's own client: what it has, and what is added to it."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import workspace_client
from registration.sources import Source
from workspace_client import in_one_line


class Destination:
    """``client`` is an MLClient of a workspace, or of the registry with that name."""

    def __init__(self, client: Any, registry: str | None = None) -> None:
        self._client, self.registry = client, registry

    @classmethod
    def connect(cls, args: argparse.Namespace, registry: str | None) -> "Destination":
        """``args`` has the flags of ``workspace_client``."""
        return cls(workspace_client.connect(args, registry), registry)

    def __str__(self) -> str:
        return f"registry {self.registry}" if self.registry else f"workspace {self._client.workspace_name}"

    def tags(self, source: Source) -> dict[str, str] | None:
        """The tags of this version, or None where it is not there."""
        from azure.core.exceptions import ResourceNotFoundError

        with in_one_line(str(source)):
            try:
                return dict(self._collection(source).get(source.name, source.version).tags or {})
            except ResourceNotFoundError:
                return None

    def register(self, source: Source) -> None:
        """Add this version, with its files."""
        from azure.ai.ml import load_component, load_environment

        load = load_environment if source.kind == "environment" else load_component
        with tempfile.TemporaryDirectory() as folder, in_one_line(str(source)):
            self._collection(source).create_or_update(load(source.write(Path(folder), self._reference)))

    def newest(self) -> list[tuple[str, Any]]:
        """The newest version of each environment, component and pipeline component, with its kind."""
        found = []
        with in_one_line(str(self)):
            for collection in (self._client.environments, self._client.components):
                for container in collection.list():
                    versions = list(collection.list(container.name))
                    latest = [each for each in versions if each.version == container.latest_version] or versions[:1]
                    found += [(_kind(each), each) for each in latest]
        return found

    def _collection(self, source: Source) -> Any:
        return self._client.environments if source.kind == "environment" else self._client.components

    def _reference(self, source: Source) -> str:
        """How another asset names this one; a registry takes no short form."""
        if not self.registry:
            return f"azureml:{source.name}:{source.version}"
        collection = "environments" if source.kind == "environment" else "components"
        return f"azureml://registries/{self.registry}/{collection}/{source.name}/versions/{source.version}"


def _kind(asset: Any) -> str:
    kind = type(asset).__name__
    return {"Environment": "environment", "PipelineComponent": "pipeline"}.get(kind, "component")
