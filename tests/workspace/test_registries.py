"""Registries of the local workspace, by azure-ai-ml's client of a registry: assets apart from those of others."""

import pytest
from azure.ai.ml import load_component
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from localml.workspace import settings
from localml.workspace.blobs import Blobs

SPEC = """name: says_hello
version: 0.1.0
type: command
command: echo hello
environment: azureml://registries/{registry}/environments/{environment}/versions/1
"""


@pytest.fixture(scope="module")
def client(workspace):
    return workspace.client(registry_name="apart")


@pytest.fixture
def component(tmp_path):
    def made(registry: str, environment: str):
        (tmp_path / "component.yml").write_text(SPEC.format(registry=registry, environment=environment))
        return load_component(tmp_path / "component.yml")

    return made


def test_an_asset_is_in_its_registry_alone(workspace, client, component):
    from azure.ai.ml.entities import Environment

    client.environments.create_or_update(Environment(name="slm-data", version="1", image="image"))
    made = client.components.create_or_update(component("apart", "slm-data"))
    assert made.id == "azureml://registries/apart/components/says_hello/versions/0.1.0"
    assert [each.name for each in client.components.list()] == ["says_hello"]
    assert [each.version for each in client.components.list("says_hello")] == ["0.1.0"]
    for other in (workspace.client(registry_name="another"), workspace.client()):
        with pytest.raises(ResourceNotFoundError):
            other.components.get("says_hello", "0.1.0")


def test_a_model_is_uploaded_with_its_files(workspace, client, tmp_path):
    from azure.ai.ml.entities import Model

    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "word.txt").write_text("hello")
    client.models.create_or_update(Model(name="slm", version="3", path=tmp_path / "weights", tags={"stage": "dev"}))
    found = client.models.get("slm", "3")
    assert found.id == "azureml://registries/apart/models/slm/versions/3"
    assert found.tags == {"stage": "dev"}
    known = settings.read(workspace.root)
    blobs = Blobs(known.blob_port, known.blob_key, settings.ca_bundle(workspace.root))
    container, _, path = found.path.removeprefix(f"{blobs.url}/").partition("/")
    assert (blobs.download(container, path, tmp_path / "back") / "word.txt").read_text() == "hello"


def test_what_is_not_in_the_registry_is_refused(client, component):
    with pytest.raises(HttpResponseError, match="environments absent:1, which is not in registry apart"):
        client.components.create_or_update(component("apart", "absent"))


def test_a_registry_that_cannot_be_is_not_found(workspace):
    for name in ("no", "no.such"):
        with pytest.raises(ResourceNotFoundError, match=f"Registry {name} was not found"):
            workspace.client(registry_name=name)
