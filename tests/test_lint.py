"""The lint refuses what azure-ai-ml lets through, by file and line, and is silent about this repository's own files."""

import importlib
import os
import string
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import lint
from lint_rules.azure_loader import LOADERS
from lint_rules.documents import Document, read

ROOT = Path(__file__).resolve().parent.parent
BAD = ROOT / "tests" / "bad_specs"
SPECS = ROOT / "components" / "deploy_endpoint" / "specs"
SCHEMA = "$schema: https://azuremlschemas.azureedge.net/latest/{}.schema.json\n"
# File: the rule that refuses it, the line, and whether azure-ai-ml 1.35.2 takes it.
REFUSED = {
    "autoscale-max-below-min": ("max-below-min", 4, True),
    "compute-idle-minutes": ("idle-cost", 7, True),
    "compute-max-below-min": ("max-below-min", 7, True),
    "compute-never-empty": ("idle-cost", 6, True),
    "compute-public-ip": ("open-node", 2, True),
    "compute-vm-size": ("vm-size", 5, True),
    "connection-http": ("connection-endpoint", 5, True),
    "connection-secret": ("secret", 6, True),
    "data-no-path": ("missing-path", 6, True),
    "datastore-name": ("datastore-name", 3, True),
    "datastore-secret": ("secret", 10, True),
    "deployment-duplicate-key": ("unreadable", 9, True),
    "deployment-inline-environment": ("inline-environment", 6, True),
    "deployment-latest-environment": ("unpinned-asset", 6, True),
    "deployment-no-code-folder": ("missing-path", 10, True),
    "deployment-no-instance": ("instance-count", 8, True),
    "deployment-no-model-path": ("missing-path", 6, False),
    "deployment-no-scoring-script": ("missing-script", 11, True),
    "deployment-probe": ("probe", 12, True),
    "deployment-secret": ("secret", 11, True),
    "deployment-timeout": ("request-timeout", 10, True),
    "deployment-unknown-key": ("azure-ai-ml", 9, False),
    "deployment-variable-not-a-string": ("variable-type", 10, True),
    "endpoint-key-auth": ("key-auth", 4, True),
    "endpoint-long-name": ("endpoint-name", 3, True),
    "endpoint-mirror-over-half": ("mirror-traffic", 7, True),
    "endpoint-mirror-to-two": ("mirror-traffic", 7, True),
    "endpoint-public": ("public-network", 2, True),
    "endpoint-traffic-below-100": ("traffic", 6, True),
    "endpoint-traffic-over-100": ("traffic", 6, False),
    "monitor-baseline-overlaps": ("monitor-windows", 18, True),
    "monitor-no-signals": ("monitor-signals", 10, True),
    "monitor-runtime": ("azure-ai-ml", 2, False),
    "monitor-threshold": ("monitor-signals", 22, True),
    "monitor-threshold-name": ("azure-ai-ml", 22, False),
    "monitor-window": ("monitor-windows", 15, True),
    "registry-no-own-location": ("registry-location", 5, True),
    "schedule-cron": ("cron", 6, True),
    "schedule-expression": ("schedule-job", 11, True),
    "schedule-missing-job": ("missing-path", 9, False),
    "schedule-not-a-job": ("schedule-job", 7, False),
    "schedule-time-zone": ("schedule-period", 8, True),
    "schedule-unknown-input": ("schedule-job", 11, True),
    "workspace-open-outbound": ("managed-network", 8, True),
    "workspace-outbound-url": ("outbound-rule", 12, True),
    "workspace-project-network": ("managed-network", 6, True),
    "workspace-storage-key": ("datastore-keys", 6, True),
}


def found(path: Path, ask_azure: bool = False) -> list[tuple[str, int]]:
    return [(finding.rule, finding.line) for finding in lint.check(path, ask_azure)]


@pytest.fixture
def findings(tmp_path):
    """The rules that refuse a text, with their lines."""

    def check(text: str, ask_azure: bool = False) -> list[tuple[str, int]]:
        file = tmp_path / "file.yml"
        file.write_text(text, encoding="utf-8")
        return found(file, ask_azure)

    return check


