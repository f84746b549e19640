"""What Azure Monitor tells of online endpoints, their requests, and how it scales their deployments."""

import contextlib
import re
from datetime import datetime
from typing import Any

from localml.endpoints import client as endpoint_host
from localml.workspace.arm import ArmError, Place, invalid, not_found, now
from localml.workspace.endpoints_api import OnlineEndpoints
from localml.workspace.resource_store import ResourceStore

_METRICS = re.compile(r"/+(?P<resource>subscriptions/.+)/providers/microsoft\.insights/metrics", re.IGNORECASE)
_SETTING = re.compile(
    r"(?P<id>/subscriptions/[^/]+/resourcegroups/[^/]+/providers/microsoft\.insights/autoscalesettings/(?P<name>[\w.-]+))",
    re.IGNORECASE,
)


class Insights:
    def __init__(self, store: ResourceStore, endpoints: OnlineEndpoints) -> None:
        self._store, self._endpoints = store, endpoints

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[Any, int] | None:
        """None where the path is not one of Azure Monitor."""
        if found := _METRICS.fullmatch(path):
            return self._metrics(f"/{found['resource']}", query), 200
        if not (found := _SETTING.fullmatch(path)):
            return None
        name = found["name"].lower()
        known = self._store.get("autoscale", name)
        if method == "PUT":
            return self._put(found["id"], name, body), 200 if known else 201
        if known is None:
            raise not_found(f"Autoscale setting {found['name']}")
        if method == "DELETE":
            with contextlib.suppress(ArmError):  # where the deployment is gone
                self._scale(known["properties"] | {"enabled": False})
            self._store.delete("autoscale", name)
            return {}, 200
        return known, 200

    def _metrics(self, resource: str, query: dict[str, str]) -> dict[str, Any]:
        """One point for the whole span; the host counts copied requests apart, Azure Monitor with the others."""
        place, metric = Place.of(resource), query.get("metricnames", "")
        if place is None or len(place.tail) != 2 or place.tail[0] != "onlineEndpoints":
            raise invalid(f"{resource} has no metrics here; only online endpoints have.")
        try:
            since, until = map(datetime.fromisoformat, query["timespan"].split("/"))
        except (KeyError, ValueError):
            raise invalid("timespan: expected START/END.") from None
        seconds = max(1.0, (until - since).total_seconds())
        path = f"{endpoint_host.path_of(place.tail[1])}/metrics?seconds={seconds}"
        series = []
        for deployment, counted in self._endpoints.host("GET", path)["deployments"].items():
            kinds = (counted, counted["mirrored"])
            if metric == "RequestsPerMinute":
                failed = sum(each["num_failed"] for each in kinds)
                answered = sum(each["num_requests"] for each in kinds) - failed
                for status, number in (("200", answered), ("500", failed)):
                    labels = {"deployment": deployment, "statusCode": status, "modelStatusCode": status}
                    series += [_series(labels, number)] if number else []
            elif metric == "RequestLatency_P95":
                found = [each["p95_milliseconds"] for each in kinds if each["p95_milliseconds"] is not None]
                series += [_series({"deployment": deployment}, max(found))] if found else []
            else:
                raise invalid(f"The metric {metric!r} is none of RequestsPerMinute and RequestLatency_P95.")
        name = {"value": metric, "localizedValue": metric}
        kind = {"id": f"{resource}/metrics/{metric}", "type": "Microsoft.Insights/metrics", "unit": "Count"}
        return {"cost": 0, "timespan": query["timespan"], "value": [{**kind, "name": name, "timeseries": series}]}

    def _put(self, setting_id: str, name: str, body: Any) -> Any:
        self._scale((body or {}).get("properties") or {})
        made = {**body, "id": setting_id, "name": name, "type": "Microsoft.Insights/autoscaleSettings"}
        self._store.put("autoscale", name, "", made)
        return made

    def _scale(self, properties: dict[str, Any]) -> None:
        place = Place.of(str(properties.get("targetResourceUri")))
        if place is None or len(place.tail) != 4 or place.tail[2] != "deployments":
            raise invalid("targetResourceUri: expected a deployment of an online endpoint.")
        path = f"{endpoint_host.path_of(place.tail[1], place.tail[3])}/autoscale"
        try:
            self._endpoints.host("PUT", path, _rules(properties))
        except (AttributeError, KeyError, TypeError) as error:
            raise ArmError(400, "BadRequest", f"profiles: not those of an autoscale setting: {error}") from None


def _rules(properties: dict[str, Any]) -> dict[str, Any]:
    """In the words of the host, which are those of autoscale.yml."""
    profiles = [
        {
            "name": profile["name"],
            "capacity": profile["capacity"],
            "rules": [{_snake(part): _plain(given) for part, given in rule.items()} for rule in profile["rules"]],
        }
        for profile in properties["profiles"]
    ]
    return {"profiles": profiles, "enabled": properties.get("enabled", True)}


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    return {_snake(key): value for key, value in given.items()}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _series(labels: dict[str, str], value: float) -> dict[str, Any]:
    described = [
        {"name": {"value": label.lower(), "localizedValue": label}, "value": labels[label]} for label in labels
    ]
    return {"metadatavalues": described, "data": [{"timeStamp": now(), "average": value}]}
