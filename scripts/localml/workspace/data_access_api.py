"""Connections and datastores: how jobs reach data and services outside; secrets are shown to who asks for them."""

from typing import Any

from localml.workspace.arm import ArmError, envelope, invalid
from localml.workspace.blobs import CONTAINERS, Blobs
from localml.workspace.named_resources import NamedResources
from localml.workspace.resource_store import ResourceStore
from localml.workspace.workspace_api import SCOPE

# Of each kind of datastore, the properties that say where it is.
_STORES = {
    "AzureBlob": ("accountName", "containerName"),
    "AzureDataLakeGen2": ("accountName", "filesystem"),
    "AzureDataLakeGen1": ("storeName",),
    "AzureFile": ("accountName", "fileShareName"),
    "OneLake": ("artifact", "oneLakeWorkspaceName"),
}
_SECRETS = ("key", "clientSecret", "sasToken", "sas", "pat", "password", "secretAccessKey", "keys")


class Connections(NamedResources):
    kind = "connections"
    created = 200

    def check(self, name: str, properties: dict[str, Any], known: dict[str, Any] | None) -> None:
        for key in ("category", "target", "authType"):
            if not properties.get(key):
                raise invalid(f"Connection {name} has no {key}.")
        if properties["authType"] == "AAD" and properties.get("credentials"):
            raise invalid(f"Connection {name} signs in by Entra ID (authType AAD) and takes no credentials.")

    def shown(self, resource: dict[str, Any]) -> dict[str, Any]:
        credentials = resource["properties"].get("credentials")
        if not isinstance(credentials, dict):
            return resource
        rest = {key: None if key in _SECRETS else value for key, value in credentials.items()}
        return resource | {"properties": resource["properties"] | {"credentials": rest}}

    def act(self, action: str, resource: dict[str, Any]) -> tuple[Any, int] | None:
        return (resource, 200) if action == "listsecrets" else None


class Datastores(NamedResources):
    """The two of the workspace itself, which are in Azurite, and those that somebody made."""

    kind = "datastores"

    def __init__(self, store: ResourceStore, blobs: Blobs) -> None:
        super().__init__(store)
        self._blobs = blobs
        for name, container in CONTAINERS.items():
            # The client makes https://ACCOUNT.blob.SUFFIX of it, which no resolver of this machine knows. With an
            # account of this form the rest is a fragment of the URL, and what is left leads to Azurite.
            properties = {
                "datastoreType": "AzureBlob",
                "accountName": f"{blobs.url.removeprefix('https://')}#",
                "containerName": container,
                "endpoint": "core.local",
                "protocol": "https",
                "isDefault": name == "workspaceblobstore",
                "credentials": {"credentialsType": "Sas"},
            }
            store.put(self.kind, name, "", envelope(f"{SCOPE}/datastores/{name}", self.kind, properties))

    def check(self, name: str, properties: dict[str, Any], known: dict[str, Any] | None) -> None:
        _check_owner(name)
        kind = properties.get("datastoreType")
        if kind not in _STORES:
            raise invalid(f"datastoreType {kind!r} is none of {', '.join(_STORES)}.")
        if missing := [key for key in _STORES[kind] if not properties.get(key)]:
            raise invalid(f"Datastore {name} has no {', '.join(missing)}.")
        if known and known["datastoreType"] != kind:
            raise ArmError(400, "ImmutableProperty", f"Datastore {name} is {known['datastoreType']} and stays that.")

    def check_deletion(self, resource: dict[str, Any]) -> None:
        _check_owner(resource["name"])

    def shown(self, resource: dict[str, Any]) -> dict[str, Any]:
        credentials = resource["properties"].get("credentials") or {"credentialsType": "None"}
        rest = {key: value for key, value in credentials.items() if key != "secrets"}
        return resource | {"properties": resource["properties"] | {"credentials": rest}}

    def act(self, action: str, resource: dict[str, Any]) -> tuple[Any, int] | None:
        if action != "listsecrets":
            return None
        if resource["name"] in CONTAINERS:
            return {"secretsType": "Sas", "sasToken": self._blobs.sas()}, 200
        secrets = (resource["properties"].get("credentials") or {}).get("secrets")
        if not secrets:
            raise invalid(f"Datastore {resource['name']} has no secrets: it is read as the identity of the job.")
        return secrets, 200


def _check_owner(name: str) -> None:
    if name in CONTAINERS:
        raise ArmError(409, "Conflict", f"Datastore {name} belongs to the workspace and stays as it is.")
