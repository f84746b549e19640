"""Resources of a workspace that have a name and no versions: made, changed, read, listed and deleted."""

import re
from typing import Any, ClassVar

from localml.workspace.arm import Place, envelope, invalid, not_found
from localml.workspace.resource_store import ResourceStore

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_KEPT = ("location", "tags", "identity", "sku", "kind")  # beside the properties


class NamedResources:
    """One kind of them; a kind with rules of its own overrides what differs."""

    kind: str
    created = 201  # the status that says so
    added: ClassVar[dict[str, Any]] = {}  # what Azure says of one that the client has not

    def __init__(self, store: ResourceStore) -> None:
        self._store = store

    def answer(self, method: str, place: Place, query: dict[str, str], body: Any) -> tuple[Any, int] | None:
        """A handler for the service: what it answers for ``kind[/name[/action]]``."""
        if place.in_registry:
            return None
        match method, place.tail[1:]:
            case "GET", ():
                found = [each for each in self._store.all(self.kind) if self.is_listed(each, query)]
                return {"value": [self.shown(each) for each in found]}, 200
            case "GET", (name,):
                return self.shown(self.get(name)), 200
            case "PUT", (name,):
                return self._put(place, name, body, self._store.get(self.kind, name))
            case "DELETE", (name,):
                self.check_deletion(self.get(name))
                self._store.delete(self.kind, name)
                return {}, 200
            case "POST", (name, action):
                return self.act(action.lower(), self.get(name))
        return None

    def get(self, name: str) -> dict[str, Any]:
        if (found := self._store.get(self.kind, name)) is None:
            raise not_found(f"{self.kind} {name}")
        return found

    def _put(self, place: Place, name: str, body: Any, known: dict[str, Any] | None) -> tuple[Any, int]:
        if not isinstance(body, dict) or not isinstance(body.get("properties"), dict):
            raise invalid(f"The request for {self.kind} {name} has no properties.")
        if not _NAME.fullmatch(name):
            raise invalid(f"{name!r} is no name for one of the {self.kind}: letters, digits, '_', '-' and '.'.")
        properties = self.added | body["properties"]
        self.check(name, properties, known and known["properties"])
        more = {key: body[key] for key in _KEPT if body.get(key) is not None}
        made = envelope(
            f"{place.scope}/{self.kind}/{name}", self.kind, properties | {"provisioningState": "Succeeded"}, **more
        )
        self._store.put(self.kind, name, "", made)
        return self.shown(made), 200 if known else self.created

    def check(self, name: str, properties: dict[str, Any], known: dict[str, Any] | None) -> None:
        """Raises ``ArmError`` for what Azure refuses; ``known`` are the properties of the one that is there."""

    def check_deletion(self, resource: dict[str, Any]) -> None:
        """Raises ``ArmError`` for one that stays."""

    def is_listed(self, resource: dict[str, Any], query: dict[str, str]) -> bool:
        return True

    def shown(self, resource: dict[str, Any]) -> dict[str, Any]:
        """As a client sees it: without secrets."""
        return resource

    def act(self, action: str, resource: dict[str, Any]) -> tuple[Any, int] | None:
        """The answer to a POST on one of them."""
        return None
