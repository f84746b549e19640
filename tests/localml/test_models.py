"""A model that was registered on this machine can be named in a job file as on Azure ML."""

import pytest

from localml import models
from localml.assets import Assets
from localml.errors import RunError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """MLflow's registry with three versions of one model; the second is the champion."""
    from mlflow import MlflowClient

    root = tmp_path_factory.mktemp("root")
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    client.create_registered_model("slm-demo")
    for number in (1, 2, 3):
        (root / f"model{number}").mkdir()
        (root / f"model{number}" / "config.json").write_text("{}")
        client.create_model_version("slm-demo", source=str(root / f"model{number}"))
    client.set_registered_model_alias("slm-demo", "champion", "2")
    client.set_registered_model_alias("slm-demo", "candidate", "3")
    return root / "mlflow.db"


@pytest.mark.parametrize(
    ("reference", "number"), [(":1", 1), (":3", 3), ("@latest", 3), ("@champion", 2), ("@candidate", 3)]
)
def test_version_label_and_alias(store, reference, number):
    assert models.folder_of(store, f"azureml:slm-demo{reference}") == store.parent / f"model{number}"


def test_what_is_not_registered_is_left_to_others(store, tmp_path):
    assert models.folder_of(store, "azureml:other:1") is None
    assert models.folder_of(tmp_path / "none.db", "azureml:slm-demo:1") is None
    assert models.folder_of(store, "azureml://datastores/x/paths/y") is None


@pytest.mark.parametrize("reference", [":4", "@staging"])
def test_another_version_is_an_error_that_names_those_there(store, reference):
    with pytest.raises(RunError, match=r"has 1, 2, 3, @latest, @\w+, @\w+ of slm-demo"):
        models.folder_of(store, f"azureml:slm-demo{reference}")


def test_a_source_that_is_a_uri_is_a_path_with_any_letter(tmp_path):
    folder = tmp_path / "my 日本語 #1 100%"
    assert models.folder_of_source(folder.as_uri()) == folder
    assert models.folder_of_source(str(folder)) == folder


def test_the_registry_file_comes_first(store, tmp_path):
    registry = tmp_path / "assets.yml"
    assets = Assets(tmp_path, registry, store.parent)
    assert assets.resolve("jobs.x.inputs.model", "slm-demo:1").name == "model1"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    registry.write_text("azureml:slm-demo:1: mine\n")
    assert Assets(tmp_path, registry, store.parent).resolve("jobs.x.inputs.model", "slm-demo:1").name == "mine"
