"""register_model: only what was promoted, once, with its lineage; in MLflow and, by a recording client, in Azure ML."""

import json
import types

import pytest

import model_registry
from slmkit import lineage
from slmkit.errors import UserError
from tests.components.test_model_registry import RecordingModels, in_workspace


@pytest.fixture
def inputs(tmp_path):
    """A model with lineage, a comparison and the decision to promote."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "qwen3", "hidden_size": 96, "num_hidden_layers": 2}')
    (model / "model.safetensors").write_bytes(b"weights" * 1000)
    (model / "tokenizer.json").write_text("{}")
    base_model = {"component": "import_model", "version": "0.1.0", "inputs": {}, "parameters": {"model_name": "tiny"}}
    contents = {"num_chats": 1200, "languages": {"en": 700, "ja": 500}, "origins": {"coverage": 1200}}
    dataset = {"component": "prepare_dataset", "version": "0.1.0", "parameters": {"seed": 7}, "contents": contents}
    documents = {"component": "collect_documents", "version": "0.1.0", "inputs": {}, "parameters": {"encoding": "auto"}}
    dataset["inputs"] = {"chats": {"sha256": "c" * 64, "lineage": documents}}
    made = {
        "component": "finetune_model",
        "version": "0.1.0",
        "inputs": {
            "base_model": {"sha256": "b" * 64, "lineage": base_model},
            "train_data": {"sha256": "d" * 64, "lineage": dataset},
        },
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
        "model_sha256": lineage.sha256(model),
    }
    (tmp_path / "decision").write_text(json.dumps(decision))
    return {name: tmp_path / name for name in ("model", "decision", "comparison")}


@pytest.fixture
def workspace(monkeypatch) -> RecordingModels:
    return in_workspace(monkeypatch)


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


@pytest.fixture
def run_here(load_main, inputs, tmp_path):
    """Run it in this process; its manifest."""

    def run(**changes):
        main = load_main("register_model")
        outputs = {"manifest": tmp_path / "manifest", "model_card": tmp_path / "model_card"}
        main.run(main.Args(**{**inputs, "registered_model_name": "store-answers", **outputs, **changes}))
        return json.loads(outputs["manifest"].read_text("utf-8"))

    return run


@pytest.fixture
def refused(run_here, workspace, tmp_path):
    """Run it where it must be refused, with nothing registered and nothing written; the error."""

    def run(**changes):
        with pytest.raises(UserError) as error:
            run_here(**changes)
        assert len(str(error.value).splitlines()) == 1
        assert not workspace.created
        assert not (tmp_path / "manifest").exists()
        return error.value

    return run


@pytest.mark.slow
def test_promoted_is_registered_once(register, run_here, store, inputs, monkeypatch):
    done, manifest, card = register(store.env)
    assert done.returncode == 0, done.stderr
    sha256 = lineage.sha256(inputs["model"])
    assert manifest == {
        "registered": True,
        "name": "store-answers",
        "version": "1",
        "uri": "models:/store-answers/1",
        "aliases": ["candidate"],
        "model_type": "custom_model",
        "model_sha256": sha256,
        "quantized": False,
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
    assert version.aliases == ["candidate"]
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
        "1,200 chats to learn from.\nBy language: en 700, ja 500.\nBy origin: coverage 1,200.",
        "- prepare_dataset seed=7\n- collect_documents encoding=auto\n",
        "Not stated by those who registered it.",
        "Not audited: no privacy decision stands behind this version.",
        "| exact_match | 0.0% (0.0% to 3.1%) | 0.0% (0.0% to 3.1%) | 61.2% (55.1% to 66.9%) "
        "| +61.2 points (+55.1 to +66.9) | 1e-09 |",
        "| rating | 3.1 (3 to 3.2) | 1 | 4.2 (4 to 4.4) | +1.1 (+0.9 to +1.3) | 0.01 |",
        "| question_type = phone | 9 | 0.0% (0.0% to 3.1%) | 0.0% (0.0% to 3.1%) | 10.0% | +10.0 points |",
        "Held out from training: documents (120 questions).",
        "## Decision: promote",
        "Weak where question_type = phone",
    ):
        assert said in text

    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    manifest = run_here()
    assert (manifest["registered"], manifest["version"]) == (True, "1")
    assert manifest["why"] == "The same model is already version 1."
    assert len(store.client.search_model_versions("name = 'store-answers'")) == 1

    (inputs["model"] / "model.safetensors").write_bytes(b"other weights")
    change(inputs["decision"], model_sha256=lineage.sha256(inputs["model"]))
    manifest = run_here()
    assert (manifest["version"], manifest["why"]) == ("2", "The verdict is promote.")
    assert store.client.get_registered_model("store-answers").aliases == {"candidate": 2}


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


def only_an_adapter(inputs):
    (inputs["model"] / "config.json").rename(inputs["model"] / "adapter_config.json")


def no_weights(inputs):
    (inputs["model"] / "model.safetensors").unlink()


def no_tokenizer(inputs):
    (inputs["model"] / "tokenizer.json").unlink()


def damaged_config(inputs):
    (inputs["model"] / "config.json").write_text("{")


def other_comparison(inputs):
    change(inputs["comparison"], num_items=7)


def not_a_decision(inputs):
    inputs["decision"].write_text('{"verdict": "promote"}')


def damaged_decision(inputs):
    inputs["decision"].write_text("promote")


def no_reasons(inputs):
    change(inputs["decision"], reasons=[])


def reasons_against_it(inputs):
    change(inputs["decision"], reasons=[{"rule": "floor", "outcome": "undecided", "text": "too few questions"}])


def compared_another_model(inputs):
    comparison = json.loads(inputs["comparison"].read_text("utf-8"))
    comparison["candidates"][2]["model_sha256"] = "e" * 64
    inputs["comparison"].write_text(json.dumps(comparison))
    change(inputs["decision"], comparison_sha256=lineage.sha256(inputs["comparison"]))


def compared_no_such_candidate(inputs):
    change(inputs["decision"], candidate="third")


def endpoint_beside_the_hash(inputs):
    change(inputs["decision"], endpoint="https://h/v1")


def failed_audit(inputs):
    inputs["privacy_decision"] = inputs["decision"].with_name("privacy_decision")
    inputs["privacy_decision"].write_text('{"verdict": "fail", "reasons_to_fail": ["copied"]}')
    change(inputs["decision"], privacy_decision_sha256=lineage.sha256(inputs["privacy_decision"]))


def unknown_verdict(inputs):
    change(inputs["decision"], verdict="promoted")


def other_model(inputs):
    change(inputs["decision"], model_sha256="e" * 64)


def nothing_says_which_model(inputs):
    change(inputs["decision"], model_sha256=None)


def endpoint_in_the_decision(inputs):
    change(inputs["decision"], model_sha256=None, endpoint="https://h/v1")


def evaluated(inputs, *asked):
    """The lineage of a decision on the combined scores of candidates: (component, parameters, inputs) of each."""
    scores = [{"component": component, "parameters": said, "inputs": read} for component, said, read in asked]
    inputs_of = {f"records_{number}": {"lineage": lineage} for number, lineage in enumerate(scores, start=1)}
    for port in ("candidate_scores", "comparison"):
        inputs_of = {port: {"lineage": {"inputs": inputs_of, "parameters": {}}}}
    inputs["decision"].with_name("decision.lineage.json").write_text(json.dumps({"inputs": inputs_of}))


def folder_of(inputs, other=None):
    return {"model": {"sha256": other or lineage.sha256(inputs["model"])}}


def lineage_contradicts(inputs):
    asked = "score_multiple_choice", {"candidate": "tuned"}, folder_of(inputs, "e" * 64)
    evaluated(inputs, asked)


def model_of_another_candidate(inputs):
    nothing_says_which_model(inputs)
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
    del inputs["comparison"]
    evaluated(inputs, ("run_flow", {"candidate": "flow"}, folder_of(inputs, "e" * 64)))


def endpoint_in_lineage(inputs):
    evaluated(inputs, ("generate_answers", {"candidate": "tuned", "endpoint": "https://h/v1"}, {}))


def unseen_audit(inputs):
    inputs["privacy_decision"] = inputs["decision"].with_name("privacy_decision")
    inputs["privacy_decision"].write_text('{"verdict": "pass", "reasons_to_fail": []}')


@pytest.mark.parametrize(
    ("damage", "exit_code", "message"),
    [
        (no_config, 9, "no config.json"),
        (only_an_adapter, 9, "an adapter alone; register what combine_adapters makes of it and its base"),
        (no_weights, 9, "no weights"),
        (no_tokenizer, 9, "no tokenizer"),
        (damaged_config, 9, "config.json: not JSON"),
        (other_comparison, 1, "another comparison was decided on"),
        (unseen_audit, 1, "not the privacy decision that the gate has seen"),
        (not_a_decision, 3, "candidate: Field required"),
        (damaged_decision, 3, "is it the output decision of gate_promotion?"),
        (no_reasons, 3, "reasons: List should have at least 1 item"),
        (unknown_verdict, 3, "verdict: Input should be 'promote', 'reject' or 'inconclusive' (found 'promoted')"),
        (reasons_against_it, 3, "the verdict promote contradicts its own reasons (floor)"),
        (failed_audit, 3, "the audit failed, and the verdict is promote"),
        (compared_another_model, 4, "it compared another model_sha256 as tuned than the decision says"),
        (compared_no_such_candidate, 4, "it compared another model_sha256 as third than the decision says"),
        (endpoint_beside_the_hash, 4, "tuned was evaluated at https://h/v1, not from a folder"),
        (other_model, 4, "not the model that was evaluated as tuned"),
        (nothing_says_which_model, 4, "neither it nor its lineage says which model was evaluated as tuned"),
        (endpoint_in_the_decision, 4, "tuned was evaluated at https://h/v1, not from a folder"),
        (lineage_contradicts, 4, "not the model that was evaluated as tuned"),
        (model_of_another_candidate, 4, "not the model that was evaluated as tuned"),
        (another_model_on_one_benchmark, 4, "not the model that was evaluated as tuned"),
        (variant_of_a_flow_on_another_model, 4, "not the model that was evaluated as flow.tuned"),
        (endpoint_in_lineage, 4, "tuned was evaluated at https://h/v1, not from a folder"),
    ],
)
def test_what_does_not_fit_is_one_line_and_registers_nothing(refused, inputs, damage, exit_code, message):
    damage(inputs)
    error = refused()
    assert message in str(error)
    assert error.exit_code == exit_code


def test_without_a_registry_is_one_line(register):
    done, manifest, _ = register()
    assert done.returncode == 1
    assert "no registry: neither an Azure ML workspace nor MLFLOW_TRACKING_URI" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert manifest is None


def test_the_exit_code_of_the_process(register, inputs):
    other_model(inputs)
    done, manifest, _ = register()
    assert (done.returncode, len(done.stderr.splitlines()), manifest) == (4, 1, None)


@pytest.mark.parametrize("name", ["a/b", "", ".a", "모델", "a b"])
def test_names_that_a_registry_refuses(refused, name):
    assert "registered_model_name" in str(refused(registered_model_name=name))


def test_lineage_alone_proves_what_earlier_decisions_do_not_say(run_here, inputs, workspace):
    """A decision made before rows carried the hash, with its lineage beside it."""
    nothing_says_which_model(inputs)
    evaluated(inputs, ("generate_answers", {"candidate": "tuned"}, folder_of(inputs)))
    assert run_here()["registered"]


REPORT = {
    "method": "onnx-int4",
    "passed": True,
    "size_bytes": {"before": 4_000_000, "after": 800_000},
    "tokens_per_second": {
        **{"decode": {"before": 50.0, "after": 175.0, "ratio": 3.5}, "prefill": {"before": 900.0, "after": None}},
        **{"num_rounds": 3, "num_threads": 1},
    },
    "perplexity": {"before": 12.5, "after": 12.75},
    "metric": {
        **{"name": "exact_match", "before": 0.61, "after": 0.6, "num_items": 200},
        **{"difference": -0.01, "low": -0.025, "high": 0.005},
    },
    "max_quality_drop": 0.02,
}


@pytest.fixture
def quantized(inputs, tmp_path):
    """A model of ONNX Runtime GenAI, the report on it, and its source, which was the one evaluated."""
    source = inputs["model"]
    made_by = {"component": "quantize_model", "version": "0.1.0", "parameters": {}}
    made_by["inputs"] = {"model": {"sha256": lineage.sha256(source), "lineage": lineage.read(source)}}
    folder = tmp_path / "quantized"
    folder.mkdir()
    genai = {"model": {"type": "qwen3", "vocab_size": 4096, "decoder": {"hidden_size": 96, "num_hidden_layers": 2}}}
    (folder / "genai_config.json").write_text(json.dumps(genai))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "model.onnx.data").write_bytes(b"int4" * 5000)
    report = tmp_path / "report"
    report.mkdir()
    hashes = {"source_model_sha256": lineage.sha256(source), "model_sha256": lineage.sha256(folder)}
    (report / "quantization.json").write_text(json.dumps(REPORT | hashes))
    for output in (folder, report):
        (output / "lineage.json").write_text(json.dumps(made_by))
    inputs |= {"model": folder, "quantization_report": report}
    return types.SimpleNamespace(report=report / "quantization.json", lineage=report / "lineage.json", **hashes)


def test_a_quantized_model_goes_by_the_decision_on_its_source(run_here, inputs, quantized, workspace, tmp_path):
    manifest = run_here()
    assert manifest["registered"]
    assert (manifest["quantized"], manifest["model_sha256"]) == (True, quantized.model_sha256)
    assert manifest["source_model_sha256"] == quantized.source_model_sha256
    (model,) = workspace.created
    assert model.tags["source_model_sha256"] == quantized.source_model_sha256
    assert model.tags["train_data_sha256"] == "d" * 64
    text = (tmp_path / "model_card").read_text("utf-8")
    for said in (
        "- Model: model_type qwen3 (ONNX Runtime GenAI), hidden_size 96, num_hidden_layers 2, vocab_size 4096, 0.0 MB",
        "By onnx-int4 from the model with SHA-256",
        "| size | 4.0 MB | 0.8 MB | x0.20 |",
        "| tokens a second, writing | 50.0 | 175.0 | x3.50 |\n| perplexity | 12.5 | 12.75 | x1.02 |\n"
        "| exact_match of 200 questions | 61.0% | 60.0% | -1.0 points (-2.5 to +0.5) |",
        "At most 2.0 points were allowed to be lost.",
        "Of the model before quantization.",
        "Made by `finetune_model`",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("change_report", "exit_code", "message"),
    [
        ({"passed": False}, 1, "lost more quality than max_quality_drop"),
        ({"model_sha256": "e" * 64}, 4, "not the model that the quantization report is about"),
        ({"source_model_sha256": "e" * 64}, 4, "its lineage and the report name different source models"),
        ({"metric": REPORT["metric"] | {"difference": -0.03}}, 1, "lost more quality than max_quality_drop"),
        ({"metric": None}, 1, "is it the output report of quantize_model?"),
        ({"passed": None}, 1, "is it the output report of quantize_model?"),
    ],
)
def test_a_quantization_that_does_not_hold(refused, quantized, change_report, exit_code, message):
    change(quantized.report, **change_report)
    error = refused()
    assert message in str(error)
    assert error.exit_code == exit_code


def test_a_quantized_model_of_another_source(refused, quantized, inputs):
    change(quantized.report, source_model_sha256="e" * 64)
    quantized.lineage.unlink()  # as where Azure ML mounts the report of a job that was tampered with
    assert "its lineage and the report name different source models" in str(refused())
    (inputs["model"] / "lineage.json").unlink()
    assert "not the model that was evaluated as tuned" in str(refused())


def test_a_quantized_model_needs_its_report(refused, inputs, quantized):
    del inputs["quantization_report"]
    assert refused().exit_code == 4


def test_the_card_says_what_it_is_told_and_what_was_audited(run_here, inputs, workspace, tmp_path):
    unseen_audit(inputs)
    reasons = [{"rule": "copied_passages", "outcome": "pass", "text": "0 of 900"}]
    change(inputs["privacy_decision"], handling="Keep it inside.", reasons=reasons)
    change(inputs["decision"], privacy_decision_sha256=lineage.sha256(inputs["privacy_decision"]))
    run_here(intended_use="Answers about\nopening hours", limitations="No medical advice")
    text = (tmp_path / "model_card").read_text("utf-8")
    for said in (
        "\n## Intended use\n\nAnswers about opening hours\n",
        "came to the verdict **pass**. Keep it inside.",
        "| copied_passages | pass | 0 of 900 |",
        "- No medical advice\n",
    ):
        assert said in text


EVIL = "x\n# Heading <img src=x onerror=alert(1)> [a](http://b) `c` | d \u202e * __e__ f_g"


def test_names_cannot_break_the_card(run_here, inputs, workspace, tmp_path):
    comparison = json.loads(inputs["comparison"].read_text("utf-8").replace("tuned", json.dumps(EVIL)[1:-1]))
    inputs["comparison"].write_text(json.dumps(comparison), encoding="utf-8")
    change(inputs["decision"], candidate=EVIL, comparison_sha256=lineage.sha256(inputs["comparison"]))
    run_here()
    text = (tmp_path / "model_card").read_text("utf-8")
    shown = r"x # Heading &lt;img src=x onerror=alert(1)&gt; \[a\](http://b) \`c\` \| d \* \_\_e\_\_ f_g"
    assert f"| metric | base | other | {shown} | difference | p |" in text
    assert f"\nCandidate {shown}, judged promote" in text
    assert "<" not in text
    assert "\u202e" not in text
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[0] == "# store-answers version 1"
    assert [line[3:] for line in headings[1:]] == [
        *("Intended use", "Data", "Training", "Evaluation", "Privacy", "Decision: promote", "Limits"),
    ]


@pytest.mark.parametrize(("file", "model_type"), [("MLmodel", "mlflow_model"), ("notes", "custom_model")])
def test_the_type_is_that_of_the_folder(load_main, tmp_path, file, model_type):
    load_main("register_model")
    import model_folder

    (tmp_path / "deeper").mkdir()
    for name in (file, "deeper/config.json", "deeper/model.safetensors", "deeper/tokenizer.json"):
        (tmp_path / name).write_text("{}")
    assert model_folder.read(tmp_path).model_type == model_type


def test_registration_in_a_workspace(run_here, inputs, workspace):
    from azure.ai.ml.entities import Model

    manifest = run_here()
    (model,) = workspace.created
    assert isinstance(model, Model)
    assert (model.name, model.type, model.path) == ("store-answers", "custom_model", str(inputs["model"]))
    assert model.tags["model_sha256"] == model.properties["model_sha256"] == lineage.sha256(inputs["model"])
    assert model.tags["train_data_sha256"] == "d" * 64
    assert "Candidate tuned, judged promote against base" in model.description
    assert model._to_dict()["type"] == "custom_model"  # azure-ai-ml's own schema takes it
    assert (manifest["uri"], manifest["aliases"]) == ("azureml:store-answers:1", ["candidate"])

    shared = run_here(registry_name="shared")
    assert shared["uri"] == "azureml://registries/shared/models/store-answers/versions/1"
    model_registry.set_alias("store-answers", "1", "champion")
    manifest = run_here()
    assert len(workspace.created) == 1
    assert manifest["why"] == "The same model is already version 1."
    assert manifest["aliases"] == ["champion"]  # a second registration takes nothing from it
