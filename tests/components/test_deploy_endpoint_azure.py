"""Deployment to Azure: the real clients over a transport that answers as the management API does."""

import importlib
import json
import logging
import re
import threading
import time
import types

import pytest
from azure.core.polling import LROPoller, PollingMethod

from model_registry import azure_service
from tests.components.azure_rest import WORKSPACE, AzureRest, Credential

ENDPOINT = f"{WORKSPACE}/onlineEndpoints/shop"
OLD = {"model_sha256": "b" * 64, "deployment_sha256": "c" * 64}


@pytest.fixture(scope="module")
def modules(load_main):
    load_main("deploy_endpoint")
    names = ("rollout", "rollout_rules", "rollout_target", "azure_endpoint", "azure_errors", "deployment_spec")
    return types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture
def rest(monkeypatch):
    from azure.ai.ml.constants._common import LROConfigurations
    from azure.ai.ml.operations import _online_deployment_operations

    # The code folder would go to a storage account, which is not part of this API.
    monkeypatch.setattr(_online_deployment_operations, "upload_dependencies", lambda *_: None)
    monkeypatch.setattr(LROConfigurations, "POLL_INTERVAL", 0)
    return AzureRest()


@pytest.fixture
def make(modules, rest, tmp_path):
    def build(spec_name="onnx-cpu", public=False, autoscale=True, collects=False):
        from azure.ai.ml import MLClient
        from azure.mgmt.monitor import MonitorManagementClient

        kept = (tmp_path, "azureml:shop:3", "a" * 64, 2, autoscale, collects)
        spec = modules.deployment_spec.DeploymentSpec(spec_name, *kept)
        return modules.azure_endpoint.AzureEndpoint(
            "shop",
            spec,
            public=public,
            client=MLClient(Credential(), "s", "g", "w", transport=rest.transport),
            monitor=MonitorManagementClient(Credential(), "s", transport=rest.transport),
            credential=Credential(),
        )

    return build