def test_there_are_47_bad_files():
    assert {path.stem for path in BAD.glob("*.yml")} == set(REFUSED)
    assert len(REFUSED) == 47


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    rule, line, _ = REFUSED[name]
    assert found(BAD / f"{name}.yml", ask_azure=True) == [(rule, line)]


@pytest.mark.parametrize("name", REFUSED)
def test_what_azure_ai_ml_lets_through(name):
    """The reason for each rule; where this fails after an update, azure-ai-ml has learned to refuse it, too."""
    path = BAD / f"{name}.yml"
    first = name.split("-")[0]
    kind = {"deployment": "online_deployment", "endpoint": "online_endpoint", "monitor": "schedule"}.get(first, first)
    if kind == "autoscale":
        assert kind not in LOADERS  # a resource of Azure Monitor, which azure-ai-ml knows nothing of
        return
    load = getattr(importlib.import_module("azure.ai.ml.entities._load_functions"), LOADERS[kind])
    try:
        entity = load(path)
        if first == "monitor":
            entity._to_rest_object()  # a monitor has no _validate
        passes = entity._validate().passed if first == "schedule" else True
    except Exception:
        passes = False
    assert passes == REFUSED[name][2]


def test_own_files_pass():
    """scripts/test.sh checks all of them; these are what a deployment is made of."""
    folders = [SPECS, ROOT / "environments", ROOT / "components" / "batch_score"]
    assert [str(f) for file in lint.yaml_files(folders) for f in lint.check(file)] == []


def test_the_specs_are_seen_for_what_they_are():
    """A file of no known kind would pass unchecked."""
    kinds = {path.name: read(path).kind for path in SPECS.rglob("*.yml")}
    assert kinds == {
        "endpoint.yml": "online_endpoint",
        "deployment.yml": "online_deployment",
        "autoscale.yml": "autoscale",
    }


