"""register_model: only what was promoted, once, with its lineage; in MLflow and, by a recording client, in Azure ML."""

import importlib
import json
import types

import pytest

from slmkit import lineage

WORKSPACE = {
    "AZUREML_ARM_SUBSCRIPTION": "00000000-0000-0000-0000-000000000000",
    "AZUREML_ARM_RESOURCEGROUP": "group",
    "AZUREML_ARM_WORKSPACE_NAME": "workspace",
}


@pytest.fixture
def inputs(tmp_path):
    """A model with lineage, a comparison and the decision to promote."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "qwen3", "hidden_size": 96, "num_hidden_layers": 2}')
    (model / "model.safetensors").write_bytes(b"weights" * 1000)
    base_model = {"component": "import_model", "version": "0.1.0", "inputs": {}, "parameters": {"model_name": "tiny"}}
    made = {
        "component": "finetune_model",
        "version": "0.1.0",
        "inputs": {"base_model": {"sha256": "b" * 64, "lineage": base_model}, "train_data": {"sha256": "d" * 64}},
        "parameters": {"learning_rate": 0.003, "note": "a|b"},
    }
    (model / "lineage.json").write_text(json.dumps(made))
    mean = {"mean": 0.612, "low": 0.551, "high": 0.669}
    difference = {"difference": 0.612, "low": 0.551, "high": 0.669}
    none = {"mean": 0.0, "low": 0.0, "high": 0.031}
    comparison = {
        "metric": "exact_match",
        "share_metrics": ["exact_match"],
        "num_items": 120,
        "num_clusters": 30,
        "confidence_level": 0.95,
        "held_out": {"statement": "Held out from training: documents (120 questions)."},
        "warnings": [],
        "candidates": [
            {"name": "base", "metrics": {"exact_match": none, "rating": {"mean": 3.1, "low": 3.0, "high": 3.2}}},
            {"name": "other", "metrics": {"exact_match": none, "rating": {"mean": 1.0, "low": None, "high": None}}},
            {"name": "tuned", "metrics": {"exact_match": mean, "rating": {"mean": 4.2, "low": 4.0, "high": 4.4}}},
        ],
        "comparisons": [
            {"candidate": "other", "baseline": "base", "metrics": {"exact_match": {**none, "p_value": 1.0}}},
            {
                "candidate": "tuned",
                "baseline": "base",
                "metrics": {
                    "exact_match": {**difference, "p_value": 1e-9},
                    "rating": {"difference": 1.1, "low": 0.9, "high": 1.3, "p_value": 0.01},
                },
            },
        ],
        "slices": [
            {
                "slice": "question_type",
                "value": "phone",
                "num_items": 9,
                "means": {"base": none, "other": none, "tuned": {"mean": 0.1, "low": None, "high": None}},
                "differences": {"tuned": {"difference": 0.1, "low": None, "high": None}},
            }
        ],
    }
    (tmp_path / "comparison").write_text(json.dumps(comparison))
    decision = {
        "verdict": "promote",
        "candidate": "tuned",
        "baseline": "base",
        "reasons": [{"rule": "superiority", "outcome": "pass", "text": "the difference is at least +55.1 points"}],
        "comparison_sha256": lineage.sha256(tmp_path / "comparison"),
    }
    (tmp_path / "decision").write_text(json.dumps(decision))
    return {name: tmp_path / name for name in ("model", "decision", "comparison")}


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), encoding="utf-8")


@pytest.fixture
def store(tmp_path):
    """A tracking and registry store of this test alone, with an open run."""
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("test", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    return types.SimpleNamespace(client=client, run=run, env={"MLFLOW_TRACKING_URI": uri, "MLFLOW_RUN_ID": run})


@pytest.fixture
def register(tmp_path, run_component, inputs):
    def run(env=None, **changes):
        outputs = {"manifest": tmp_path / "manifest", "model_card": tmp_path / "model_card"}
        flags = {**inputs, "registered_model_name": "store-answers", **outputs, **changes}
        done = run_component("register_model", env=env, **flags)
        manifest = json.loads(outputs["manifest"].read_text("utf-8")) if outputs["manifest"].exists() else None
        return done, manifest, outputs["model_card"]

    return run


@pytest.mark.slow
def test_promoted_is_registered_once(register, store, inputs):
    done, manifest, card = register(store.env)
    assert done.returncode == 0, done.stderr
    sha256 = lineage.sha256(inputs["model"])
    assert manifest == {
        "registered": True,
        "name": "store-answers",
        "version": "1",
        "uri": "models:/store-answers/1",
        "model_sha256": sha256,
        "why": "The verdict is promote.",
    }
    version = store.client.get_model_version("store-answers", "1")
    assert version.source == str(inputs["model"])
    assert version.run_id == store.run
    assert version.tags == {
        "model_sha256": sha256,
        "candidate": "tuned",
        "verdict": "promote",
        "decision_sha256": lineage.sha256(inputs["decision"]),
        "comparison_sha256": lineage.sha256(inputs["comparison"]),
        "train_data_sha256": "d" * 64,
        "run_id": store.run,
    }
    assert "+55.1 points" in version.description
    assert [file.path for file in store.client.list_artifacts(store.run)] == ["MODEL_CARD.md"]
    assert store.client.get_run(store.run).data.metrics == {"release/registered": 1.0}

    text = card.read_text("utf-8")
    for said in (
        "# store-answers version 1",
        "model_type qwen3, hidden_size 96, num_hidden_layers 2",
        "| base_model | `bbbbbbbbbbbbbbbb` | import_model model_name=tiny |",
        "| learning_rate | 0.003 |",
        "| note | a\\|b |",
        "| exact_match | 0.0% (0.0% to 3.1%) | 0.0% (0.0% to 3.1%) | 61.2% (55.1% to 66.9%) "
        "| +61.2 points (+55.1 to +66.9) | 1e-09 |",
        "| rating | 3.1 (3 to 3.2) | 1 | 4.2 (4 to 4.4) | +1.1 (+0.9 to +1.3) | 0.01 |",
        "| question_type = phone | 9 | 0.0% (0.0% to 3.1%) | 0.0% (0.0% to 3.1%) | 10.0% | +10.0 points |",
        "Held out from training: documents (120 questions).",
        "## Decision: promote",
        "Weak where question_type = phone",
    ):
        assert said in text

    done, manifest, _ = register(store.env)
    assert done.returncode == 0, done.stderr
    assert (manifest["registered"], manifest["version"]) == (True, "1")
    assert "already version 1" in done.stdout
    assert len(store.client.search_model_versions("name = 'store-answers'")) == 1

    (inputs["model"] / "model.safetensors").write_bytes(b"other weights")
    done, manifest, _ = register(store.env)
    assert (manifest["version"], manifest["why"]) == ("2", "The verdict is promote.")


@pytest.mark.parametrize("verdict", ["reject", "inconclusive"])
def test_what_is_not_promoted_is_not_registered(register, inputs, verdict):
    change(inputs["decision"], verdict=verdict)
    done, manifest, card = register()  # no registry is reachable, and none is asked for
    assert done.returncode == 0, done.stderr
    assert (manifest["registered"], manifest["version"], manifest["uri"]) == (False, None, None)
    assert f"registered nothing. The verdict is {verdict}." in done.stdout
    assert f"Registered: no. The verdict is {verdict}." in card.read_text("utf-8")


def test_comparison_is_optional(register, inputs):
    change(inputs["decision"], verdict="reject")
    inputs.pop("comparison")
    (inputs["model"] / "lineage.json").unlink()
    done, _, card = register()
    assert done.returncode == 0, done.stderr
    assert "Not known: the model folder holds no lineage.json." in card.read_text("utf-8")


def no_config(inputs):
    (inputs["model"] / "config.json").unlink()


def no_weights(inputs):
    (inputs["model"] / "model.safetensors").unlink()


def damaged_config(inputs):
    (inputs["model"] / "config.json").write_text("{")


def other_comparison(inputs):
    change(inputs["comparison"], num_items=7)


def not_a_decision(inputs):
    inputs["decision"].write_text('{"verdict": "promote"}')


def damaged_decision(inputs):
    inputs["decision"].write_text("promote")


def evaluated(inputs, *asked):
    """The lineage of a decision on the combined scores of candidates: (component, parameters, inputs) of each."""
    scores = [{"component": component, "parameters": said, "inputs": read} for component, said, read in asked]
    inputs_of = {f"records_{number}": {"lineage": lineage} for number, lineage in enumerate(scores, start=1)}
    for port in ("candidate_scores", "comparison"):
        inputs_of = {port: {"lineage": {"inputs": inputs_of, "parameters": {}}}}
    inputs["decision"].with_name("decision.lineage.json").write_text(json.dumps({"inputs": inputs_of}))


def folder_of(inputs, other=None):
    return {"model": {"sha256": other or lineage.sha256(inputs["model"])}}


def other_model_evaluated(inputs):
    asked = "score_multiple_choice", {"candidate": "tuned"}, folder_of(inputs, "e" * 64)
    evaluated(inputs, asked)


def model_of_another_candidate(inputs):
    evaluated(
        inputs,
        ("generate_answers", {"candidate": "other"}, folder_of(inputs)),
        ("generate_answers", {"candidate": "tuned"}, folder_of(inputs, "e" * 64)),
    )


def another_model_on_one_benchmark(inputs):
    evaluated(
        inputs,
        ("generate_answers", {"candidate": "tuned"}, folder_of(inputs)),
        ("score_multiple_choice", {"candidate": "tuned"}, folder_of(inputs, "e" * 64)),
    )


def variant_of_a_flow_on_another_model(inputs):
    change(inputs["decision"], candidate="flow.tuned")
    evaluated(inputs, ("run_flow", {"candidate": "flow"}, folder_of(inputs, "e" * 64)))


def endpoint_evaluated(inputs):
    evaluated(inputs, ("generate_answers", {"candidate": "tuned", "endpoint": "https://h/v1"}, {}))


def no_reasons(inputs):
    change(inputs["decision"], reasons=[])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_config, "no config.json"),
        (no_weights, "no weights"),
        (damaged_config, "config.json: not JSON"),
        (other_comparison, "decided on another comparison"),
        (not_a_decision, "no candidate, baseline, reasons, comparison_sha256"),
        (damaged_decision, "decision: not JSON"),
        (other_model_evaluated, "not the model that was evaluated"),
        (model_of_another_candidate, "not the model that was evaluated as tuned"),
        (another_model_on_one_benchmark, "not the model that was evaluated as tuned"),
        (variant_of_a_flow_on_another_model, "not the model that was evaluated as flow.tuned"),
        (endpoint_evaluated, "tuned was evaluated at https://h/v1, not from a folder"),
        (no_reasons, "no reasons"),
        (lambda inputs: None, "no registry: neither an Azure ML workspace nor MLFLOW_TRACKING_URI"),
    ],
)
def test_what_does_not_fit_is_one_line_and_registers_nothing(register, inputs, damage, message):
    damage(inputs)
    done, manifest, _ = register()
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert manifest is None


@pytest.mark.parametrize("name", ["a/b", "", ".a", "모델", "a b"])
def test_names_that_a_registry_refuses(register, name):
    done, _, _ = register(registered_model_name=name)
    assert done.returncode == 1
    assert "registered_model_name" in done.stderr


class RecordingModels:
    """The model operations of a workspace, as far as they are used: what is created is kept and can be listed."""

    def __init__(self):
        self.created = []

    def list(self, name):
        from azure.core.exceptions import ResourceNotFoundError

        if not self.created:
            raise ResourceNotFoundError("no such model")
        return iter(self.created)

    def create_or_update(self, model):
        self.created.append(model)
        model.version = str(len(self.created))
        return model


def test_registration_in_a_workspace(load_main, inputs, tmp_path, monkeypatch):
    from azure.ai.ml.entities import Model

    main = load_main("register_model")
    model_registry = importlib.import_module("model_registry")
    for name, value in WORKSPACE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    client = types.SimpleNamespace(models=RecordingModels())
    monkeypatch.setattr(model_registry, "workspace_client", lambda: client)
    outputs = {"manifest": tmp_path / "manifest", "model_card": tmp_path / "model_card"}
    args = main.Args(**inputs, registered_model_name="store-answers", **outputs)

    assert main.run(args) == {"release/registered": 1.0}
    (model,) = client.models.created
    assert isinstance(model, Model)
    assert (model.name, model.type, model.path) == ("store-answers", "custom_model", str(inputs["model"]))
    assert model.tags["model_sha256"] == model.properties["model_sha256"] == lineage.sha256(inputs["model"])
    assert model.tags["train_data_sha256"] == "d" * 64
    assert "tuned, judged promote against base" in model.description
    assert model._to_dict()["type"] == "custom_model"  # azure-ai-ml's own schema takes it

    main.run(args)
    assert len(client.models.created) == 1
    manifest = json.loads(outputs["manifest"].read_text("utf-8"))
    assert manifest["uri"] == "azureml:store-answers:1"
    assert manifest["why"] == "The same model is already version 1."


@pytest.mark.parametrize(
    ("env", "credential"),
    [({"OBO_ENDPOINT": "http://localhost"}, "AzureMLOnBehalfOfCredential"), ({}, "DefaultAzureCredential")],
)
def test_the_workspace_is_that_of_the_job(load_main, monkeypatch, env, credential):
    """The real MLClient, which connects to nothing until it is asked for something."""
    load_main("register_model")
    for name, value in {**WORKSPACE, **env}.items():
        monkeypatch.setenv(name, value)
    client = importlib.import_module("model_registry").workspace_client()
    assert (client.subscription_id, client.resource_group_name) == (WORKSPACE["AZUREML_ARM_SUBSCRIPTION"], "group")
    assert client.workspace_name == "workspace"
    assert type(client._credential).__name__ == credential