class Clock:
    """Minutes that pass in milliseconds."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        time.sleep(0.002)


@pytest.fixture
def roll_out(modules):
    def run(target):
        limits = modules.rollout_rules.Limits(0.01, 1.0, None, 20)
        rollout = modules.rollout.Rollout(
            target,
            modules.rollout.Plan((10, 100), 10, 60.0, 1e6, True, limits),
            target._spec.identity(),
            smoke_test=lambda address: (True, "", None),
            probe=lambda address, num, timeout: [],
            clock=Clock(),
            say=lambda line: None,
        )
        try:
            rollout.run()
        finally:
            run.record = rollout.record

    return run


@pytest.fixture
def serving_blue(rest):
    """The endpoint as an earlier rollout left it."""
    rest.resources[ENDPOINT] = {
        "id": ENDPOINT,
        "name": "shop",
        "location": "westeurope",
        "tags": {"made_by": "deploy_endpoint", "team": "search"},
        "properties": {
            "authMode": "AADToken",
            "traffic": {"blue": 100},
            "mirrorTraffic": {},
            "properties": {},
            "scoringUri": "https://shop.westeurope.inference.ml.azure.com/score",
            "publicNetworkAccess": "Disabled",
        },
    }
    rest.resources[f"{ENDPOINT}/deployments/blue"] = {
        "id": f"{ENDPOINT}/deployments/blue",
        "name": "blue",
        "tags": OLD,
        "sku": {"capacity": 1},
        "properties": {
            "endpointComputeType": "Managed",
            "provisioningState": "Succeeded",
            "properties": {},
            "scaleSettings": {"scaleType": "Default"},
        },
    }


def puts(rest, path):
    return [body for method, called, body, _ in rest.calls if method == "PUT" and called == path]


def labeled(deployment, status="200", *values, model="200"):
    return {"deployment": deployment, "statusCode": status, "modelStatusCode": model}, list(values)


@pytest.mark.parametrize(("public", "access"), [(False, "disabled"), (True, "enabled")])
def test_a_first_deployment(make, rest, roll_out, public, access):
    roll_out(make(public=public))
    made, with_traffic = puts(rest, ENDPOINT)
    assert made["properties"]["authMode"] == "AADToken"
    assert made["properties"]["publicNetworkAccess"] == access
    assert made["tags"] == {"made_by": "deploy_endpoint"}
    assert (made["properties"]["traffic"], with_traffic["properties"]["traffic"]) == ({}, {"blue": 100})
    (deployment,) = puts(rest, f"{ENDPOINT}/deployments/blue")
    assert deployment["sku"] == {"name": "Default", "capacity": 2}
    assert deployment["tags"]["model_sha256"] == "a" * 64
    settings = deployment["properties"]
    assert settings["model"].endswith("shop:3")
    assert settings["environmentId"].endswith("slm-serve:0.1.0")
    assert settings["codeConfiguration"]["scoringScript"] == "score.py"
    assert settings["endpointComputeType"] == "Managed"
    assert settings["appInsightsEnabled"] is False
    assert settings["requestSettings"]["requestTimeout"] == "PT3M"
    assert "dataCollector" not in settings
    # In the words of Microsoft.Insights/autoscalesettings.
    ((path, autoscale),) = [(path, body) for _, path, body, _ in rest.calls if "autoscalesettings" in path]
    assert path.endswith("/autoscale-shop-blue")
    assert autoscale["properties"]["targetResourceUri"] == f"{ENDPOINT}/deployments/blue"
    assert autoscale["properties"]["enabled"] is True
    (profile,) = autoscale["properties"]["profiles"]
    assert profile["capacity"] == {"minimum": "1", "maximum": "4", "default": "1"}
    assert profile["rules"][0]["metricTrigger"]["metricResourceUri"] == f"{ENDPOINT}/deployments/blue"
    assert profile["rules"][0]["metricTrigger"]["timeWindow"] == "PT5M"
    assert profile["rules"][1]["scaleAction"]["direction"] == "Decrease"


def test_requests_and_responses_are_collected_where_it_is_asked_for(make, rest, roll_out):
    """Asked for or not, it is another deployment: one that does not collect is never taken for one that does."""
    target = make(collects=True)
    roll_out(target)
    (deployment,) = puts(rest, f"{ENDPOINT}/deployments/blue")
    for name in ("request", "response"):
        collection = deployment["properties"]["dataCollector"]["collections"][name]
        assert (collection["dataCollectionMode"], collection["samplingRate"]) == ("enabled", 1.0)
        (asset,) = puts(rest, collection["dataId"])
        assert asset["properties"]["dataUri"] == f"{target.traffic_folder}/blue/{name}"
    assert deployment["properties"]["appInsightsEnabled"] is False
    assert deployment["tags"]["collects_traffic"] == "true"
    assert target.traffic_folder == "azureml://datastores/workspaceblobstore/paths/modelDataCollector/shop"
    assert make()._spec.identity() != target._spec.identity() == make(collects=True)._spec.identity()
    roll_out(make(collects=True))
    assert len(puts(rest, f"{ENDPOINT}/deployments/blue")) == 1


def test_blue_to_green(make, rest, roll_out, serving_blue):
    rest.metrics["RequestsPerMinute"] = [labeled("blue", "200", 900.0), labeled("green", "200", 100.0)]
    roll_out(make(autoscale=False))
    shifts = [(body["properties"]["traffic"], body["properties"]["mirrorTraffic"]) for body in puts(rest, ENDPOINT)]
    assert shifts == [
        ({"blue": 100}, {}),  # remembers where to go back to
        ({"blue": 100}, {"green": 10}),
        ({"blue": 90, "green": 10}, {}),
        ({"green": 100}, {}),
        ({"green": 100}, {}),  # forgets it
    ]
    tags = [body["tags"].get("traffic_before_rollout") for body in puts(rest, ENDPOINT)]
    assert [json.loads(tag) if tag else None for tag in tags] == [*[[{"blue": 100}, {}]] * 4, None]
    assert puts(rest, ENDPOINT)[-1]["tags"]["team"] == "search"
    assert not any("autoscalesettings" in path for _, path, _, _ in rest.calls)


@pytest.mark.parametrize(("status", "model"), [("500", ""), ("408", ""), ("424", "500"), ("424", "")])
def test_errors_in_azure_monitor_bring_the_traffic_back(make, rest, roll_out, serving_blue, status, model):
    """Azure answers 424 whatever error the model answered with, and 408 where it took too long."""
    rest.metrics["RequestsPerMinute"] = [
        labeled("blue", "200", 900.0),
        labeled("green", "200", 50.0, 40.0),
        labeled("green", status, 4.0, 6.0, model=model),
    ]
    rest.metrics["RequestLatency_P95"] = [({"Deployment": "green"}, [100.0, 300.0])]
    with pytest.raises(Exception, match=r"green at mirror: 10 of 100 requests failed, surely") as failed:
        roll_out(make())
    assert failed.value.exit_code == 6
    assert roll_out.record.steps[-1].green.p95_seconds == pytest.approx(0.2)
    assert rest.resources[ENDPOINT]["properties"]["traffic"] == {"blue": 100}
    assert rest.resources[ENDPOINT]["properties"]["mirrorTraffic"] == {}
    assert roll_out.record.logs == ["first", "last line of the container"]
    (query,) = {query for _, path, _, query in rest.calls if "RequestsPerMinute" in query and path.endswith("metrics")}
    assert "$filter=deployment eq '*' and statusCode eq '*' and modelStatusCode eq '*'" in query.replace("+", " ")
    assert "aggregation=Average" in query and "interval=PT1M" in query


def test_what_the_client_did_wrong_is_no_error_of_the_deployment(make, rest, roll_out, serving_blue):
    rest.metrics["RequestsPerMinute"] = [
        labeled("green", "200", 50.0),
        labeled("green", "429", 20.0, model=""),
        labeled("green", "424", 30.0, model="400"),
    ]
    roll_out(make())
    assert rest.resources[ENDPOINT]["properties"]["traffic"] == {"green": 100}


QUOTA = {
    "code": "BadRequest",
    "message": "The request is invalid.",
    "details": [
        {
            "code": "OutOfQuota",
            "message": "Not enough quota available for Standard_NC24ads_A100_v4 in SubscriptionId s.",
        }
    ],
}
SKU = {
    "code": "BadArgument",
    "message": "The requested VM size Standard_F4s_v2 is not available in the current region.",
}
TAKEN = {"code": "NameUnavailable", "message": "There already exists an endpoint with this name: shop."}
FORBIDDEN = {
    "code": "AuthorizationFailed",
    "message": "The client 'x' with object id 'x' does not have authorization to perform action 'write'.",
}


@pytest.mark.parametrize(
    ("status", "error", "what", "said"),
    [
        (400, QUOTA, "/deployments/green", "OutOfQuota: Not enough quota available for Standard_NC24ads_A100_v4"),
        (400, QUOTA, "/deployments/green", "ask for quota"),
        (400, SKU, "/deployments/green", "not available in the current region.; choose an instance_type"),
        (403, FORBIDDEN, "/deployments/green", "AuthorizationFailed: The client"),
        (403, FORBIDDEN, "/deployments/green", "role AzureML Data Scientist"),
        (403, FORBIDDEN, "/autoscale-shop-green", "Monitoring Contributor"),
    ],
)
def test_what_the_service_refuses_is_one_line_and_no_traffic_moves(
    make, rest, roll_out, serving_blue, caplog, status, error, what, said
):
    caplog.set_level(logging.DEBUG)
    rest.refuse = lambda method, path, body: (status, error) if method == "PUT" and path.endswith(what) else None
    with pytest.raises(Exception, match=re.escape(said)) as failed:
        roll_out(make())
    assert failed.value.exit_code == 8
    assert len(str(failed.value).splitlines()) == 1
    assert rest.resources[ENDPOINT]["properties"]["traffic"] == {"blue": 100}
    assert puts(rest, ENDPOINT) == []
    assert Credential.token not in caplog.text + str(failed.value)


def test_a_name_that_is_taken(make, rest, roll_out, serving_blue):
    del rest.resources[ENDPOINT]["tags"]["made_by"]
    with pytest.raises(Exception, match=r"NameTaken: the endpoint shop is there") as failed:
        roll_out(make())
    assert (failed.value.exit_code, puts(rest, ENDPOINT)) == (8, [])
    rest.resources.pop(ENDPOINT)
    rest.refuse = lambda method, path, body: (409, TAKEN) if method == "PUT" else None
    with pytest.raises(
        Exception, match=r"NameUnavailable: There already exists .*; choose another endpoint_name"
    ) as failed:
        roll_out(make())
    assert failed.value.exit_code == 8


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        ({"code": "ResourceNotReady", "message": "User container has crashed or terminated."}, 5),
        ({"code": "BadArgument", "message": "Liveness probe failed."}, 5),
        (QUOTA, 8),
    ],
)
def test_what_fails_minutes_later(make, rest, roll_out, serving_blue, error, exit_code):
    rest.fails_later = error
    with pytest.raises(Exception, match=re.escape((error.get("details") or [error])[0]["message"])) as failed:
        roll_out(make())
    assert failed.value.exit_code == exit_code
    assert roll_out.record.logs == ["first", "last line of the container"]
    assert rest.resources[ENDPOINT]["properties"]["traffic"] == {"blue": 100}


def test_a_refusal_on_the_way_brings_the_traffic_back(make, rest, roll_out, serving_blue):
    rest.metrics["RequestsPerMinute"] = [labeled("green", "200", 100.0)]

    def not_all(method, path, body):
        wanted = method == "PUT" and path == ENDPOINT and body["properties"]["traffic"]
        return (403, FORBIDDEN) if wanted == {"green": 100} else None

    rest.refuse = not_all
    with pytest.raises(Exception, match="AuthorizationFailed") as failed:
        roll_out(make())
    assert failed.value.exit_code == 8
    assert rest.resources[ENDPOINT]["properties"]["traffic"] == {"blue": 100}


def job(name, status):
    settings = {"jobType": "Command", "command": "x", "environmentId": "e", "status": status, "properties": {}}
    return {"id": f"{WORKSPACE}/jobs/{name}", "name": name, "type": "t", "properties": {"services": {}, **settings}}


@pytest.mark.parametrize(
    ("status", "is_free"), [("Running", False), ("Failed", True), ("NotResponding", True), (None, True)]
)
def test_one_rollout_at_a_time(make, rest, roll_out, serving_blue, monkeypatch, status, is_free):
    """The endpoint says which job has it, and the job whether it still runs."""
    monkeypatch.setenv("AZUREML_RUN_ID", "mine")
    rest.resources[ENDPOINT]["tags"]["rollout_job"] = "other"
    if status:
        rest.resources[f"{WORKSPACE}/jobs/other"] = job("other", status)
    if is_free:
        roll_out(make())
        assert rest.resources[ENDPOINT]["tags"]["rollout_job"] == "mine"
        assert rest.resources[ENDPOINT]["properties"]["traffic"] == {"green": 100}
    else:
        with pytest.raises(Exception, match="another rollout is under way, in job other") as failed:
            roll_out(make())
        assert (failed.value.exit_code, puts(rest, ENDPOINT)) == (8, [])


def test_of_two_at_the_same_moment_one_goes_on(make, rest, roll_out, serving_blue, monkeypatch):
    monkeypatch.setenv("AZUREML_RUN_ID", "mine")
    answer = rest._answer

    def another_one_later(method, path, body, query):
        if method == "PUT" and path == ENDPOINT:
            body["tags"]["rollout_job"] = "other"
        return answer(method, path, body, query)

    monkeypatch.setattr(rest, "_answer", another_one_later)
    with pytest.raises(Exception, match="another rollout is under way, in job other"):
        roll_out(make())
    assert not any("/deployments/" in path for method, path, _, _ in rest.calls if method == "PUT")


@pytest.mark.parametrize("mark", [None, "ended"])
def test_a_mark_that_came_after_the_look_is_not_overwritten(make, rest, serving_blue, modules, monkeypatch, mark):
    """The second rollout looks at the endpoint, the first one takes it, and then the second wants to."""
    rest.resources |= {f"{WORKSPACE}/jobs/{name}": job(name, "Running") for name in ("first", "second")}
    rest.resources[f"{WORKSPACE}/jobs/ended"] = job("ended", "Failed")
    if mark:
        rest.resources[ENDPOINT]["tags"]["rollout_job"] = mark
    monkeypatch.setenv("AZUREML_RUN_ID", "first")
    first = make()
    monkeypatch.setenv("AZUREML_RUN_ID", "second")
    second = make()
    look = second._endpoints.get
    looks = []

    def overtaken(name):
        found = look(name)
        looks.append(name)
        if len(looks) == 1:
            first.open()
        return found

    monkeypatch.setattr(second._endpoints, "get", overtaken)
    with pytest.raises(modules.rollout_target.RefusedError, match="another rollout is under way, in job first"):
        second.open()
    assert rest.resources[ENDPOINT]["tags"]["rollout_job"] == "first"
    first.set_traffic(modules.rollout_target.Traffic({"blue": 100}))


def test_a_rollout_that_lost_the_endpoint_changes_nothing(make, rest, serving_blue, modules, monkeypatch):
    """Not even back: the traffic is the other rollout's now."""
    monkeypatch.setenv("AZUREML_RUN_ID", "mine")
    target, traffic = make(), modules.rollout_target.Traffic({"blue": 100})
    target.open()
    rest.resources[ENDPOINT]["tags"]["rollout_job"] = "other"
    rest.calls.clear()
    changes = [
        lambda: target.set_traffic(traffic),
        lambda: target.remember(traffic),
        lambda: target.remember(None),
        lambda: target.deploy("green"),
        lambda: target.delete("blue"),
    ]
    for change in changes:
        with pytest.raises(modules.rollout_target.RefusedError, match="under way, in job other") as refused:
            change()
        assert "\n" not in str(refused.value)
    assert {method for method, _, _, _ in rest.calls} == {"GET"}


