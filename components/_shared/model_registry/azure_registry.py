"""The registry of an Azure ML workspace, or one that workspaces share; an alias is a tag there, shown as the stage."""

from typing import Any

from model_registry.versions import CANDIDATE, CHAMPION, ModelVersion, Registered
from slmkit.errors import UserError

ALIAS_TAG, ARCHIVED = "alias", "archived"
STAGES = {CANDIDATE: "Staging", CHAMPION: "Production", ARCHIVED: "Archived"}  # in the words of MLflow and the studio
MAX_ATTEMPTS = 3


class AzureRegistry:
    def __init__(self, client: Any, registry_name: str | None = None) -> None:
        self._models, self._registry_name = client.models, registry_name

    def versions(self, name: str) -> list[Registered]:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return [self._registered(found) for found in self._models.list(name=name)]
        except ResourceNotFoundError:
            return []  # nothing of this name

    def create(self, model: ModelVersion) -> Registered:
        """Upload the folder; never ``log_model``, whose endpoints a workspace does not have."""
        from azure.ai.ml.entities import Model
        from azure.ai.ml.exceptions import AssetPathException

        for _ in range(MAX_ATTEMPTS):
            wanted = Model(
                name=model.name,
                type=model.model_type,
                path=str(model.path),
                description=model.description,
                tags=dict(model.tags),
                properties={
                    "model_sha256": model.tags["model_sha256"]
                },  # unlike a tag, it cannot be changed afterwards
            )
            try:
                return self._registered(self._models.create_or_update(wanted), is_new=True)
            except AssetPathException:
                pass  # azure-ai-ml takes the next number, which another model took meanwhile
        raise UserError(f"{model.name}: others registered {MAX_ATTEMPTS} versions at the same time; start again")

    def withdraw(self, found: Registered) -> None:
        self._models.archive(name=found.name, version=found.version)

    def set_alias(self, chosen: Registered, alias: str, holders: list[Registered]) -> None:
        """The new holder first: a kill in between leaves two, of which ``find`` gives the later version."""
        self._mark(chosen, alias)
        for holder in holders:
            self._mark(holder, ARCHIVED)

    def _mark(self, found: Registered, alias: str) -> None:
        model = self._models.get(name=found.name, version=found.version)
        model.tags = {**(model.tags or {}), ALIAS_TAG: alias}
        model.stage = STAGES[alias]
        self._models.create_or_update(model)

    def _registered(self, found: Any, *, is_new: bool = False) -> Registered:
        tags = {name: value for name, value in (found.tags or {}).items() if name != "model_sha256"}
        tags |= {name: value for name, value in (found.properties or {}).items() if name == "model_sha256"}
        alias = tags.get(ALIAS_TAG)
        aliases = (alias,) if alias in (CANDIDATE, CHAMPION) else ()
        return Registered(found.name, str(found.version), self._uri(found), tags, aliases, is_new)

    def _uri(self, found: Any) -> str:
        if self._registry_name:
            return f"azureml://registries/{self._registry_name}/models/{found.name}/versions/{found.version}"
        return f"azureml:{found.name}:{found.version}"