def test_command(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint.main(["tests/bad_specs/endpoint-mirror-over-half.yml"]) == 1
    assert capsys.readouterr().out == (
        "tests/bad_specs/endpoint-mirror-over-half.yml:7: mirror-traffic: "
        "60 % is mirrored; write a whole number from 0 to 50\n"
    )
    assert lint.main(["--skip-azure-ai-ml", str(SPECS)]) == 0
    assert capsys.readouterr() == ("", "")
    assert lint.main(["--list"]) == 0
    assert "mirror-traffic  " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        lint.main(["no_such_file.yml"])


ENDPOINT = SCHEMA.format("managedOnlineEndpoint") + "name: slm\nauth_mode: aad_token\npublic_network_access: disabled\n"
DEPLOYMENT = (
    SCHEMA.format("managedOnlineDeployment") + "name: blue\nendpoint_name: slm\ninstance_type: Standard_F4s_v2\n"
)
SCHEDULE = SCHEMA.format("schedule") + "name: nightly\ncreate_job: azureml:job:1\ntrigger:\n"
AUTOSCALE = (SPECS / "onnx-cpu" / "autoscale.yml").read_text(encoding="utf-8")
CRON = SCHEDULE + "  type: cron\n  expression: "
RECURRENCE = SCHEDULE + "  type: recurrence\n  frequency: week\n  interval: "


@pytest.mark.parametrize(
    "text",
    [
        ENDPOINT + "traffic: {blue: 90, green: 10}\n",
        ENDPOINT + "traffic: {blue: 100, green: 0}\nmirror_traffic: {green: 50}\n",
        ENDPOINT.replace("disabled", "enabled") + 'tags: {allow_public_network: "true"}\n',
        ENDPOINT.replace("aad_token", "key") + 'tags: {allow_key_auth: "true"}\n',
        DEPLOYMENT + "environment: azureml://registries/r/environments/slm-serve/versions/0.1.0\n",
        DEPLOYMENT
        + "environment_variables: {API_KEY: '${{azureml://connections/t/credentials/key}}', MAX_TOKENS: '9'}\n",
        DEPLOYMENT + "request_settings: {request_timeout_ms: 180000}\n",
        CRON + '"*/15 0-6,22 * * 1,3,5"\n',
        RECURRENCE
        + "2\n  time_zone: Tokyo Standard Time\n  schedule: {hours: [0, 23], minutes: 59, week_days: [monday]}\n",
        SCHEMA.format("environment") + "name: e\nimage: mcr.microsoft.com:443/azureml/x:20260901.v1\n",
        SCHEMA.format("pipelineJob") + "jobs: {a: {component: azureml:x:1, inputs: {path: any text}}}\n",
        "name: not of Azure ML\ninstance: 0\n",
    ],
)
def test_taken(findings, text):
    assert findings(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENDPOINT.replace("disabled", "enabled"), ("public-network", 4)),
        (ENDPOINT.replace("disabled", "enabled") + "tags: {allow_public_network: 'no'}\n", ("public-network", 4)),
        (ENDPOINT.replace("auth_mode: aad_token\n", ""), ("key-auth", 1)),
        (ENDPOINT + "traffic: {blue: 50.5, green: 49.5}\n", ("traffic", 5)),
        (ENDPOINT + "traffic: {blue: 150, green: -50}\n", ("traffic", 5)),
        (ENDPOINT + "traffic: {blue: 90, green: 10}\nmirror_traffic: {green: 10}\n", ("mirror-traffic", 6)),
        (DEPLOYMENT + "request_settings:\n  request_timeout_ms: 90\n", ("request-timeout", 6)),
        (DEPLOYMENT + "environment: file:../environments/vllm/environment.yml\n", ("unpinned-asset", 5)),
        (DEPLOYMENT + "model: azureml:slm@latest\n", ("unpinned-asset", 5)),
        (DEPLOYMENT + "environment_variables:\n  AZURE_OPENAI_KEY: 0a1b2c3d\n", ("secret", 6)),
        (DEPLOYMENT + "environment_variables:\n  DatabaseConnectionString: Server=db\n", ("secret", 6)),
        (DEPLOYMENT + "environment_variables:\n  URL: https://me:hunter2@example.com/\n", ("secret", 6)),
        (DEPLOYMENT + "liveness_probe: {period: 0}\n", ("probe", 5)),
        (DEPLOYMENT + "liveness_probe: {success_threshold: 3}\n", ("probe", 5)),
        (CRON + '"0 0 1 * *"\n', ("cron", 6)),
        (CRON + '"0 5-1 * * *"\n', ("cron", 6)),
        (CRON + '"*/0 * * * *"\n', ("cron", 6)),
        (CRON + '"0 0 * * 7"\n', ("cron", 6)),
        (CRON + '"@daily"\n', ("cron", 6)),
        (RECURRENCE + "0\n", ("recurrence", 7)),
        (RECURRENCE + "1\n  schedule: {hours: 24, minutes: 0}\n", ("recurrence", 8)),
        (RECURRENCE + "1\n  start_time: 2026-02-01\n  end_time: 2026-01-01\n", ("schedule-period", 9)),
        (AUTOSCALE.replace("threshold: 25", "threshold: 75"), ("autoscale", 6)),
        (AUTOSCALE.replace("CpuUtil", "CpuUse", 1), ("autoscale", 8)),
        (AUTOSCALE.replace("time_window: PT5M", "time_window: PT1M"), ("autoscale", 11)),
        (AUTOSCALE.replace("default: 1", "default: 9"), ("max-below-min", 5)),
        (SCHEMA.format("environment") + "name: e\nimage: vllm/vllm-openai\n", ("floating-image", 3)),
        (SCHEMA.format("commandComponent") + "environment: azureml:slm-data@latest\n", ("unpinned-environment", 2)),
        (SCHEMA.format("data") + "path: https://a.example/c?sv=1&sig=aB3%2FdE5fG7hI9jK1lM3n\n", ("secret", 2)),
        (SCHEMA.format("azureBlob") + "credentials:\n  account_key: AbCdEf0123\n", ("secret", 3)),
        ("a: &a [1, 2]\nb: [*a, *a]\n", ("unreadable", 2)),
        ("a: 1\nb: [\n", ("unreadable", 3)),
        ("a: !!python/object/apply:os.getcwd []\n", ("unreadable", 1)),
        ("a: 0x" + "f" * 9000, ("unreadable", 1)),
        ("[" * 5000, ("unreadable", 1)),
        ("a: " + "x" * 300_000, ("unreadable", 1)),
        # Without or with an invented $schema a file is known by what it holds.
        (ENDPOINT.split("\n", 1)[1].replace("aad_token", "key"), ("key-auth", 2)),
        (DEPLOYMENT.replace("managedOnlineDeployment", "x") + "instance_count: 0\nmodel: slm\n", ("unpinned-asset", 6)),
    ],
)
def test_also_refused(findings, text, expected):
    assert expected in findings(text)


