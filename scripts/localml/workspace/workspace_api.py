"""The workspace itself, its computes, its datastores, and where the client finds the other services."""

from typing import Any

from localml.workspace.arm import Place, envelope, invalid, not_found
from localml.workspace.blobs import ARTIFACTS_CONTAINER, DEFAULT_CONTAINER, Blobs
from localml.workspace.resource_store import ResourceStore
from localml.workspace.settings import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE, Settings

DEFAULT_COMPUTES = ("cpu-cluster", "gpu-cluster", "gpu-cluster-8x")
_DATASTORES = {"workspaceblobstore": DEFAULT_CONTAINER, "workspaceartifactstore": ARTIFACTS_CONTAINER}
SCOPE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}"
    f"/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
)


def cloud(settings: Settings) -> list[dict[str, Any]]:
    """What Azure Resource Manager says about its own cloud: all roads lead to this machine."""
    return [
        {
            "name": "LocalWorkspace",
            "portal": settings.url,
            "authentication": {"loginEndpoint": settings.url, "audiences": [settings.url]},
            "resourceManager": f"{settings.url}/",
            "mlResourceId": settings.url,
            "suffixes": {"storage": "core.local"},
        }
    ]


def discovery(settings: Settings) -> dict[str, str]:
    """The addresses of the services behind the workspace."""
    return dict.fromkeys(("api", "history", "experimentation", "modelmanagement", "catalog"), settings.url)


class Workspace:
    def __init__(self, store: ResourceStore, blobs: Blobs, settings: Settings) -> None:
        self._store, self._blobs, self._settings = store, blobs, settings
        for name in DEFAULT_COMPUTES:
            properties = {"computeType": "AmlCompute", "provisioningState": "Succeeded", "computeLocation": "local"}
            properties["properties"] = {
                "vmSize": "THIS_MACHINE",
                "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 1},
            }
            store.add(
                "computes", name, "", envelope(f"{SCOPE}/computes/{name}", "computes", properties, location="local")
            )

    def workspace(self, place: Place) -> Any:
        properties = {
            "friendlyName": WORKSPACE,
            "discoveryUrl": f"{self._settings.url}/discovery",
            "mlFlowTrackingUri": f"http://127.0.0.1:{self._settings.tracking_port}",
            "workspaceId": SUBSCRIPTION,
            "storageAccount": "/local",
            "provisioningState": "Succeeded",
        }
        return envelope(place.scope, "workspaces", properties, location="local", kind="Default", tags={})

    def computes(self, method: str, place: Place, body: Any) -> Any:
        if len(place.tail) == 1:
            return {"value": self._store.all("computes")}
        name = place.tail[1]
        if method == "PUT":
            if not isinstance((body or {}).get("properties"), dict):
                raise invalid(f"The request for compute {name} has no properties.")
            properties = body["properties"] | {"provisioningState": "Succeeded"}
            self._store.put(
                "computes",
                name,
                "",
                envelope(f"{place.scope}/computes/{name}", "computes", properties, location="local"),
            )
        elif method == "DELETE":
            return {} if self._store.delete("computes", name) else None
        if (found := self._store.get("computes", name)) is None:
            raise not_found(f"Compute {name}")
        return found

    def datastores(self, place: Place) -> Any:
        if len(place.tail) == 1:
            return {"value": [self._datastore(place, name) for name in _DATASTORES]}
        name = place.tail[1]
        if name not in _DATASTORES:
            raise not_found(f"Datastore {name}")
        if place.tail[2:] == ("listSecrets",):
            return {"secretsType": "Sas", "sasToken": self._blobs.sas()}
        return self._datastore(place, name)

    def _datastore(self, place: Place, name: str) -> Any:
        """The client makes https://ACCOUNT.blob.SUFFIX of it, which no resolver of this machine knows.

        With an account of this form the rest is a fragment of the URL, and what is left leads to Azurite.
        """
        properties = {
            "datastoreType": "AzureBlob",
            "accountName": f"{self._blobs.url.removeprefix('https://')}#",
            "containerName": _DATASTORES[name],
            "endpoint": "core.local",
            "protocol": "https",
            "isDefault": name == "workspaceblobstore",
            "credentials": {"credentialsType": "Sas"},
        }
        return envelope(f"{place.scope}/datastores/{name}", "datastores", properties)
