"""Computes: clusters by name, with the sizes and counts that Azure would take; all of them are this machine."""

import re
from typing import Any

from localml.workspace.arm import ArmError, envelope, invalid
from localml.workspace.named_resources import NamedResources
from localml.workspace.resource_store import ResourceStore
from localml.workspace.workspace_api import SCOPE

DEFAULT_COMPUTES = ("cpu-cluster", "gpu-cluster", "gpu-cluster-8x")
_THIS_MACHINE = {"vmSize": "THIS_MACHINE", "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 1}}

_VM_SIZE = re.compile(r"(Standard|Basic)_[A-Z]{1,3}\d+[A-Za-z0-9_-]*", re.IGNORECASE)
_CLUSTER_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
_PRIORITIES = ("Dedicated", "LowPriority")


class Computes(NamedResources):
    kind = "computes"

    def __init__(self, store: ResourceStore) -> None:
        super().__init__(store)
        properties = {"computeType": "AmlCompute", "provisioningState": "Succeeded", "properties": _THIS_MACHINE}
        for name in DEFAULT_COMPUTES:
            store.add(
                self.kind, name, "", envelope(f"{SCOPE}/computes/{name}", self.kind, properties, location="local")
            )

    def check(self, name: str, properties: dict[str, Any], known: dict[str, Any] | None) -> None:
        if properties.get("computeType") != "AmlCompute":
            raise invalid(
                f"Compute {name} is {properties.get('computeType')}; only clusters (AmlCompute) are made here."
            )
        if not _CLUSTER_NAME.fullmatch(name):
            raise invalid(f"{name!r} is no name for a cluster: up to 32 letters, digits and '-', a letter first.")
        given = properties.get("properties") or {}
        size, scale = str(given.get("vmSize")), given.get("scaleSettings") or {}
        if not _VM_SIZE.fullmatch(size):
            raise invalid(f"The VM size {size} of compute {name} does not exist.")
        before = ((known or {}).get("properties") or {}).get("vmSize")
        if before not in (None, size, _THIS_MACHINE["vmSize"]):
            raise ArmError(400, "ImmutableProperty", f"Compute {name} has VMs of size {before}; make another cluster.")
        if given.get("vmPriority", "Dedicated") not in _PRIORITIES:
            raise invalid(f"vmPriority {given['vmPriority']!r} is none of {', '.join(_PRIORITIES)}.")
        low, high = scale.get("minNodeCount", 0), scale.get("maxNodeCount")
        if not isinstance(high, int) or not isinstance(low, int) or not 0 <= low <= high:
            raise invalid(f"Compute {name}: minNodeCount {low} and maxNodeCount {high}: 0 <= min <= max must hold.")

    def act(self, action: str, resource: dict[str, Any]) -> tuple[Any, int] | None:
        return ({"nodes": []}, 200) if action == "listnodes" else None
