"""Models registered once and aliases moved: in MLflow's real registry, in Azure ML's by a recording client."""

import types
from concurrent.futures import ThreadPoolExecutor

import pytest

import model_registry
from model_registry import ModelVersion
from slmkit.errors import UserError

WORKSPACE = {
    "AZUREML_ARM_SUBSCRIPTION": "00000000-0000-0000-0000-000000000000",
    "AZUREML_ARM_RESOURCEGROUP": "group",
    "AZUREML_ARM_WORKSPACE_NAME": "workspace",
}


class RecordingModels:
    """The model operations of a workspace, as far as they are used: what is created is kept and can be listed."""

    def __init__(self):
        self.created = []

    def list(self, name):
        from azure.core.exceptions import ResourceNotFoundError

        if not self.created:
            raise ResourceNotFoundError("no such model")
        return iter(self.created)

    def get(self, name, version):
        return next(model for model in self.created if (model.name, model.version) == (name, version))

    def create_or_update(self, model):
        if model.version is None:
            self.created.append(model)
            model.version = str(len(self.created))
        return model

    def archive(self, name, version):
        self.created.remove(self.get(name, version))


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model").mkdir()

    def make(content, name="slm", **more):
        return ModelVersion(name, tmp_path / "model", "what it is", {"model_sha256": content}, **more)

    return make


@pytest.fixture(scope="module")
def mlflow_store(tmp_path_factory):
    """One store for all: to make the tables of one takes seconds."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"
    return uri, MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture
def mlflow_registry(mlflow_store, monkeypatch):
    import mlflow

    uri, client = mlflow_store
    for name in (*WORKSPACE, "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_registry_uri(uri)
    return client


@pytest.fixture
def workspace(monkeypatch):
    return in_workspace(monkeypatch)


def in_workspace(monkeypatch) -> RecordingModels:
    """What a job in a workspace sees."""
    for name, value in WORKSPACE.items():
        monkeypatch.setenv(name, value)
    models = RecordingModels()
    client = types.SimpleNamespace(models=models)
    monkeypatch.setattr(model_registry, "workspace_client", lambda registry_name=None: client)
    return models


def state(name):
    """The aliases of each version, by number."""
    registry = model_registry._connect(None)
    return {found.version: found.aliases for found in sorted(registry.versions(name), key=lambda v: int(v.version))}


@pytest.mark.parametrize("backend", ["mlflow_registry", "workspace"])
def test_from_candidate_to_champion(backend, model, request):
    request.getfixturevalue(backend)
    for content in "abc":
        done = model_registry.register(model(content, "life"))
        assert (done.version, done.is_new) == ({"a": "1", "b": "2", "c": "3"}[content], True)
    model_registry.set_alias("life", "1", "candidate")
    model_registry.set_alias("life", "1", "champion")
    assert state("life") == {"1": ("champion",), "2": (), "3": ()}
    model_registry.set_alias("life", "2", "candidate")
    model_registry.set_alias("life", "3", "candidate")
    assert state("life") == {"1": ("champion",), "2": (), "3": ("candidate",)}
    model_registry.set_alias("life", "3", "champion")
    model_registry.set_alias("life", "3", "champion")
    assert state("life") == {"1": (), "2": (), "3": ("champion",)}

    assert model_registry.find("life", alias="champion").version == "3"
    assert model_registry.find("life", alias="candidate") is None
    assert model_registry.find("life", version="2").tags["model_sha256"] == "b"
    assert model_registry.find("life").version == "3"
    again = model_registry.register(model("c", "life"))
    assert (again.version, again.is_new, again.aliases) == ("3", False, ("champion",))


def test_two_that_register_the_same_at_once_get_one_version(mlflow_registry, model):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(model_registry.register, [model("same", "race")] * 2)
    assert first.version == second.version
    (kept,) = mlflow_registry.search_model_versions("name = 'race'")
    assert str(kept.version) == first.version


def test_the_later_one_of_two_is_withdrawn(workspace, model, monkeypatch):
    """The other one's version appears between the first look and the upload."""
    create = workspace.create_or_update

    def create_after_another(wanted):
        monkeypatch.undo()
        create(type(wanted)(name="slm", path=wanted.path, properties={"model_sha256": "same"}))
        return create(wanted)

    client = types.SimpleNamespace(models=workspace)
    registry = model_registry.azure_registry.AzureRegistry(client)
    monkeypatch.setattr(workspace, "create_or_update", create_after_another)
    monkeypatch.setattr(model_registry, "_connect", lambda registry_name: registry)
    done = model_registry.register(model("same"))
    assert (done.version, done.is_new) == ("1", False)
    assert [found.version for found in workspace.created] == ["1"]


def test_a_tag_alone_does_not_make_it_the_same_model(workspace, model):
    """Who may change tags could else have another model taken for the one that was promoted."""
    first = model_registry.register(model("a"))
    workspace.created[0].properties = {}
    second = model_registry.register(model("a"))
    assert (first.version, second.version, second.is_new) == ("1", "2", True)


@pytest.mark.parametrize("num_taken", [1, 3])
def test_a_number_that_another_model_took_meanwhile(workspace, model, monkeypatch, num_taken):
    from azure.ai.ml.exceptions import AssetPathException

    create, refusals = workspace.create_or_update, iter(range(num_taken))

    def refuse_at_first(wanted):
        if next(refusals, None) is not None:
            raise AssetPathException("changed path", no_personal_data_message="changed path")
        return create(wanted)

    monkeypatch.setattr(workspace, "create_or_update", refuse_at_first)
    if num_taken < 3:
        assert model_registry.register(model("a")).version == "1"
    else:
        with pytest.raises(UserError, match="slm: others registered 3 versions at the same time"):
            model_registry.register(model("a"))


def test_what_azure_is_told(workspace, model):
    done = model_registry.register(model("a", model_type="mlflow_model"))
    assert done.uri == "azureml:slm:1"
    (created,) = workspace.created
    assert (created.type, created.properties) == ("mlflow_model", {"model_sha256": "a"})
    model_registry.register(model("b"))
    model_registry.set_alias("slm", "1", "champion")
    model_registry.set_alias("slm", "2", "champion")
    assert [(found.stage, found.tags["alias"]) for found in workspace.created] == [
        ("Archived", "archived"),
        ("Production", "champion"),
    ]
    assert workspace.created[1]._to_rest_object().properties.stage == "Production"  # azure-ai-ml sends it
    assert model_registry.register(model("a"), "shared").uri == "azureml://registries/shared/models/slm/versions/1"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model_registry.set_alias("slm", "1", "staging"), "alias 'staging' is not one of candidate, champion"),
        (lambda: model_registry.set_alias("slm", "7", "champion"), "slm version 7 is not registered; there: none"),
        (lambda: model_registry.find("x' or name != '"), "registered_model_name \"x' or name != '\""),
    ],
)
def test_what_is_refused(workspace, call, message):
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize(
    ("env", "credential"),
    [({"OBO_ENDPOINT": "http://localhost"}, "AzureMLOnBehalfOfCredential"), ({}, "DefaultAzureCredential")],
)
def test_the_workspace_is_that_of_the_job(monkeypatch, env, credential):
    """The real MLClient, which connects to nothing until it is asked for something."""
    for name, value in {**WORKSPACE, **env}.items():
        monkeypatch.setenv(name, value)
    client = model_registry.workspace_client()
    assert (client.subscription_id, client.resource_group_name) == (WORKSPACE["AZUREML_ARM_SUBSCRIPTION"], "group")
    assert client.workspace_name == "workspace"
    assert type(client._credential).__name__ == credential
