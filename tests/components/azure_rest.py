"""Azure's management API as far as a deployment meets it: a transport under the real clients that keeps what is PUT."""

import io
import json
import re
import time
from types import SimpleNamespace

import requests
from azure.core.pipeline.transport import RequestsTransport

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
PROPERTIES = {"mlFlowTrackingUri": "azureml://westeurope.api.azureml.ms/mlflow/v1.0" + WORKSPACE}


class Credential:
    """A token that must never show up in a log."""

    token = "eyJ0.c2VjcmV0.c2ln"

    def get_token(self, *scopes, **kwargs):
        return SimpleNamespace(token=self.token, expires_on=int(time.time()) + 3600)


class AzureRest(requests.adapters.BaseAdapter):
    """``resources`` by path; ``refuse(method, path, body)`` may give (status, error) instead of the answer."""

    def __init__(self):
        super().__init__()
        self.resources = {WORKSPACE: {"id": WORKSPACE, "name": "w", "location": "westeurope", "properties": PROPERTIES}}
        self.calls, self.metrics, self.refuse = [], {}, lambda method, path, body: None
        self.fails_later = None  # the error that the creation of a deployment ends with
        session = requests.Session()
        session.mount("https://", self)
        self.transport = RequestsTransport(session=session, session_owner=False)

    def send(self, request, **kwargs):
        path, _, query = requests.utils.unquote(request.url).partition("?")
        path = re.sub(r"^https://[^/]+/?", "/", path)
        raw = request.body.read() if hasattr(request.body, "read") else request.body
        body = json.loads(raw) if raw else None
        self.calls.append((request.method, path, body, query))
        status, content = self._answer(request.method, path, body, query)
        response = requests.Response()
        response.status_code, response.reason = status, "reason"
        response.raw, response.request, response.url = io.BytesIO(json.dumps(content).encode()), request, request.url
        response.headers["Content-Type"] = "application/json"
        if self.fails_later and request.method == "PUT" and "/deployments/" in path:
            response.status_code = 201
            operation = "https://management.azure.com/operation"
            response.headers.update({"Azure-AsyncOperation": operation, "Retry-After": "0"})
        return response

    def _answer(self, method, path, body, query):
        if refused := self.refuse(method, path, body):
            status, error = refused
            return status, {"error": error}
        if path == "/operation":
            return 200, {"status": "Failed", "error": self.fails_later}
        if path.endswith("/metrics"):
            return 200, self._metrics(query)
        if path.endswith("/getLogs"):
            return 200, {"content": "first\nlast line of the container"}
        if method == "PUT":
            if "onlineEndpoints/" in path and "/deployments/" in path:  # as the service does
                body["properties"].setdefault("scaleSettings", {"scaleType": "Default"})
            kept = {"id": path, "name": path.rpartition("/")[2], "type": "t", **body}
            kept["properties"] = {**body["properties"], "provisioningState": "Succeeded"}
            if "onlineEndpoints/" in path and "/deployments/" not in path:
                kept["properties"]["scoringUri"] = "https://shop.westeurope.inference.ml.azure.com/score"
            self.resources[path] = kept
            return 200, kept
        if method == "DELETE":
            return (
                (200, {}) if self.resources.pop(path, None) else (404, {"error": {"code": "NotFound", "message": ""}})
            )
        if path.endswith("/deployments"):
            return 200, {"value": [one for key, one in self.resources.items() if key.startswith(f"{path}/")]}
        if path in self.resources:
            return 200, self.resources[path]
        return 404, {"error": {"code": "ResourceNotFound", "message": f"no {path}"}}

    def _metrics(self, query):
        name = re.search(r"metricnames=(\w+)", query)[1]
        series = [
            {
                "metadatavalues": [{"name": {"value": key}, "value": value} for key, value in labels.items()],
                "data": [{"timeStamp": "2026-01-01T00:00:00Z", "average": value} for value in values],
            }
            for labels, values in self.metrics.get(name, [])
        ]
        found = {"id": "m", "type": "t", "name": {"value": name}, "unit": "Count", "timeseries": series}
        return {"timespan": "t", "value": [found]}
