"""A managed online endpoint of an Azure ML workspace as the target of a rollout."""

import contextlib
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import azure_autoscale
import azure_errors
from azure_metrics import EndpointMetrics
from deployment_spec import DATA_COLLECTOR, SPECS, DeploymentSpec
from rollout_target import BEFORE_TAG, Address, Endpoint, Health, HeldError, Measured, RefusedError, Traffic

from model_registry.azure_service import ENDED

MADE_BY = {"made_by": "deploy_endpoint"}
HOLDER_TAG = "rollout_job"  # on the endpoint: the job whose rollout has it
DATASTORE = "azureml://datastores/workspaceblobstore/paths/modelDataCollector"  # where Azure ML puts it
CHANGE_SECONDS = 1200.0  # after which a change of the endpoint, or a deletion, is not waited for any longer
TOKEN_SCOPE = "https://ml.azure.com/.default"  # noqa: S105 (the name of a scope)


class AzureEndpoint:
    kind, auth, poll_seconds = "azure", "aad_token", 30.0

    def __init__(
        self,
        name: str,
        spec: DeploymentSpec,
        *,
        public: bool,
        client: Any,
        monitor: Any,
        credential: Any,
    ) -> None:
        self._name, self._spec, self._public = name, spec, public
        self.traffic_folder = f"{DATASTORE}/{name}"
        self._endpoints, self._deployments = client.online_endpoints, client.online_deployments
        self._jobs, self._job = client.jobs, os.environ.get("AZUREML_RUN_ID")
        self._resource_group = client.resource_group_name
        self._monitor, self._credential = monitor, credential
        self._pollers: dict[str, Any] = {}
        self._found: Any = None

    def open(self) -> Endpoint:
        from azure.core.exceptions import ResourceNotFoundError

        with azure_errors.refusals():
            try:
                found = self._endpoints.get(self._name)
            except ResourceNotFoundError:
                self._wait(self._endpoints.begin_create_or_update(self._new_endpoint()), "its creation")
                found = self._endpoints.get(self._name)
        if not MADE_BY.items() <= (found.tags or {}).items():
            raise RefusedError(
                f"NameTaken: the endpoint {self._name} is there and deploy_endpoint did not make it; choose another "
                "endpoint_name, or give it the tag made_by=deploy_endpoint to have it taken over"
            )
        self._found = found = self._claimed(found)
        with azure_errors.refusals():
            deployments = {one.name: dict(one.tags or {}) for one in self._deployments.list(self._name)}
        return Endpoint(
            self._scoring_uri(),
            Traffic(found.traffic or {}, found.mirror_traffic or {}),
            deployments,
            Traffic.from_tags(found.tags),
        )

    def close(self) -> None:
        """What tells that it is over is the state of the job."""

    def _claimed(self, found: Any) -> Any:
        """The endpoint with the mark of this job, where there is none of a job that still runs.

        Azure takes a change whatever came in between, so of two that read at the same moment both may write. The later
        mark stays, and the rollout that lost its own is refused at its next change.
        """
        holder = found.tags.get(HOLDER_TAG)
        if self._job is None or holder == self._job:
            return found
        if holder and self._is_running(holder):
            raise self._is_held_by(holder)
        self._update(lambda endpoint: None, ended_holder=holder)
        return self._get_unless_lost()

    def _is_running(self, job: str) -> bool:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            with azure_errors.refusals():
                return self._jobs.get(job).status not in ENDED
        except ResourceNotFoundError:
            return False

    def remember(self, traffic: Traffic | None) -> None:
        def change(endpoint: Any) -> None:
            kept = {key: value for key, value in (endpoint.tags or {}).items() if key != BEFORE_TAG}
            endpoint.tags = kept | (traffic.as_tag() if traffic else {})

        self._update(change)

    def set_traffic(self, traffic: Traffic) -> None:
        def change(endpoint: Any) -> None:
            endpoint.traffic, endpoint.mirror_traffic = dict(traffic.live), dict(traffic.mirror)

        self._update(change)

    def _update(self, change: Callable[[Any], None], ended_holder: str | None = None) -> None:
        """Change the endpoint, with the mark of this job: whose mark this write undoes is refused from then on."""
        endpoint = self._get_unless_lost(ended_holder)
        with azure_errors.refusals():
            change(endpoint)
            if self._job is not None:
                endpoint.tags = (endpoint.tags or {}) | {HOLDER_TAG: self._job}
            self._wait(self._endpoints.begin_create_or_update(endpoint), "a change of it")

    def _get_unless_lost(self, ended_holder: str | None = None) -> Any:
        """The endpoint as it is now, unless another rollout than that of ``ended_holder`` has put its mark there."""
        with azure_errors.refusals():
            endpoint = self._endpoints.get(self._name)
        holder = (endpoint.tags or {}).get(HOLDER_TAG)
        if self._job is not None and holder not in (None, self._job, ended_holder):
            raise self._is_held_by(holder)
        return endpoint

    def _is_held_by(self, job: str) -> HeldError:
        return HeldError(f"{self._name}: another rollout is under way, in job {job}; wait for its end, or cancel it")

    def _wait(self, poller: Any, what: str) -> None:
        poller.wait(CHANGE_SECONDS)  # which says nothing when the time is over
        if not poller.done():
            raise RefusedError(
                f"{self._name}: {what} is not over after {CHANGE_SECONDS:g} s and goes on in Azure; see the endpoint "
                "in the studio, and start again when it is"
            )

    def deploy(self, name: str) -> None:
        from azure.ai.ml import load_online_deployment

        rules = self._spec.autoscale  # which may not fit: before anything is made
        self._get_unless_lost()
        deployment = load_online_deployment(
            self._spec.folder / "deployment.yml",
            params_override=[
                {"name": name},
                {"endpoint_name": self._name},
                {"model": self._spec.model_uri},
                {"instance_count": self._spec.instance_count},
                {"tags": self._spec.tags()},
                *([{"data_collector": DATA_COLLECTOR}] if self._spec.collects_traffic else []),
            ],
        )
        with azure_errors.refusals():
            self._pollers[name] = self._deployments.begin_create_or_update(deployment)
        self._rules = rules

    def health(self, name: str) -> Health:
        from azure.core.exceptions import AzureError

        if poller := self._pollers.get(name):
            if not poller.done():
                return Health("starting")
            del self._pollers[name]
            try:
                poller.result()
            except AzureError as error:
                if not azure_errors.is_unhealthy(error):
                    raise RefusedError(azure_errors.explained(error)) from None
                return Health("failed", azure_errors.explained(error))
            if self._rules:  # of a deployment that is there
                with azure_errors.refusals():
                    azure_autoscale.put(self._monitor, self._resource_group, self._found, name, self._rules)
        with azure_errors.refusals():
            state = self._deployments.get(name, self._name).provisioning_state
        known = {"Succeeded": "healthy", "Updating": "healthy", "Scaling": "healthy", "Creating": "starting"}
        return Health(known.get(state, "failed"), f"its provisioning state is {state}")

    def metrics(self, seconds: float) -> dict[str, Measured]:
        """Of copied requests the service counts the answers as it does the others."""
        with azure_errors.refusals():
            counts = EndpointMetrics(self._monitor, self._found.id).of_last(seconds)
        return {name: Measured(live=found, mirrored=found) for name, found in counts.items()}

    def logs(self, name: str, num_lines: int) -> list[str]:
        with azure_errors.refusals():
            return self._deployments.get_logs(name, self._name, num_lines).splitlines()[-num_lines:]

    def delete(self, name: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        self._get_unless_lost()
        with azure_errors.refusals():
            with contextlib.suppress(ResourceNotFoundError):
                self._wait(self._deployments.begin_delete(name, self._name), f"the deletion of {name}")
            azure_autoscale.delete(self._monitor, self._resource_group, self._name, name)

    def address(self, name: str) -> Address:
        def headers() -> dict[str, str]:
            with azure_errors.refusals():
                token = self._credential.get_token(TOKEN_SCOPE).token  # which the credential caches and renews
            return {"Authorization": f"Bearer {token}", "azureml-model-deployment": name}

        return Address(self._scoring_uri(), headers, self._spec.served_model_name, self._spec.adapters)

    def _scoring_uri(self) -> str:
        return urlunsplit((*urlsplit(self._found.scoring_uri)[:2], self._spec.scoring_path, "", ""))

    def _new_endpoint(self) -> Any:
        from azure.ai.ml import load_online_endpoint

        return load_online_endpoint(
            SPECS / "endpoint.yml",
            params_override=[
                {"name": self._name},
                {"tags": MADE_BY},
                {"public_network_access": "enabled" if self._public else "disabled"},
            ],
        )


def connect(name: str, spec: DeploymentSpec, *, public: bool) -> AzureEndpoint:
    """The endpoint in the workspace that the job runs in."""
    from azure.mgmt.monitor import MonitorManagementClient

    import model_registry
    from slmkit.errors import UserError

    if missing := [key for key in model_registry.WORKSPACE_VARIABLES if not os.environ.get(key)]:
        raise UserError(f"target azure runs as a job of a workspace, and {missing[0]} is not set; set target to local")
    client = model_registry.workspace_client()
    credential, cloud = client._credential, client._base_url  # azure-ai-ml keeps them; Monitor is in the same cloud
    scopes = [f"{cloud}/.default"]
    monitor = MonitorManagementClient(credential, client.subscription_id, cloud, credential_scopes=scopes)
    return AzureEndpoint(name, spec, public=public, client=client, monitor=monitor, credential=credential)
