"""Versions of models and their aliases: in the registry of an Azure ML workspace, in a shared one, or in MLflow's."""

import os
import re
from typing import TYPE_CHECKING

from model_registry.versions import ALIASES, ModelVersion, Registered
from slmkit import azure_identity
from slmkit.errors import UserError

if TYPE_CHECKING:
    from model_registry.azure_registry import AzureRegistry
    from model_registry.mlflow_registry import MlflowRegistry

__all__ = ["ALIASES", "ModelVersion", "Registered", "check_name", "find", "register", "set_alias", "workspace_client"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")  # what both Azure ML and MLflow take
WORKSPACE_VARIABLES = ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME")


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(
            f"registered_model_name {name!r}: letters, digits, '.', '_' and '-' only, beginning with a letter or digit"
        )


def register(model: ModelVersion, registry_name: str | None = None) -> Registered:
    """Add a version, unless one has the same content (by the tag ``model_sha256``): then it is that one.

    Of two that are registered at once with the same content, the one with the lower number stays.
    """
    check_name(model.name)
    registry = _connect(registry_name)
    if same := _with_content_of(model, registry.versions(model.name)):
        return same
    created = registry.create(model)
    first = _with_content_of(model, registry.versions(model.name)) or created
    if first.version != created.version:
        registry.withdraw(created)
        return first
    return created


def find(
    name: str, *, version: str | None = None, alias: str | None = None, registry_name: str | None = None
) -> Registered | None:
    """The version of this number or alias, or else the latest one; None where there is none."""
    check_name(name)
    versions = sorted(_connect(registry_name).versions(name), key=_number)
    if version is not None:
        versions = [found for found in versions if found.version == version]
    elif alias is not None:
        versions = [found for found in versions if alias in found.aliases]
    return versions[-1] if versions else None


def set_alias(name: str, version: str, alias: str, registry_name: str | None = None) -> None:
    """Give a version the alias, ``candidate`` or ``champion``; the version that had it loses it.

    A champion is no candidate any more. In Azure the one that lost an alias is marked as archived.
    """
    check_name(name)
    if alias not in ALIASES:
        raise UserError(f"alias {alias!r} is not one of {', '.join(ALIASES)}")
    registry = _connect(registry_name)
    versions = registry.versions(name)
    chosen = next((found for found in versions if found.version == version), None)
    if chosen is None:
        known = ", ".join(found.version for found in sorted(versions, key=_number)) or "none"
        raise UserError(f"{name} version {version} is not registered; there: {known}")
    holders = [found for found in versions if alias in found.aliases and found is not chosen]
    if holders or chosen.aliases != (alias,):
        registry.set_alias(chosen, alias, holders)


def workspace_client(registry_name: str | None = None):
    """The workspace that the job runs in, or a shared registry, as the submitting user or as the compute."""
    from azure.ai.ml import MLClient
    from azure.ai.ml.identity import AzureMLOnBehalfOfCredential

    credential = (
        AzureMLOnBehalfOfCredential() if os.environ.get("OBO_ENDPOINT") else azure_identity.default_credential()
    )
    if registry_name:
        return MLClient(credential, registry_name=registry_name)
    return MLClient(credential, *(os.environ[name] for name in WORKSPACE_VARIABLES))


def _connect(registry_name: str | None) -> "AzureRegistry | MlflowRegistry":
    if registry_name or all(os.environ.get(name) for name in WORKSPACE_VARIABLES):
        from model_registry.azure_registry import AzureRegistry

        return AzureRegistry(workspace_client(registry_name), registry_name)
    if os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_REGISTRY_URI"):
        from model_registry.mlflow_registry import MlflowRegistry

        return MlflowRegistry()
    raise UserError("no registry: neither an Azure ML workspace nor MLFLOW_TRACKING_URI is set in the environment")


def _with_content_of(model: ModelVersion, versions: list[Registered]) -> Registered | None:
    same = [found for found in versions if found.tags.get("model_sha256") == model.tags["model_sha256"]]
    return min(same, key=_number, default=None)


def _number(found: Registered) -> int:
    """Versions that were given a name by hand come first."""
    return int(found.version) if found.version.isdecimal() else 0
