"""MLflow's model registry, which has aliases of its own."""

import os

from model_registry.versions import CANDIDATE, CHAMPION, ModelVersion, Registered


class MlflowRegistry:
    def __init__(self) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()

    def versions(self, name: str) -> list[Registered]:
        found = self._client.search_model_versions(f"name = '{name}'")
        aliases: dict[str, list[str]] = {}  # of which a search says nothing
        for alias, version in self._client.get_registered_model(name).aliases.items() if found else ():
            aliases.setdefault(str(version), []).append(alias)
        versions = {str(one.version): one.tags for one in found}
        return [
            Registered(name, version, _uri(name, version), tags, tuple(aliases.get(version, ())))
            for version, tags in versions.items()
        ]

    def create(self, model: ModelVersion) -> Registered:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        created = self._client.create_model_version(
            model.name,
            source=str(model.path.resolve()),
            run_id=os.environ.get("MLFLOW_RUN_ID"),
            tags=dict(model.tags),
            description=model.description,
        )
        version = str(created.version)
        return Registered(model.name, version, _uri(model.name, version), model.tags, is_new=True)

    def withdraw(self, found: Registered) -> None:
        self._client.delete_model_version(found.name, found.version)

    def set_alias(self, chosen: Registered, alias: str, holders: list[Registered]) -> None:
        """The registry itself takes the alias from ``holders``."""
        self._client.set_registered_model_alias(chosen.name, alias, chosen.version)
        if alias == CHAMPION and CANDIDATE in chosen.aliases:
            self._client.delete_registered_model_alias(chosen.name, CANDIDATE)


def _uri(name: str, version: object) -> str:
    return f"models:/{name}/{version}"
