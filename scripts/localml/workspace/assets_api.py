"""Assets of a local workspace and of registries: codes, environments, components, data, models and their versions."""

import hashlib
import re
from typing import Any

from localml.workspace.arm import ArmError, Place, envelope, invalid, not_found
from localml.workspace.blobs import Blobs
from localml.workspace.resource_store import ResourceStore

KINDS = ("codes", "environments", "components", "data", "models")
# What may change once a version is there; everything else is for a new version.
_CHANGEABLE = ("description", "tags", "properties", "isArchived", "stage")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")  # Azure's rule, and safe as the name of a file
# What Azure says of an asset that the client does not send.
_ADDED = {"models": {"flavors": {}}}


class Assets:
    def __init__(self, store: ResourceStore, blobs: Blobs) -> None:
        self._store, self._blobs = store, blobs

    def answer(self, method: str, place: Place, query: dict[str, str], body: Any) -> Any:
        """What the service answers for ``kind[/name[/versions[/version[/action]]]]``."""
        kind, name, _, version, action = (*place.tail, *[""] * 5)[:5]
        if action.lower() in ("startpendingupload", "createorgetstartpendingupload"):
            return self.pending_upload(place)
        if not name:
            return {"value": [self._container(place, kind, each) for each in self._store.names(place.collection)]}
        if len(place.tail) == 2:
            return self._container(place, kind, name)
        if not version:
            return {"value": self._versions(place, kind, name, query)}
        key = place.key
        if method == "PUT":
            return self._put(place, kind, key, body)
        if method == "DELETE":
            if not self._store.delete(*key):
                raise not_found(f"{kind} {name}:{version}")
            return {}
        found = self._store.get(*key)
        if found is None:
            raise not_found(f"{kind} {name}:{version}")
        return found

    def _put(self, place: Place, kind: str, key: tuple[str, str, str], body: Any) -> Any:
        properties = (body or {}).get("properties")
        if not isinstance(properties, dict):
            raise invalid(f"The request for {kind} {key[1]} has no properties.")
        if not all(_NAME.fullmatch(part) for part in key[1:]):
            raise invalid(
                f"{key[1]}:{key[2]} is no name and version for one of the {kind}: letters, digits, _, - and ."
            )
        properties = _ADDED.get(kind, {}) | properties
        self._check_references(place, properties)
        made = envelope(f"{place.scope}/{'/'.join(place.tail)}", kind, properties | {"provisioningState": "Succeeded"})
        if self._store.add(*key, made):
            return made
        known = self._store.get(*key)
        changed = sorted(
            name
            for name in properties.keys() | known["properties"].keys()
            if name not in (*_CHANGEABLE, "provisioningState", "isAnonymous")
            and properties.get(name) != known["properties"].get(name)
        )
        if changed:
            raise ArmError(
                400,
                "ImmutableProperty",
                f"{kind} {key[1]}:{key[2]} exists already and cannot be changed ({', '.join(changed)}); "
                "register it with another version.",
            )
        known["properties"] |= {name: properties[name] for name in _CHANGEABLE if name in properties}
        self._store.put(*key, known)
        return known

    def _check_references(self, place: Place, properties: dict[str, Any]) -> None:
        """A component names code and an environment that are there; what other registries have is not known here."""
        spec = properties.get("componentSpec") or {} if place.tail[0] == "components" else {}
        for reference in (spec.get("code"), spec.get("environment")):
            named = Place.of(str(reference))
            if named and named.scope == place.scope and named.is_version and self._store.get(*named.key) is None:
                raise invalid(f"The component names {named}, which is not in {place.where}.")

    def _versions(self, place: Place, kind: str, name: str, query: dict[str, str]) -> list[Any]:
        """The newest first; of codes those with the hash that the client asks for, by a name that it has made up."""
        kind = place.collection
        if wanted := query.get("hash"):
            found = self._store.all(kind)
            hashes = [(body["properties"].get("properties") or {}).get("hash_sha256") for body in found]
            found = [body for body, sha256 in zip(found, hashes, strict=True) if sha256 == wanted]
        else:
            found = [body for _, body in self._store.versions(kind, name)]
        found = [body for body in found if not body["properties"].get("isArchived")]
        top = query.get("$top") or query.get("top")
        return found[: int(top)] if top else found

    def _container(self, place: Place, kind: str, name: str) -> Any:
        versions = self._store.versions(place.collection, name)
        if not versions:
            raise not_found(f"{kind} {name}")
        numbers = [int(version) for version, _ in versions if version.isdecimal()]
        properties = {
            "latestVersion": versions[0][0],
            "nextVersion": str(max(numbers, default=0) + 1),
            "isArchived": False,
        }
        return envelope(f"{place.scope}/{kind}/{name}", kind, properties)

    def pending_upload(self, place: Place) -> Any:
        """Where the client may put the files of an asset that it is about to register."""
        _, name, _, version = place.tail[:4]
        asset = f"{place.collection}/{name}/{version}"
        container = hashlib.sha256(asset.encode()).hexdigest()[:32]
        self._blobs.create_container(container)
        uri = f"{self._blobs.url}/{container}"
        return {
            "pendingUploadId": container,
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": {
                "blobUri": uri,
                "storageAccountArmId": "/local",
                "credential": {"credentialType": "SAS", "sasUri": f"{uri}?{self._blobs.sas()}"},
            },
        }
