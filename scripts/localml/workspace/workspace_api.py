"""The workspace itself, and where the client finds the other services."""

import re
from typing import Any

from localml.workspace.arm import envelope
from localml.workspace.settings import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE, Settings

PROVIDER = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/providers/Microsoft.MachineLearningServices"
SCOPE = f"{PROVIDER}/workspaces/{WORKSPACE}"
_WORKSPACES = re.compile(
    rf"/subscriptions/{SUBSCRIPTION}(/resourceGroups/{RESOURCE_GROUP})?/providers/Microsoft\.MachineLearningServices/workspaces",
    re.IGNORECASE,
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


def listed(method: str, path: str, settings: Settings) -> dict[str, Any] | None:
    """All workspaces of the subscription or resource group; None where the path does not ask for them."""
    if method != "GET" or not _WORKSPACES.fullmatch(path):
        return None
    return {"value": [workspace(SCOPE, settings)]}


def workspace(scope: str, settings: Settings) -> dict[str, Any]:
    properties = {
        "friendlyName": WORKSPACE,
        "discoveryUrl": f"{settings.url}/discovery",
        "mlFlowTrackingUri": f"http://127.0.0.1:{settings.tracking_port}",
        "workspaceId": SUBSCRIPTION,
        "storageAccount": "/local",
        "provisioningState": "Succeeded",
    }
    return envelope(scope, "workspaces", properties, location="local", kind="Default", tags={})
