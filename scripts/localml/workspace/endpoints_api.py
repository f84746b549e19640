"""Online endpoints and their deployments, in Azure's form; what serves is the endpoint host of this machine."""

import hmac
import re
import secrets
import shutil
import threading
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from localml.endpoints import client as endpoint_host
from localml.errors import RunError
from localml.workspace.arm import ArmError, Place, envelope, invalid, not_found
from localml.workspace.blobs import Blobs
from localml.workspace.job_files import JobFiles
from localml.workspace.resource_store import ResourceStore

_ENDPOINTS, _DEPLOYMENTS, _KEYS = "onlineEndpoints", "onlineDeployments", "endpointKeys"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]")  # Azure's rule, and safe as the name of a folder
_INSTANCE_TYPE = re.compile(r"Standard_[A-Z]{1,3}\d+[A-Za-z0-9_-]*", re.IGNORECASE)
_AUTH_MODES = ("Key", "AMLToken", "AADToken")
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_PROBE = {"initialDelay": "initial_delay", "period": "period", "timeout": "timeout"}
_COUNTS = {"failureThreshold": "failure_threshold", "successThreshold": "success_threshold"}
_UNSCALED = {"scaleSettings": {"scaleType": "Default"}}
_KEY_LENGTH = 32


class OnlineEndpoints:
    """Names, tags and settings are kept in the store; traffic, state and logs are asked of the host."""

    def __init__(self, store: ResourceStore, blobs: Blobs, root: Path, secret: str) -> None:
        self._store, self._blobs, self._root, self._secret = store, blobs, root, secret
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)  # one change of an endpoint at a time

    def answer(self, method: str, place: Place, query: dict[str, str], body: Any) -> tuple[Any, int] | None:
        """A handler for the service: ``onlineEndpoints[/name[/action | /deployments[/name[/action]]]]``."""
        names = place.tail[1:]
        if place.in_registry:
            return None
        if not names:
            return {"value": [self._endpoint(each) for each in self._store.all(_ENDPOINTS)]}, 200
        if method in ("PUT", "PATCH", "DELETE"):
            if not all(_NAME.fullmatch(name) for name in names[0::2]):
                raise invalid(
                    f"{names[0::2][-1]!r}: 3 to 32 letters, digits and '-', a letter first, no '-' at the end."
                )
            with self._locks[names[0]]:
                return self._change(method, place, body)
        if len(names) == 1:
            return self._endpoint(self._known(names[0])), 200
        if names[1] == "deployments":
            return self._of_deployments(method, names, body)
        return self._act(names, body) if method == "POST" and len(names) == 2 else None

    def _change(self, method: str, place: Place, body: Any) -> tuple[Any, int] | None:
        names = place.tail[1:]
        if method != "DELETE" and not (isinstance(body, dict) and isinstance(body.get("properties", {}), dict)):
            raise invalid(f"The request for {'/'.join(names)} has no properties.")
        if len(names) == 1:
            return self._delete(names[0]) if method == "DELETE" else self._put(place, names[0], body)
        if len(names) != 3 or names[1] != "deployments":
            return None
        if method == "DELETE":
            self._known(names[0], names[2])
            self.host("DELETE", endpoint_host.path_of(names[0], names[2]))
            self._store.delete(_DEPLOYMENTS, names[0], names[2])
            shutil.rmtree(self._folder(names[0]) / names[2], ignore_errors=True)
            return {}, 200
        return self._put_deployment(place, names[0], names[2], body)

    # endpoints

    def _put(self, place: Place, name: str, body: dict[str, Any]) -> tuple[Any, int]:
        known = self._store.get(_ENDPOINTS, name)
        properties = (known["properties"] if known else {}) | body.get("properties", {})
        if properties.get("authMode") not in _AUTH_MODES:
            raise invalid(f"authMode {properties.get('authMode')!r} is none of {', '.join(_AUTH_MODES)}.")
        path = endpoint_host.path_of(name)
        if known is None:
            self.host("PUT", path, {})
        if known or properties.get("traffic"):
            shares = {
                "traffic": properties.get("traffic") or {},
                "mirror_traffic": properties.get("mirrorTraffic") or {},
            }
            self.host("PUT", f"{path}/traffic", shares)
        more = {key: body.get(key, (known or {}).get(key)) for key in ("location", "tags", "identity", "kind")}
        kept = {key: value for key, value in properties.items() if key not in ("traffic", "mirrorTraffic", "keys")}
        made = envelope(f"{place.scope}/{_ENDPOINTS}/{name}", _ENDPOINTS, kept, **more)
        self._store.put(_ENDPOINTS, name, "", made)
        return self._endpoint(made), 200 if known else 201

    def _endpoint(self, resource: dict[str, Any]) -> dict[str, Any]:
        found = self.host("GET", endpoint_host.path_of(resource["name"]))
        live = {
            "provisioningState": "Failed" if found["error"] else "Succeeded",
            "scoringUri": found["scoring_uri"],
            "traffic": found["traffic"],
            "mirrorTraffic": found["mirror_traffic"],
        }
        return resource | {"properties": resource["properties"] | live}

    def _delete(self, name: str) -> tuple[Any, int]:
        self._known(name)
        self.host("DELETE", endpoint_host.path_of(name))
        for deployment, _ in self._store.versions(_DEPLOYMENTS, name):
            self._store.delete(_DEPLOYMENTS, name, deployment)
        self._store.delete(_ENDPOINTS, name)
        self._store.delete(_KEYS, name)
        shutil.rmtree(self._folder(name), ignore_errors=True)
        return {}, 200

    def _act(self, names: tuple[str, ...], body: Any) -> tuple[Any, int] | None:
        """What signs requests in; the host lets in whoever is on this machine."""
        mode = self._known(names[0])["properties"]["authMode"]
        if names[1] == "listKeys" and mode == "Key":
            return {"primaryKey": self._key(names[0], "primary"), "secondaryKey": self._key(names[0], "secondary")}, 200
        if names[1] == "token" and mode == "AMLToken":
            return {"accessToken": self._key(names[0], "token"), "tokenType": "Bearer"}, 200
        if names[1] == "regenerateKeys" and mode == "Key":
            which = str((body or {}).get("keyType")).lower()
            if which not in ("primary", "secondary"):
                raise invalid(f"keyType {(body or {}).get('keyType')!r} is neither Primary nor Secondary.")
            made = self._store.get(_KEYS, names[0]) or {}
            self._store.put(_KEYS, names[0], "", made | {which: secrets.token_hex(_KEY_LENGTH // 2)})
            return {}, 200
        if names[1] in ("listKeys", "regenerateKeys", "token"):
            raise invalid(
                f"Endpoint {names[0]} has authMode {mode}, and so no {'token' if names[1] == 'token' else 'keys'}."
            )
        return None

    def _key(self, name: str, which: str) -> str:
        if which in (made := self._store.get(_KEYS, name) or {}):
            return made[which]
        return hmac.new(self._secret.encode(), f"{which} of {name}".encode(), "sha256").hexdigest()[:_KEY_LENGTH]

    # deployments

    def _of_deployments(self, method: str, names: tuple[str, ...], body: Any) -> tuple[Any, int] | None:
        endpoint = self._known(names[0])["name"]
        if len(names) == 2:
            return {
                "value": [self._deployment(endpoint, each) for _, each in self._store.versions(_DEPLOYMENTS, endpoint)]
            }, 200
        resource = self._known(endpoint, names[2])
        if len(names) == 3:
            return self._deployment(endpoint, resource), 200
        if method == "POST" and names[3] == "getLogs":
            lines = max(1, int((body or {}).get("tail") or 100))
            found = self.host("GET", f"{endpoint_host.path_of(endpoint, names[2])}/logs?lines={lines}")
            return {"content": "\n".join(found["lines"])}, 200
        return None

    def _put_deployment(self, place: Place, endpoint: str, name: str, body: dict[str, Any]) -> tuple[Any, int]:
        self._known(endpoint)
        known = self._store.get(_DEPLOYMENTS, endpoint, name)
        properties = (known["properties"] if known else _UNSCALED) | body.get("properties", {})
        sku = body.get("sku") or (known or {}).get("sku") or {"name": "Default", "capacity": 1}
        if not _INSTANCE_TYPE.fullmatch(str(properties.get("instanceType"))):
            raise invalid(f"The instance type {properties.get('instanceType')} of {name} does not exist.")
        tags = body.get("tags") or (known or {}).get("tags") or {}
        folder = self._folder(endpoint) / name
        self.host("PUT", endpoint_host.path_of(endpoint, name), self._served(folder, properties, sku, tags))
        more = {"location": "local", "tags": tags, "sku": sku, "kind": body.get("kind")}
        made = envelope(f"{place.scope}/{'/'.join(place.tail)}", f"{_ENDPOINTS}/deployments", properties, **more)
        self._store.put(_DEPLOYMENTS, endpoint, name, made)
        return self._deployment(endpoint, made), 200 if known else 201

    def _deployment(self, endpoint: str, resource: dict[str, Any]) -> dict[str, Any]:
        """With its state; a failed one says why, where the client's poller looks for that."""
        found = self.host("GET", endpoint_host.path_of(endpoint, resource["name"]))
        shown = resource | {
            "properties": resource["properties"] | {"provisioningState": found["provisioning_state"]},
            "sku": resource["sku"] | {"capacity": found["instance_count"]},
        }
        if found["provisioning_state"] == "Failed":
            shown["error"] = {
                "code": "ResourceNotReady",
                "message": (found["error"] or {}).get("message", "It failed."),
            }
        return shown

    def _served(self, folder: Path, properties: dict[str, Any], sku: dict[str, Any], tags: dict[str, str]) -> Any:
        """The deployment in the form of the host, its model and code brought from the blobs."""
        files = JobFiles(self._store, self._blobs, folder, self._root)
        model, code = properties.get("model"), properties.get("codeConfiguration")
        if not model:
            raise invalid("A deployment without a model is not served here.")
        try:
            server: dict[str, Any] = {"kind": "transformers_serve"}  # what a container with its own server is
            if code:
                snapshot = files.snapshot(code["codeId"])
                server = {"kind": "inference_server", "code": str(snapshot), "scoring_script": code["scoringScript"]}
            local_model = files.local_data(model)
        except RunError as error:
            raise invalid(str(error)) from None
        served = {
            "server": server,
            "model": str(local_model),
            "instance_count": sku.get("capacity", 1),
            "tags": tags,
            "environment_variables": properties.get("environmentVariables") or {},
        }
        if given := properties.get("requestSettings"):
            served["request_settings"] = {
                "request_timeout_ms": round(1000 * _seconds(given.get("requestTimeout", "PT5S"))),
                "max_concurrent_requests_per_instance": given.get("maxConcurrentRequestsPerInstance") or 1,
            }
        for theirs, ours in (("livenessProbe", "liveness_probe"), ("readinessProbe", "readiness_probe")):
            if given := properties.get(theirs):
                served[ours] = {name: _seconds(given[key]) for key, name in _PROBE.items() if given.get(key)}
                served[ours] |= {name: given[key] for key, name in _COUNTS.items() if given.get(key)}
        if given := properties.get("dataCollector"):
            collections = {
                name: {"enabled": "true" if str(each.get("dataCollectionMode")).lower() == "enabled" else "false"}
                for name, each in given.get("collections", {}).items()
            }
            rates = [each.get("samplingRate") for each in given.get("collections", {}).values()]
            rate = next((rate for rate in rates if rate is not None), 1.0)
            rolling = given.get("rollingRate") or "Hour"
            served["data_collector"] = {"collections": collections, "sampling_rate": rate, "rolling_rate": rolling}
        return served

    # the host

    def _known(self, endpoint: str, deployment: str = "") -> dict[str, Any]:
        kind = _DEPLOYMENTS if deployment else _ENDPOINTS
        if (found := self._store.get(kind, endpoint, deployment)) is None:
            raise not_found(f"Deployment {deployment} of {endpoint}" if deployment else f"Endpoint {endpoint}")
        return found

    def _folder(self, endpoint: str) -> Path:
        return self._root / "workspace" / "endpoints" / endpoint

    def host(self, method: str, path: str, body: Any = None) -> Any:
        """A call to the host of this root, which is started where none runs; its refusals are Azure's in form."""
        try:
            return endpoint_host.running_host(self._root).call(method, path, body)
        except endpoint_host.CallError as error:
            code = "UserError" if error.status == 400 else error.code
            raise ArmError(error.status, code, str(error)) from None
        except (RunError, OSError) as error:
            raise ArmError(503, "ServiceUnavailable", f"The host of the online endpoints failed: {error}") from None


def _seconds(duration: str) -> float:
    """Of an ISO 8601 duration, such as PT1M30S."""
    found = _DURATION.fullmatch(str(duration))
    if not found or not any(found.groups()):
        raise invalid(f"{duration!r} is no duration such as PT30S.")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
