"""Registries: shared collections of assets, found by name at the discovery service, as they are on Azure."""

import re
from typing import Any

from localml.workspace.arm import Place, envelope, invalid, not_found
from localml.workspace.assets_api import Assets
from localml.workspace.blobs import Blobs
from localml.workspace.resource_store import ResourceStore
from localml.workspace.settings import RESOURCE_GROUP, SUBSCRIPTION, Settings
from localml.workspace.workspace_api import PROVIDER

_DISCOVERY = re.compile(r"/registrymanagement/v1\.0/registries/(?P<name>[^/]+)/discovery")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,32}")  # Azure's rule


def discovery(path: str, settings: Settings) -> dict[str, Any] | None:
    """Where a registry is; None where the path does not ask for that."""
    if not (found := _DISCOVERY.fullmatch(path)):
        return None
    return {
        "registryName": _checked(found["name"]),
        "subscriptionId": SUBSCRIPTION,
        "resourceGroup": RESOURCE_GROUP,
        "primaryRegion": "local",
        "regions": ["local"],
        "primaryRegionResourceProviderUri": f"{settings.url}/",
        "registryFqdns": {"local": {"uri": settings.url}},
    }


class Registries:
    """A registry of any name that Azure would take is there, and empty at first."""

    def __init__(self, store: ResourceStore, blobs: Blobs, settings: Settings) -> None:
        self._store, self._blobs, self._settings = store, blobs, settings
        self._assets = Assets(store, blobs)

    def registry(self, method: str, place: Place, query: dict[str, str], body: Any) -> tuple[Any, int] | None:
        """The registry itself, as a resource."""
        if not place.in_registry:
            return None
        name = _checked(place.workspace)
        if method in ("PUT", "PATCH"):
            if not isinstance((body or {}).get("properties"), dict):
                raise invalid(f"The request for registry {name} has no properties.")
            self._store.put("registries", name, "", body)
        elif method == "DELETE":
            self._store.delete("registries", name)
            return {}, 200
        given = self._store.get("registries", name) or {}
        properties = given.get("properties", {}) | {"discoveryUrl": f"{self._settings.url}/discovery"}
        more = {"location": given.get("location", "local"), "tags": given.get("tags") or {}}
        return envelope(f"{PROVIDER}/registries/{name}", "registries", properties, **more), 200

    def upload(self, method: str, place: Place, query: dict[str, str], body: Any) -> tuple[Any, int] | None:
        """Where the files of an asset of a registry go, and where they are read."""
        asset = Place.of(str((body or {}).get("assetId")))
        if asset is None or asset.scope != place.scope or len(asset.tail) != 4:
            raise invalid(f"assetId: expected {place.scope}/KIND/NAME/versions/VERSION.")
        if place.tail[0] == "tempdatarefs":
            return self._assets.pending_upload(asset), 200
        return {
            "blobReferenceForConsumption": {
                "blobUri": body.get("blobUri"),
                "credential": {"credentialType": "SAS", "sasUri": f"{body.get('blobUri')}?{self._blobs.sas()}"},
            }
        }, 200


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise not_found(f"Registry {name}")
    return name