def test_floating_base_of_a_dockerfile(findings, tmp_path):
    environment = SCHEMA.format("environment") + "name: e\nbuild: {path: .}\n"
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM --platform=linux/amd64 python:3.11.9 AS base\nFROM base\n")
    assert findings(environment) == []
    dockerfile.write_text("FROM python:3.11.9 AS base\nFROM vllm/vllm-openai:latest\n")
    assert findings(environment) == [("floating-image", 3)]


def test_a_finding_is_one_line_and_shows_no_secret(tmp_path):
    file = tmp_path / "file.yml"
    file.write_text(
        DEPLOYMENT + 'environment_variables: {TOKEN: 12345678}\nendpoint: 1\n"\\e[2J\\n": {}\n', encoding="utf-8"
    )
    for finding in lint.check(file):
        assert str(finding).isprintable()
        assert "12345678" not in str(finding)
    file.write_text(ENDPOINT + 'mirror_traffic: {"\\e[2J\\nx": 1, "\\ud800": 2}\n', encoding="utf-8")
    (finding,) = lint.check(file, ask_azure=False)
    assert str(finding).isprintable()


SAMPLES = [path.read_text(encoding="utf-8") for folder in (BAD, SPECS) for path in sorted(folder.rglob("*.yml"))]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_no_content_makes_it_fail(tmp_path_factory, data):
    """Any value at any place of a real file: findings or none, never an exception."""
    content = yaml.safe_load(data.draw(st.sampled_from([s for s in SAMPLES if s.count("instance_count") < 2])))
    places = [where for where, _ in Document(Path(), "", content, None).everything() if where]
    for where in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        target = content
        try:
            for step in where[:-1]:
                target = target[step]
            target[where[-1]] = data.draw(VALUES)
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change has taken this place away
    file = tmp_path_factory.getbasetemp() / "mutated.yml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    for finding in lint.check(file, ask_azure=False):
        assert str(finding).isprintable()


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_no_text_makes_it_fail(tmp_path_factory, data):
    text = data.draw(st.sampled_from(SAMPLES))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    file = tmp_path_factory.getbasetemp() / "mutated.yml"
    file.write_bytes(text[:start].encode() + data.draw(st.binary(max_size=6)) + text[end:].encode())
    for finding in lint.check(file, ask_azure=False):
        assert finding.line <= text.count("\n") + 10


