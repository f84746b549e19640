"""batch_score as Azure ML runs it: the parallel engine, a batch deployment, and what azure-ai-ml says of the files."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from slmkit.errors import UserError
from tests.chat_endpoint import completion

FOLDER = Path(__file__).resolve().parents[2] / "components" / "batch_score"

# What a process of the engine does: init, run for each mini-batch, again where one fails, then shutdown.
ENGINE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("entry", sys.argv.pop(1))
entry = importlib.util.module_from_spec(spec)
mini_batches = json.loads(sys.argv.pop(1))
spec.loader.exec_module(entry)
entry.init()
from model_inference import loading
loading.load_model = None  # which would fail a second load
for mini_batch in mini_batches:
    try:
        print(json.dumps(entry.run(mini_batch)))
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
entry.shutdown()
"""


def chat(text: str) -> dict:
    return {"id": text, "messages": [{"role": "user", "content": text}]}


def put(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def engine(tmp_path):
    """Start a process of the engine, with flags of its own before and after ours; what it says of each mini-batch."""

    def start(*mini_batches: list[Path], **inputs: object) -> list:
        ports = {name: tmp_path / name for name in ("records", "predictions", "report")}
        flags = [word for name, value in {**ports, **inputs}.items() for word in (f"--{name}", str(value))]
        given = json.dumps([[str(path) for path in mini_batch] for mini_batch in mini_batches])
        command = [sys.executable, "-c", ENGINE, str(FOLDER / "parallel_scoring.py"), given]
        done = subprocess.run(
            [*command, "--mini_batch_size", "1", *flags, "--client_sdk_version", "1.0"],
            capture_output=True,
            text=True,
            env={"PATH": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line[0] in '["']

    return start


def test_a_process_scores_its_shards_with_a_model_loaded_once(engine, small_model, load_main, tmp_path):
    """The rows are those of the command; a mini-batch that is given again gives the same ones."""
    shards = [put(tmp_path / "records" / f"{n}.jsonl", *(chat(f"電話 {n} {m}") for m in range(3))) for n in range(3)]
    other = put(tmp_path / "records" / "lineage.json", "{}")
    said = engine([shards[0], other], [shards[2]], [shards[1]], [shards[2]], model=small_model, max_new_tokens=5)
    assert said == [["0.jsonl", "lineage.json: no shard"], ["2.jsonl"], ["1.jsonl"], ["2.jsonl"]]

    main = load_main("batch_score")
    folders = {"predictions": tmp_path / "expected", "report": tmp_path / "expected_report"}
    main.run(main.Args(model=small_model, records=tmp_path / "records", max_new_tokens=5, **folders))
    assert sorted(path.name for path in (tmp_path / "predictions").glob("*.jsonl")) == [f"{n}.jsonl" for n in range(3)]
    for n in range(3):
        found, expected = (read(tmp_path / folder / f"{n}.jsonl") for folder in ("predictions", "expected"))
        assert [{**row, "latency_ms": 0} for row in found] == [{**row, "latency_ms": 0} for row in expected]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {name: shard["num_rows"] for name, shard in report["shards"].items()} == {f"{n}.jsonl": 3 for n in range(3)}
    assert (report["num_rows"], report["num_failed"]) == (9, 0)


def test_a_shard_with_too_many_errors_is_written_and_tried_again(engine, serve, tmp_path):
    """The endpoint fails at one question, at first: the retry, in another process, asks for that one only."""
    asked = []

    def reply(number: int, body: dict) -> object:
        asked.append(text := body["messages"][0]["content"])
        return (400, {"error": {"message": "no"}}) if text == "bad" and asked.count("bad") == 1 else completion(text)

    shard = put(tmp_path / "records" / "s" / "q.jsonl", chat("a"), chat("bad"), chat("b"))
    fine, empty = put(tmp_path / "records" / "fine.jsonl", chat("c")), put(tmp_path / "records" / "empty.jsonl")
    endpoint = {"endpoint": serve(reply).url, "endpoint_model": "m", "auth": "none", "concurrency": 1}
    first, *others = engine([shard], [fine], [empty], max_error_fraction=0.3, **endpoint)
    assert first.startswith("UserError: s/q.jsonl: 1 of 3 rows have an error (1 no_answer)")
    assert others == [["fine.jsonl"], ["empty.jsonl"]]
    assert json.loads((tmp_path / "report" / "report.json").read_text())["num_failed"] == 1
    assert engine([shard], max_error_fraction=0.3, **endpoint) == [["s/q.jsonl"]]
    assert asked == ["a", "bad", "b", "c", "bad"]
    assert [row["output"] for row in read(tmp_path / "predictions" / "s" / "q.jsonl")] == ["a", "bad", "b"]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["num_rows"], report["num_failed"], report["num_known"]) == (4, 0, 2)


def test_a_shard_that_fails_for_good_stands_with_its_errors(engine, serve, tmp_path):
    shard = put(tmp_path / "records" / "q.jsonl", chat("a"), "{", {"id": "none"})
    said = engine([shard], [shard], endpoint=serve(completion("A")).url, endpoint_model="m", auth="none")
    assert len(said) == 2
    assert all("2 of 3 rows have an error" in text for text in said)
    assert [row.get("error", "")[:10] for row in read(tmp_path / "predictions" / "q.jsonl")] == [
        "",
        "q.jsonl:2:",
        "a chat nee",
    ]
    assert json.loads((tmp_path / "report" / "report.json").read_text())["num_failed"] == 2


# --- the batch deployment


@pytest.fixture
def deployment(monkeypatch, load_main):
    """The scoring script, loaded as the service loads it."""
    load_main("batch_score")
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("deployment_scoring", FOLDER / "deployment_scoring.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    module._resources.close()


def test_a_deployment_returns_a_line_for_each_record_and_one_at_least_for_a_file(
    deployment, small_model, tmp_path, monkeypatch
):
    shutil.copytree(small_model, tmp_path / "registered" / "model")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / "registered"))
    monkeypatch.setenv("BATCH_SCORE_ARGUMENTS", "--max_new_tokens 4 --max_error_fraction 0.5")
    deployment.init()
    one = put(tmp_path / "one.jsonl", chat("한국어\n日本語"), "{")
    given = [str(one), str(put(tmp_path / "no_extension", chat("b"))), str(put(tmp_path / "empty.jsonl"))]
    lines = deployment.run(given)
    assert not any("\n" in line for line in lines)
    rows = [json.loads(line) for line in lines]
    assert [(row["file"], row["id"]) for row in rows] == [
        ("one.jsonl", "한국어\n日本語"),
        ("one.jsonl", "one.jsonl:2"),
        ("no_extension", "b"),
        ("empty.jsonl", "empty.jsonl"),
    ]
    assert ["error" in row for row in rows] == [False, True, False, True]
    assert 1 <= rows[0]["completion_tokens"] <= 4
    again = [json.loads(line) for line in deployment.run(given)]
    assert [row["output"] for row in again] == [row["output"] for row in rows]
    with pytest.raises(UserError, match="bad: 2 of 3 rows have an error"):
        deployment.run([str(put(tmp_path / "bad", chat("a"), "{", "{"))])