def test_each_change_puts_the_mark_again(make, rest, serving_blue, modules, monkeypatch):
    """Another one's write without a mark may have undone it: without any, two would go on side by side."""
    monkeypatch.setenv("AZUREML_RUN_ID", "mine")
    target = make()
    target.open()
    del rest.resources[ENDPOINT]["tags"]["rollout_job"]
    target.set_traffic(modules.rollout_target.Traffic({"blue": 100}))
    assert rest.resources[ENDPOINT]["tags"]["rollout_job"] == "mine"
    assert rest.resources[ENDPOINT]["tags"]["team"] == "search"


class Endless(PollingMethod):
    """An operation of which Azure never says that it is over."""

    def initialize(self, client, initial_response, deserialization_callback):
        self.ended = threading.Event()

    def run(self):
        self.ended.wait(20)

    def status(self):
        return "InProgress"

    def finished(self):
        return False

    def resource(self):
        raise AssertionError("there is none yet")


def test_what_does_not_end_is_not_waited_for_forever(make, rest, serving_blue, modules, monkeypatch):
    monkeypatch.setattr(modules.azure_endpoint, "CHANGE_SECONDS", 0.05, raising=False)
    target, operations = make(), []
    target.open()

    def endless(*_):
        operations.append(Endless())
        return LROPoller(None, None, None, operations[-1])

    monkeypatch.setattr(target._endpoints, "begin_create_or_update", endless)
    monkeypatch.setattr(target._deployments, "begin_delete", endless)
    began = time.monotonic()
    for what, change in [
        ("a change of it", lambda: target.remember(None)),
        ("the deletion of blue", lambda: target.delete("blue")),
        ("its creation", lambda: [rest.resources.pop(ENDPOINT), target.open()]),
    ]:
        with pytest.raises(modules.rollout_target.RefusedError, match=f"^shop: {what} is not over after 0.05 s"):
            change()
        operations[-1].ended.set()
    assert time.monotonic() - began < 10


