"""What all resources of Azure Resource Manager have in common: their ids, their envelope, and errors."""

import datetime
import re
from dataclasses import dataclass
from typing import Any

_REGISTRY_PREFIX = "/mferp/managementfrontend"  # which the client puts before the calls that are for a registry
_REGISTRY = "azureml://registries/"
_REGISTRY_ID = re.compile(rf"(?P<scope>{_REGISTRY}(?P<workspace>[^/]+))/(?P<tail>.*)")
_ID = re.compile(
    r"(?P<scope>/subscriptions/[^/]+/resource[gG]roups/[^/]+/providers/Microsoft\.MachineLearningServices"
    r"/(?P<hub>workspaces|registries)/(?P<workspace>[^/]+))(?:/(?P<tail>.*))?"
)


class ArmError(Exception):
    """A refusal, in the shape in which Azure refuses."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "details": [], "additionalInfo": []}}


def not_found(what: str) -> ArmError:
    return ArmError(404, "ResourceNotFound", f"{what} was not found.")


def invalid(message: str) -> ArmError:
    return ArmError(400, "UserError", message)


@dataclass(frozen=True)
class Place:
    """Where a path or an id points: the scope of the workspace or registry, and what follows it.

    The scope of a registry is that of the ids of its assets, azureml://registries/NAME.
    """

    scope: str
    workspace: str
    in_registry: bool
    tail: tuple[str, ...]

    @classmethod
    def of(cls, path: str) -> "Place | None":
        path = path.removeprefix(_REGISTRY_PREFIX).rstrip("/")
        found = _ID.fullmatch(path.removeprefix("azureml:")) or _REGISTRY_ID.fullmatch(path)
        if not found:
            return None
        tail = tuple(found["tail"].split("/")) if found["tail"] else ()
        in_registry = found.groupdict().get("hub") != "workspaces"
        scope = f"{_REGISTRY}{found['workspace']}" if in_registry else found["scope"]
        return cls(scope, found["workspace"], in_registry, tail)

    @property
    def is_version(self) -> bool:
        """Whether it is one version of an asset."""
        return len(self.tail) == 4 and self.tail[2] == "versions"

    @property
    def collection(self) -> str:
        """What the store calls the assets of this kind: those of each registry are kept apart."""
        return f"registries/{self.workspace}/{self.tail[0]}" if self.in_registry else self.tail[0]

    @property
    def key(self) -> tuple[str, str, str]:
        """Of a version of an asset: where the store has it."""
        return self.collection, self.tail[1], self.tail[3]

    def __str__(self) -> str:
        return f"{self.tail[0]} {self.tail[1]}:{self.tail[3]}" if self.is_version else "/".join(self.tail)

    @property
    def where(self) -> str:
        return f"registry {self.workspace}" if self.in_registry else "this workspace"


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def envelope(resource_id: str, collection: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A resource as Azure Resource Manager shows it."""
    who = {"createdBy": "this machine", "createdByType": "User", "createdAt": now(), "lastModifiedAt": now()}
    return {
        "id": resource_id,
        "name": resource_id.rpartition("/")[2],
        "type": f"Microsoft.MachineLearningServices/{collection}",
        "properties": properties,
        "systemData": who,
        **more,
    }
