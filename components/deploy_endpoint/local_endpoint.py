"""The endpoint host of this machine as the target of a rollout, by its control API."""

import contextlib
import fcntl
import json
import math
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deployment_spec import DeploymentSpec
from rollout_target import Address, Counts, Endpoint, Health, Measured, RefusedError, Traffic

from slmkit.errors import UserError

HOST_VARIABLE = "LOCALML_ENDPOINTS"
CALL_TIMEOUT_SECONDS = 30.0
WHAT_TO_DO = {
    "PortInUse": "choose another local_port, or end what listens there",
    "NameTaken": "choose another endpoint_name",
}


class LocalEndpoint:
    kind, auth, poll_seconds = "local", "none", 1.0

    def __init__(self, name: str, spec: DeploymentSpec, port: int | None) -> None:
        import httpx

        host = read_host()
        self._name, self._spec, self._port, self._scoring_uri = name, spec, port, ""
        self.traffic_folder = str(Path(host["data_collector"], name)) if "data_collector" in host else None
        self._mine = contextlib.ExitStack()
        self._client = httpx.Client(
            base_url=host["url"],
            headers={"Authorization": f"Bearer {host['token']}"},
            timeout=CALL_TIMEOUT_SECONDS,
            trust_env=False,  # a proxy has no business between two processes of this machine
        )

    def open(self) -> Endpoint:
        self._claim()
        tags = {}
        with contextlib.suppress(NotFoundError):
            tags = self._call("GET", "")["tags"]
        found = self._call("PUT", "", {"port": self._port, "tags": tags})
        self._scoring_uri = found["scoring_uri"]
        deployments = {name: self._deployment(name)["tags"] for name in found["deployments"]}
        return Endpoint(
            found["scoring_uri"],
            Traffic(found["traffic"], found["mirror_traffic"]),
            deployments,
            Traffic.from_tags(found["tags"]),
        )

    def close(self) -> None:
        self._mine.close()

    def _claim(self) -> None:
        """A lock on a file beside that of the host, which the end of this process gives back, whatever the end is."""
        self.close()
        file = self._mine.enter_context(Path(os.environ[HOST_VARIABLE]).with_name(f"{self._name}.rollout").open("w"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(f"{self._name}: another rollout is under way; wait for its end, or stop it") from None

    def remember(self, traffic: Traffic | None) -> None:
        self._call("PUT", "", {"tags": traffic.as_tag() if traffic else {}})

    def set_traffic(self, traffic: Traffic) -> None:
        self._call("PUT", "/traffic", {"traffic": dict(traffic.live), "mirror_traffic": dict(traffic.mirror)})

    def deploy(self, name: str) -> None:
        self._call("PUT", f"/deployments/{name}", self._spec.local_body())
        if rules := self._spec.autoscale:
            self._call("PUT", f"/deployments/{name}/autoscale", rules)

    def health(self, name: str) -> Health:
        found = self._deployment(name)
        state, error = found["provisioning_state"], found.get("error") or {}
        restarts = sum(instance["restarts"] for instance in found["instances"])
        if state == "Failed":
            return Health("failed", error.get("message", "the deployment failed"), restarts)
        if state == "Creating":
            return Health("starting", "", restarts)
        if not any(instance["healthy"] for instance in found["instances"]):
            return Health("starting", "no instance is healthy", restarts)
        return Health("healthy", "", restarts)

    def metrics(self, seconds: float) -> dict[str, Measured]:
        found = self._call("GET", f"/metrics?seconds={seconds:.1f}")["deployments"]
        return {name: Measured(_counts(one), _counts(one["mirrored"])) for name, one in found.items()}

    def logs(self, name: str, num_lines: int) -> list[str]:
        return self._call("GET", f"/deployments/{name}/logs?lines={num_lines}")["lines"]

    def delete(self, name: str) -> None:
        with contextlib.suppress(NotFoundError):
            self._call("DELETE", f"/deployments/{name}")

    def address(self, name: str) -> Address:
        headers = {"azureml-model-deployment": name}
        return Address(self._scoring_uri, lambda: headers, self._spec.served_model_name, self._spec.adapters)

    def _deployment(self, name: str) -> dict[str, Any]:
        return self._call("GET", f"/deployments/{name}")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        import httpx

        try:
            answer = self._client.request(method, f"/onlineEndpoints/{quote(self._name, safe='')}{path}", json=body)
            content = answer.json() if answer.content else {}
        except (httpx.HTTPError, ValueError) as error:
            raise RefusedError(
                f"the endpoint host of this machine does not answer at {self._client.base_url}: "
                f"{error or type(error).__name__}; run the pipeline again by scripts/run.py, which starts it"
            ) from None
        if answer.is_success:
            return content
        said = content.get("error", {}) if isinstance(content, dict) else {}
        code, message = said.get("code", str(answer.status_code)), said.get("message", answer.reason_phrase)
        kind = NotFoundError if answer.status_code == 404 else RefusedError
        raise kind(f"{self._name}: {code}: {message}" + (f"; {WHAT_TO_DO[code]}" if code in WHAT_TO_DO else ""))


class NotFoundError(RefusedError):
    pass


def read_host() -> dict[str, Any]:
    path = os.environ.get(HOST_VARIABLE)
    if not path:
        raise UserError(
            f"target local needs the endpoint host of this machine, and {HOST_VARIABLE} does not name it: run the "
            "pipeline by scripts/run.py, which starts one, or set target to azure"
        )
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not the file of an endpoint host: {error}; run scripts/run.py again") from None


def _counts(found: dict[str, Any]) -> Counts:
    p95 = found["p95_milliseconds"]
    is_known = p95 is not None and math.isfinite(p95)  # nothing is more than NaN
    return Counts(found["num_requests"], found["num_failed"], p95 / 1000 if is_known else None)