def test_the_model_folder_is_the_registered_one_or_the_only_one_in_it(deployment, tmp_path):
    with pytest.raises(UserError, match="0 folders with a config"):
        deployment.model_folder(tmp_path)
    put(tmp_path / "a" / "config.json", "{}")
    assert deployment.model_folder(tmp_path) == tmp_path / "a"
    put(tmp_path / "b" / "config.json", "{}")
    with pytest.raises(UserError, match="2 folders"):
        deployment.model_folder(tmp_path)
    put(tmp_path / "config.json", "{}")
    assert deployment.model_folder(tmp_path) == tmp_path


# --- the specifications


def spec(name: str) -> dict:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def test_the_parallel_specification_is_the_same_work():
    from azure.ai.ml import load_component

    result = load_component(FOLDER / "parallel.yml")._validate()
    assert result.passed, result.error_messages
    one, many = spec("component.yml"), spec("parallel.yml")
    assert many["version"] == one["version"]
    assert set(many["outputs"]) == set(one["outputs"])
    keys = ("type", "default", "enum", "optional", "min", "max")
    assert {name: [port.get(key) for key in keys] for name, port in many["inputs"].items() if name != "records"} == {
        name: [port.get(key) for key in keys] for name, port in one["inputs"].items() if name != "records"
    }
    assert many["task"]["program_arguments"].split() == one["command"].removeprefix("python main.py").split()
    assert (FOLDER / many["task"]["code"] / many["task"]["entry_script"]).is_file()