@pytest.fixture
def serve(tmp_path):
    """How environments/vllm/serve.sh starts vLLM on a model folder, told by a vllm that prints its arguments."""
    vllm = tmp_path / "bin" / "vllm"
    vllm.parent.mkdir()
    vllm.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    vllm.chmod(0o755)

    def run(model: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        variables |= {"PATH": f"{vllm.parent}:{os.environ['PATH']}", "AZUREML_MODEL_DIR": str(model)}
        script = ROOT / "environments" / "vllm" / "serve.sh"
        return subprocess.run(["bash", script], env=variables, capture_output=True, text=True, timeout=30, check=False)

    return run


def test_vllm_serves_the_mounted_model(serve, tmp_path):
    model = tmp_path / "models" / "my model"  # Azure ML mounts the registered folder under its own name
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    done = serve(model.parent, SERVED_MODEL_NAME="slm", SERVE_ARGS="--max-model-len 8192 --x $(touch /tmp/no) *")
    assert done.stdout.splitlines() == [
        *("serve", str(model), "--host", "0.0.0.0", "--port", "8000", "--served-model-name", "slm"),
        *("--max-model-len", "8192", "--x", "$(touch", "/tmp/no)", "*"),
    ]


def test_vllm_serves_adapters_on_their_base(serve, tmp_path):
    for file in ("base/config.json", "adapters/ja/adapter_config.json", "adapters/ko/adapter_config.json"):
        (tmp_path / "lora" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lora" / file).write_text("{}")
    lines = serve(tmp_path / "lora").stdout.splitlines()
    assert lines[:2] == ["serve", str(tmp_path / "lora" / "base")]
    adapters = tmp_path / "lora" / "adapters"
    assert lines[-3:] == ["--lora-modules", f"ja={adapters}/ja", f"ko={adapters}/ko"]


def test_vllm_is_not_started_without_a_model(serve, tmp_path):
    (tmp_path / "empty").mkdir()
    done = serve(tmp_path / "empty")
    assert done.returncode == 3
    assert "config.json" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("type_", "settings", "refused"),
    [
        ("", "mini_batch_size: 10\noutput_action: append_row\n", []),
        ("type: model\n", "settings: {mini_batch_size: 10, output_action: append_row}\n", []),
        ("type: model\n", "mini_batch_size: 10\n", [("azure-ai-ml", 7)]),
        ("type: [model]\n", "mini_batch_size: 10\n", [("azure-ai-ml", 2)]),
    ],
)
def test_both_forms_of_a_batch_deployment(findings, type_, settings, refused):
    named = "name: rows\nendpoint_name: slm-batch\nmodel: azureml:m:1\ncompute: azureml:cpu\n"
    assert findings(SCHEMA.format("batchDeployment") + type_ + named + settings, ask_azure=True) == refused


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("type: uri_folder", "type: uri_fodler", "inputs.raw_data.type: there is no 'uri_fodler'"),
        ("type: pipeline", "type: pipline", "refused by azure-ai-ml: Unsupported job type: pipline"),
        (
            "      raw_data: ",
            "      raw_dta: ",
            "jobs.collection: the component has no input 'raw_dta'; it has: ",
        ),
    ],
)
def test_a_job_that_is_named_is_loaded(right, wrong, said, tmp_path, capsys):
    text = (ROOT / "pipelines" / "jobs" / "synthesize-embedded.yml").read_text(encoding="utf-8")
    for folder in ("components", "pipelines"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "own" / "jobs").mkdir(parents=True)
    (tmp_path / "own" / "samples").symlink_to(ROOT / "pipelines" / "samples")
    file = tmp_path / "own" / "jobs" / "job.yml"
    file.write_text(text)
    assert lint.main([str(file)]) == 0, capsys.readouterr().out
    file.write_text(text.replace(right, wrong, 1))
    assert lint.main([str(file.parent)]) == 0  # all jobs of a folder would take long
    assert lint.main([str(file)]) == 1
    assert capsys.readouterr().out.startswith(f"{file}:1: pipeline-job: {said}")


def test_a_file_of_no_kind_says_so_where_it_is_named(tmp_path, capsys):
    (tmp_path / "empty.yml").touch()
    assert lint.main([str(tmp_path)]) == 0
    assert lint.main([str(tmp_path / "empty.yml")]) == 1
    assert ":1: unknown-kind: no kind that is checked; is $schema" in capsys.readouterr().out
    assert lint.main([str(ROOT / "pipelines" / "presets" / "demo.yml")]) == 1
    assert "unknown-kind: a preset, which scripts/compile.py checks" in capsys.readouterr().out