def test_where_and_as_whom_a_deployment_is_asked(make, rest, serving_blue):
    for spec_name, path in (("transformers-cpu", "/score"), ("vllm-gpu", "/v1/chat/completions")):
        target = make(spec_name)
        assert target.open().scoring_uri == f"https://shop.westeurope.inference.ml.azure.com{path}"
        headers = target.address("green").headers()
        assert headers == {"Authorization": f"Bearer {Credential.token}", "azureml-model-deployment": "green"}


def test_a_deletion_takes_the_autoscale_setting_along(make, rest, serving_blue):
    target = make()
    target.open()
    target.delete("blue")
    deleted = [path for method, path, _, _ in rest.calls if method == "DELETE"]
    assert deleted[0] == f"{ENDPOINT}/deployments/blue"
    assert deleted[1].endswith("/autoscale-shop-blue")


def test_outside_a_job_of_a_workspace(modules, monkeypatch):
    for name in ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Exception, match="AZUREML_ARM_SUBSCRIPTION is not set; set target to local"):
        modules.azure_endpoint.connect("shop", None, public=False)


def test_no_token_in_an_error():
    text = azure_service.one_line("GET https://h/x?sig=abcdefghij%3D&a=1 with Bearer eyJhbGciOi.x.y failed")
    assert text == "GET https://h/x?sig=***&a=1 with Bearer *** failed"
