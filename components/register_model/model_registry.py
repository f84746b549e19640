"""A model version in the registry of the workspace on Azure ML, of MLflow elsewhere; the same content is added once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slmkit.errors import UserError

WORKSPACE_VARIABLES = ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME")


@dataclass(frozen=True)
class ModelVersion:
    """What is registered; ``tags['model_sha256']`` is how an earlier registration of the same content is known."""

    name: str
    path: Path
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Registered:
    version: str
    uri: str
    is_new: bool


def register(model: ModelVersion) -> Registered:
    if all(os.environ.get(name) for name in WORKSPACE_VARIABLES):
        return register_in_workspace(model, workspace_client())
    if os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_REGISTRY_URI"):
        return register_in_mlflow(model)
    raise UserError("no registry: neither an Azure ML workspace nor MLFLOW_TRACKING_URI is set in the environment")


def register_in_mlflow(model: ModelVersion) -> Registered:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    for found in client.search_model_versions(f"name = '{model.name}'"):
        if found.tags.get("model_sha256") == model.tags["model_sha256"]:
            return Registered(str(found.version), f"models:/{model.name}/{found.version}", is_new=False)
    try:
        client.create_registered_model(model.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client.create_model_version(
        model.name,
        source=str(model.path.resolve()),
        run_id=os.environ.get("MLFLOW_RUN_ID"),
        tags=dict(model.tags),
        description=model.description,
    )
    return Registered(str(created.version), f"models:/{model.name}/{created.version}", is_new=True)


def register_in_workspace(model: ModelVersion, client) -> Registered:
    """Upload the folder as a ``custom_model``; never ``log_model``, whose endpoints a workspace does not have."""
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Model
    from azure.core.exceptions import ResourceNotFoundError

    try:
        for found in client.models.list(name=model.name):
            if (found.tags or {}).get("model_sha256") == model.tags["model_sha256"]:
                return Registered(found.version, f"azureml:{model.name}:{found.version}", is_new=False)
    except ResourceNotFoundError:
        pass  # the first version of this name
    created = client.models.create_or_update(
        Model(
            name=model.name,
            type=AssetTypes.CUSTOM_MODEL,
            path=str(model.path),
            description=model.description,
            tags=dict(model.tags),
            properties={"model_sha256": model.tags["model_sha256"]},  # unlike a tag, it cannot be changed afterwards
        )
    )
    return Registered(created.version, f"azureml:{created.name}:{created.version}", is_new=True)


def workspace_client():
    """The workspace that the job runs in, as the submitting user (``user_identity``) or as the compute."""
    from azure.ai.ml import MLClient
    from azure.ai.ml.identity import AzureMLOnBehalfOfCredential
    from azure.identity import DefaultAzureCredential

    if os.environ.get("OBO_ENDPOINT"):
        credential = AzureMLOnBehalfOfCredential()
    else:
        # A compute with a user-assigned identity names it here; DefaultAzureCredential does not look.
        credential = DefaultAzureCredential(managed_identity_client_id=os.environ.get("DEFAULT_IDENTITY_CLIENT_ID"))
    return MLClient(credential, *(os.environ[name] for name in WORKSPACE_VARIABLES))
