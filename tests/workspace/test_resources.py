"""Computes, datastores and connections of the local workspace, by azure-ai-ml and the files of provision/."""

from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

ROOT = Path(__file__).resolve().parent.parent.parent
PROVISION = ROOT / "scripts" / "provision"


@pytest.fixture(scope="module")
def client(workspace):
    return workspace.client()


def cluster(**changed):
    from azure.ai.ml.entities import AmlCompute

    return AmlCompute(**{"name": "few", "size": "Standard_D2s_v5", "min_instances": 0, "max_instances": 2} | changed)


def test_a_cluster_is_made_from_the_file_of_provision_scaled_and_deleted(client):
    from azure.ai.ml import load_compute

    made = load_compute(PROVISION / "compute" / "cpu-cluster.yml", params_override=[{"name": "made-here"}])
    client.compute.begin_create_or_update(made).result()
    found = client.compute.get("made-here")
    assert (found.size, found.tier, found.min_instances, found.max_instances) == (
        "Standard_D8s_v5",
        "low_priority",
        0,
        8,
    )
    assert found.idle_time_before_scale_down == 600
    found.max_instances = 3
    client.compute.begin_update(found).result()
    assert client.compute.get("made-here").max_instances == 3
    assert "made-here" in {each.name for each in client.compute.list()}
    client.compute.begin_delete("made-here").wait()
    with pytest.raises(ResourceNotFoundError):
        client.compute.get("made-here")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"size": "Standart_D2"}, "VM size Standart_D2"),
        ({"min_instances": 3}, "minNodeCount 3 and maxNodeCount 2"),
        ({"max_instances": -1}, "maxNodeCount -1"),
        ({"tier": "spot"}, "vmPriority 'Spot'"),
        ({"name": "few_nodes"}, "few_nodes"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(client, changed, said):
    with pytest.raises(HttpResponseError, match=said) as refused:
        client.compute.begin_create_or_update(cluster(**changed)).result()
    assert refused.value.status_code == 400
    assert refused.value.error.code == "UserError"


def test_the_vms_of_a_cluster_do_not_change(client):
    client.compute.begin_create_or_update(cluster(name="fixed")).result()
    with pytest.raises(HttpResponseError, match="has VMs of size Standard_D2s_v5") as refused:
        client.compute.begin_create_or_update(cluster(name="fixed", size="Standard_D4s_v5")).result()
    assert refused.value.error.code == "ImmutableProperty"


def test_datastores_without_credentials_hold_no_secret(client):
    from azure.ai.ml import load_datastore

    for file in ("raw-data.yml", "data-lake.yml"):
        client.datastores.create_or_update(load_datastore(PROVISION / "datastores" / file))
    found = client.datastores.get("raw_data", include_secrets=False)
    assert (found.account_name, found.container_name) == ("slmdata", "raw-data")
    assert client.datastores.get("data_lake").filesystem == "data-lake"
    names = {each.name for each in client.datastores.list()}
    assert {"raw_data", "data_lake", "workspaceblobstore", "workspaceartifactstore"} <= names
    client.datastores.delete("raw_data")
    with pytest.raises(ResourceNotFoundError):
        client.datastores.get("raw_data")


def test_a_secret_of_a_datastore_is_told_only_to_who_asks_for_it(client):
    from azure.ai.ml.entities import AccountKeyConfiguration, AzureBlobDatastore

    key = "bm90IGEga2V5"
    given = {"account_name": "slmdata", "container_name": "raw-data"}
    client.datastores.create_or_update(
        AzureBlobDatastore(name="with_key", credentials=AccountKeyConfiguration(account_key=key), **given)
    )
    assert key not in str(client.datastores.get("with_key")._to_dict())
    assert key not in str([each._to_dict() for each in client.datastores.list()])
    assert client.datastores.get("with_key", include_secrets=True).credentials.account_key == key


def test_the_datastores_of_the_workspace_stay(client):
    from azure.ai.ml.entities import AzureBlobDatastore

    mine = AzureBlobDatastore(name="workspaceblobstore", account_name="slmdata", container_name="raw-data")
    with pytest.raises(HttpResponseError, match="belongs to the workspace"):
        client.datastores.create_or_update(mine)
    with pytest.raises(HttpResponseError, match="belongs to the workspace"):
        client.datastores.delete("workspaceblobstore")


def test_connections_of_provision_sign_in_by_entra_id(client):
    from azure.ai.ml import load_connection

    for file in sorted((PROVISION / "connections").glob("*.yml")):
        client.connections.create_or_update(load_connection(file))
    found = {each.name: each for each in client.connections.list()}
    assert found["azure-openai"].azure_endpoint == "https://slm-openai.openai.azure.com/"
    assert found["ai-search"].endpoint == "https://slm-search.search.windows.net/"
    assert all(found[name].credentials.type == "aad" for name in ("azure-openai", "ai-search"))
    client.connections.delete("ai-search")
    with pytest.raises(ResourceNotFoundError):
        client.connections.get("ai-search")


def test_the_key_of_a_connection_is_told_only_to_who_asks_for_it(client):
    from azure.ai.ml.entities import ApiKeyConfiguration, WorkspaceConnection

    key = "not-a-real-key"
    made = WorkspaceConnection(
        name="with-key", type="serp", target="https://example.org", credentials=ApiKeyConfiguration(key=key)
    )
    client.connections.create_or_update(made)
    assert key not in str(client.connections.get("with-key")._to_dict())
    assert client.connections.get("with-key", populate_secrets=True).credentials.key == key
