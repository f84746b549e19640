"""Resources of a workspace that have a name and no versions: made, changed, read, listed and deleted."""

import re
from typing import Any

from localml.workspace.arm import Place, envelope, invalid, not_found
from localml.workspace.resource_store import ResourceStore

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_KEPT = ("location", "tags", "identity", "sku", "kind")  # beside the properties


class NamedResources:
    """One kind of them; a kind with rules of its own overrides what differs."""

    kind: str

    def __init__(self, store: ResourceStore) -> None:
        self._store = store

    def answer(self, method: str, place: Place, query: dict[str, str], body: Any) -> tuple[Any, int] | None:
        """A handler for the service: what it answers for ``kind[/name[/action]]``."""
        names = place.tail[1:]
        if place.in_registry or len(names) > 2 or (len(names) == 2 and method != "POST"):
            return None
        if not names:
            return {
                "value": [self.shown(each) for each in self._store.all(self.kind) if self.is_listed(each, query)]
            }, 200
        if len(names) == 2:
            return self.act(names[1].lower(), self.get(names[0]))
        if method in ("PUT", "PATCH"):
            return self._put(place, names[0], body, self._store.get(self.kind, names[0]))
        if method == "DELETE":
            self.get(names[0])
            self._store.delete(self.kind, names[0])
            return {}, 200
        return self.shown(self.get(names[0])), 200

    def get(self, name: str) -> dict[str, Any]:
        if (found := self._store.get(self.kind, name)) is None:
            raise not_found(f"{self.kind} {name}")
        return found

    def _put(self, place: Place, name: str, body: Any, known: dict[str, Any] | None) -> tuple[Any, int]:
        if not isinstance(body, dict) or not isinstance(body.get("properties"), dict):
            raise invalid(f"The request for {self.kind} {name} has no properties.")
        if not _NAME.fullmatch(name):
            raise invalid(f"{name!r} is no name for one of the {self.kind}: letters, digits, '_', '-' and '.'.")
        properties = body["properties"]
        self.check(name, properties, known and known["properties"])
        more = {key: body[key] for key in _KEPT if body.get(key) is not None}
        made = envelope(
            f"{place.scope}/{self.kind}/{name}", self.kind, properties | {"provisioningState": "Succeeded"}, **more
        )
        self._store.put(self.kind, name, "", made)
        return self.shown(made), 200 if known else 201

    def check(self, name: str, properties: dict[str, Any], known: dict[str, Any] | None) -> None:
        """Raises ``ArmError`` for what Azure refuses; ``known`` are the properties of the one that is there."""

    def is_listed(self, resource: dict[str, Any], query: dict[str, str]) -> bool:
        return True

    def shown(self, resource: dict[str, Any]) -> dict[str, Any]:
        """As a client sees it: without secrets."""
        return resource

    def act(self, action: str, resource: dict[str, Any]) -> tuple[Any, int] | None:
        """The answer to a POST on one of them."""
        return None
