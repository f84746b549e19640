"""Online endpoints of the local workspace, by azure-ai-ml: made, asked, shared out, and gone, with servers that run."""

import importlib
import json
from types import SimpleNamespace

import psutil
import pytest
import yaml
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.monitor import MonitorManagementClient

from localml.endpoints import client as endpoint_host

SCORE = """import os
from pathlib import Path

def init():
    global word
    word = next(Path(os.environ["AZUREML_MODEL_DIR"]).rglob("word.txt")).read_text()

def run(data):
    return {"said": word, "as": os.environ["ROLE"]}
"""


@pytest.fixture(scope="module")
def client(workspace):
    from azure.ai.ml.constants._common import LROConfigurations

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LROConfigurations, "POLL_INTERVAL", 0.2)
        yield workspace.client()
    host = endpoint_host.find_host(workspace.root)
    servers = psutil.Process(host.pid).children(recursive=True) if host else []
    endpoint_host.stop_host(workspace.root, 30)
    assert not [server for server in servers if server.is_running()]


def endpoint(name: str, **more):
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    return ManagedOnlineEndpoint(name=name, auth_mode="key", **more)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    """Of a model that says a word, by a scoring script."""
    from azure.ai.ml.entities import (
        CodeConfiguration,
        Environment,
        ManagedOnlineDeployment,
        Model,
        OnlineRequestSettings,
        ProbeSettings,
    )

    folder = tmp_path_factory.mktemp("serving")
    (folder / "code").mkdir()

    def made(name: str, word: str, script: str = SCORE, failure_threshold: int = 90, **more):
        (folder / word).mkdir(exist_ok=True)
        (folder / word / "word.txt").write_text(word)
        (folder / "code" / "score.py").write_text(script)
        probe = ProbeSettings(initial_delay=1, period=1, timeout=2, failure_threshold=failure_threshold)
        given = {
            "model": Model(name=f"says-{word}", version="1", path=folder / word),
            "code_configuration": CodeConfiguration(code=str(folder / "code"), scoring_script="score.py"),
            "environment": Environment(name="serving", version="1", image="image"),
            "environment_variables": {"ROLE": name, "WORKER_COUNT": "1"},
            "instance_type": "Standard_DS3_v2",
            "instance_count": 1,
            "request_settings": OnlineRequestSettings(request_timeout_ms=20_000),
            "liveness_probe": probe,
            "readiness_probe": probe,
            "endpoint_name": "words",
        }
        return ManagedOnlineDeployment(name=name, **given | more)

    return made


@pytest.fixture(scope="module")
def release(load_main):
    """The modules with which deploy_endpoint asks Azure Monitor."""
    load_main("deploy_endpoint")
    names = ("azure_autoscale", "azure_metrics", "deployment_spec")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def test_a_deployment_answers_by_its_traffic_and_goes(client, deployment, release, tmp_path):
    client.online_endpoints.begin_create_or_update(endpoint("words", tags={"team": "slm"})).result()
    assert client.online_endpoints.get("words").tags == {"team": "slm"}
    with pytest.raises(HttpResponseError, match="no deployment 'blue'"):
        client.online_endpoints.begin_create_or_update(endpoint("words", traffic={"blue": 100})).result()

    made = client.online_deployments.begin_create_or_update(deployment("blue", "hello")).result()
    assert (made.provisioning_state, made.instance_count) == ("Succeeded", 1)
    found = client.online_endpoints.get("words")
    assert found.traffic == {"blue": 0}
    found.traffic = {"blue": 100}
    client.online_endpoints.begin_create_or_update(found).result()
    assert client.online_endpoints.get("words").traffic == {"blue": 100}

    request = tmp_path / "request.json"
    request.write_text("{}")
    for named in (None, "blue"):
        answer = client.online_endpoints.invoke("words", request_file=str(request), deployment_name=named)
        assert json.loads(answer) == {"said": "hello", "as": "blue"}
    monitor = MonitorManagementClient(
        client._credential, client.subscription_id, client._base_url, credential_scopes=[f"{client._base_url}/.default"]
    )
    counts = release.azure_metrics.EndpointMetrics(monitor, found.id).of_last(120)
    assert {name: (count.num_requests, count.num_failed) for name, count in counts.items()} == {"blue": (2, 0)}
    assert 0 < counts["blue"].p95_seconds < 20
    rules = yaml.safe_load((release.deployment_spec.SPECS / "transformers-cpu" / "autoscale.yml").read_text())
    release.azure_autoscale.put(monitor, client.resource_group_name, found, "blue", rules)
    release.azure_autoscale.delete(monitor, client.resource_group_name, "words", "blue")
    with pytest.raises(HttpResponseError, match="expected a deployment"):
        another = SimpleNamespace(id=f"{found.id}/slots", name="words", location="local")
        release.azure_autoscale.put(monitor, client.resource_group_name, another, "blue", rules)
    keys = client.online_endpoints.get_keys("words")
    assert keys.primary_key != keys.secondary_key
    client.online_endpoints.begin_regenerate_keys("words", key_type="primary").result()
    made = client.online_endpoints.get_keys("words")
    assert made.primary_key != keys.primary_key
    assert made.secondary_key == keys.secondary_key
    assert "score" in client.online_deployments.get_logs("blue", "words", 200)
    assert [each.name for each in client.online_deployments.list("words")] == ["blue"]

    with pytest.raises(HttpResponseError, match="has traffic"):
        client.online_deployments.begin_delete("blue", "words").result()
    client.online_endpoints.begin_delete("words").result()
    for look in (lambda: client.online_endpoints.get("words"), lambda: client.online_deployments.get("blue", "words")):
        with pytest.raises(ResourceNotFoundError):
            look()


def test_a_deployment_that_does_not_come_up_says_why(client, deployment):
    client.online_endpoints.begin_create_or_update(endpoint("broken")).result()
    broken = deployment("blue", "hello", SCORE.replace("global word", "raise OSError"), 2, endpoint_name="broken")
    with pytest.raises(HttpResponseError) as failed:
        client.online_deployments.begin_create_or_update(broken).result()
    assert failed.value.error.code == "ResourceNotReady"
    assert client.online_deployments.get("blue", "broken").provisioning_state == "Failed"
    assert "OSError" in client.online_deployments.get_logs("blue", "broken", 200)
    client.online_deployments.begin_delete("blue", "broken").result()
    client.online_endpoints.begin_delete("broken").result()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"instance_type": "Big_One"}, "instance type Big_One"),
        ({"instance_count": 0}, "instance_count"),
        ({"model": "azureml:absent:1"}, "absent"),
        ({"endpoint_name": "nowhere"}, "Endpoint nowhere was not found"),
    ],
)
def test_a_deployment_that_cannot_be_is_refused(client, deployment, changed, said):
    client.online_endpoints.begin_create_or_update(endpoint("refusing")).result()
    with pytest.raises(HttpResponseError, match=said):
        client.online_deployments.begin_create_or_update(
            deployment("blue", "hello", **{"endpoint_name": "refusing"} | changed)
        ).result()
    assert not list(client.online_deployments.list("refusing"))