def test_azure_ai_ml_takes_the_endpoint_and_its_model_deployment():
    """As it sends them: what the service is told, field by field."""
    from azure.ai.ml import load_batch_endpoint
    from azure.ai.ml._utils._endpoint_utils import validate_scoring_script
    from azure.ai.ml.entities._load_functions import load_model_batch_deployment

    endpoint = load_batch_endpoint(FOLDER / "specs" / "endpoint.yml")
    assert endpoint._to_rest_batch_endpoint("westeurope").as_dict()["properties"]["authMode"] == "aadToken"
    deployment = load_model_batch_deployment(FOLDER / "specs" / "deployment.yml")
    validate_scoring_script(deployment)
    assert deployment.endpoint_name == endpoint.name
    sent = deployment._to_rest_object("westeurope").as_dict()["properties"]
    expected = {
        "environmentId": "slm-evaluate:0.1.0",
        "compute": "cpu-cluster",
        "miniBatchSize": 1,
        "maxConcurrencyPerInstance": 1,
        "outputAction": "AppendRow",
        "outputFileName": "predictions.jsonl",
        "errorThreshold": 0,
        "retrySettings": {"maxRetries": 2, "timeout": "PT4H"},
    }
    assert {name: sent[name] for name in expected} == expected
    environment = yaml.safe_load((FOLDER.parents[1] / "environments/evaluate/environment.yml").read_text("utf-8"))
    assert sent["environmentId"] == f"{environment['name']}:{environment['version']}"


def test_the_arguments_of_the_deployment_are_inputs_of_the_component(deployment, tmp_path, monkeypatch):
    from slmkit import cli

    flags = spec("specs/deployment.yml")["settings"]["environment_variables"][deployment.ARGUMENTS].split()
    asking = cli.parse(deployment.Asking, deployment.SPEC, flags)
    assert (asking.max_new_tokens, asking.batch_size, asking.max_error_fraction) == (128, 16, 0.05)


PRINT_PIPELINE = """
import sys
from azure.ai.ml.entities._load_functions import load_pipeline_component_batch_deployment
deployment = load_pipeline_component_batch_deployment(sys.argv[1])
result = deployment.component._validate()
assert result.passed, result.error_messages
print(deployment.component)
"""


def test_azure_ai_ml_takes_the_pipeline_deployment_with_all_of_its_code():
    """In a process of its own, as `az` is: where the DSL was used before, azure-ai-ml takes `code` from elsewhere."""
    command = [sys.executable, "-c", PRINT_PIPELINE, str(FOLDER / "specs" / "pipeline_deployment.yml")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert spec("specs/pipeline_deployment.yml")["endpoint_name"] == spec("specs/endpoint.yml")["name"]
    sent = yaml.safe_load(printed)["jobs"]["score"]
    assert Path(sent["task"]["code"]) == FOLDER.parent  # from which the script imports
    assert sent["task"]["entry_script"] == spec("parallel.yml")["task"]["entry_script"]
    parallel = spec("parallel.yml")["inputs"]
    for name, port in spec("pipeline.yml")["inputs"].items():
        assert {key: port.get(key) for key in ("type", "default")} == {
            key: parallel[name].get(key) for key in ("type", "default")
        }
