"""Decisions that are believed or refused, and the next cycle on this machine: started once, stopped with its step."""

import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest
import yaml

from slmkit.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "components" / "trigger_retraining" / "main.py"
# Stands for scripts/run.py: notes its start, does what the job file says, and records its end as the runner does.
RUNNER = """
import json, os, sys, time
from pathlib import Path
flags = sys.argv[1:]
file, name = Path(flags[flags.index("--file") + 1]), flags[flags.index("--name") + 1]
todo, here = json.loads(file.read_text()), Path(__file__).parent
with (here / "started.jsonl").open("a") as log:
    log.write(json.dumps({"pid": os.getpid(), "flags": flags, "environment": sorted(os.environ)}) + "\\n")
if "--dry-run" in flags:
    sys.exit(todo.get("refuse") and "run.py: error: " + todo["refuse"])
while todo.get("wait") and not (here / "go").exists():
    time.sleep(0.02)
if todo.get("fail"):
    print("first line\\nrun.py: error: step train: out of memory")
    sys.exit(1)
step = here / "root" / "jobs" / name / "release"
step.mkdir(parents=True)
(step / "endpoint").write_text('{"name":  "rolled"}')
content = {"status": "FINISHED", "outputs": {"endpoint": "release/endpoint"}}
(step.parent / "job.json").write_text(json.dumps(content))
"""


@pytest.fixture(scope="module")
def modules(load_main):
    load_main("trigger_retraining")
    names = ("retraining_decision", "retraining_job", "local_pipeline")
    return types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def decision(**changes) -> dict:
    """As detect_drift writes one; the id by the rule in words, not by the code under test."""
    content = {
        "action": "retrain",
        "reasons": ["正解率が 12 points 下がった", "drift in 2 of the last 3 windows"],
        "signals": {"llm_drift": "drift", "input_drift": "none"},
        "window": "week-3",
        "budget": {"retrains_left": 1},
        "created_at": "2026-11-22T09:00:00.000Z",
        **changes,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {"decision_id": hashlib.sha256(text.encode("utf-8")).hexdigest(), **content}


class Project:
    """A project folder with job files and a stand-in for the runner; starts the component as the runner does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        (folder / "run.py").write_text(RUNNER)
        self.decision = self.write("decision.json", decision())
        self.endpoint = self.write("endpoint.json", {"name": "watched"})
        self.number = 0

    def write(self, name: str, content: object) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LOCALML_PROJECT": str(self.folder),
            "LOCALML_ROOT": str(self.root),
            "LOCALML_RUN": json.dumps([sys.executable, str(self.folder / "run.py"), "--root", str(self.root)]),
            "AZUREML_EXPERIMENT_NAME": "of-the-monitor",
        }

    def start(self, **flags: object) -> subprocess.Popen:
        self.number += 1
        out = self.folder / f"out{self.number}"
        given = {"decision": self.decision, "pipeline": "cycle.yml", "endpoint": self.endpoint, "dry_run": "false"}
        given |= {"receipt": out / "receipt", "current_endpoint": out / "endpoint", **flags}
        command = [sys.executable, str(MAIN), *(f"--{name}={value}" for name, value in given.items())]
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AZUREML_"))}
        environment = {**outside, **self.environment, "PYTHONPATH": str(ROOT / "components" / "_shared")}
        process = subprocess.Popen(command, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True)
        process.folder = out
        return process

    def run(self, **flags: object) -> tuple[int, str, dict]:
        return self.result(self.start(**flags))

    def result(self, process: subprocess.Popen) -> tuple[int, str, dict]:
        said, _ = process.communicate(timeout=60)
        receipt = process.folder / "receipt"
        return process.returncode, said, json.loads(receipt.read_text()) if receipt.exists() else {}

    def starts(self) -> list[dict]:
        file = self.folder / "started.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def test_a_job_is_started_waited_for_and_not_started_again(project):
    project.write("cycle.yml", {})
    data = project.folder / "fresh data"
    data.mkdir()
    flags = {"wait": "true", "pipeline_inputs": "{seed: 7, name: 'a: b', greedy: true}"}
    flags |= {"fresh_data": data, "fresh_data_input": "raw_data"}
    code, said, receipt = project.run(**flags)
    assert code == 0, said
    name = f"retrain-{decision()['decision_id'][:12]}"
    (start,) = project.starts()
    settings = ["inputs.seed=7", 'inputs.name="a: b"', "inputs.greedy=true", f'inputs.raw_data.path="{data}"']
    assert start["flags"] == [
        *("--root", str(project.root), "--file", str(project.folder / "cycle.yml"), "--name", name),
        *(word for setting in settings for word in ("--set", setting)),
    ]
    assert not [name for name in start["environment"] if name.startswith(("AZUREML_", "MLFLOW_", "LOCALML_"))]
    expected = {"started": True, "action": "retrain", "job_name": name, "status": "Completed", "dry_run": False}
    assert {key: receipt[key] for key in expected} == expected
    assert receipt["decision_id"] == decision()["decision_id"]
    assert receipt["endpoint_from"] == "started job"
    assert (project.folder / "out1" / "endpoint").read_text() == '{"name":  "rolled"}'

    code, said, again = project.run(**flags)
    assert (code, again["started"], again["status"]) == (0, False, "Completed"), said
    assert (project.folder / "out2" / "endpoint").read_text() == '{"name":  "rolled"}'
    assert len(project.starts()) == 1


def test_dry_run_is_the_default_and_starts_nothing(project):
    project.write("cycle.yml", {})
    code, said, receipt = project.run(dry_run="true")
    assert (code, receipt["started"], receipt["status"]) == (0, False, None), said
    assert [start["flags"][-1] for start in project.starts()] == ["--dry-run"]
    assert (project.folder / "out1" / "endpoint").read_bytes() == project.endpoint.read_bytes()
    assert MAIN.with_name("component.yml").read_text().count("dry_run:\n    type: boolean\n    default: true") == 1


def test_one_decision_starts_one_job_however_often_at_once(project):
    project.write("cycle.yml", {"wait": True})
    at_once = [project.start(wait="true"), project.start(wait="true")]
    until(project.starts)
    code, said, receipt = project.run()  # does not wait, and is done while the job still runs
    assert (code, receipt["started"], receipt["status"], receipt["why"]) == (0, False, "Running", "it runs already"), (
        said
    )
    (project.folder / "go").touch()
    results = [project.result(process) for process in at_once]
    assert [code for code, _, _ in results] == [0, 0], results
    assert sorted(receipt["started"] for _, _, receipt in results) == [False, True]
    assert {receipt["endpoint_from"] for _, _, receipt in results} == {"started job"}
    assert len(project.starts()) == 1


def test_without_wait_the_job_outlives_its_step(project):
    project.write("cycle.yml", {"wait": True})
    code, said, receipt = project.run()
    assert (code, receipt["started"], receipt["status"], receipt["endpoint_from"]) == (0, True, "Running", "input"), (
        said
    )
    (start,) = until(project.starts)
    assert project.run()[2]["why"] == "it runs already"
    (project.folder / "go").touch()
    until(lambda: not psutil.pid_exists(start["pid"]) or psutil.Process(start["pid"]).status() == "zombie")
    assert project.run()[2]["why"] == "it has run already"


def test_a_failed_job_fails_the_step_and_can_be_started_again(project):
    project.write("cycle.yml", {"fail": True})
    code, said, receipt = project.run(wait="true")
    assert (code, receipt) == (6, {})
    assert "  | first line\n  | run.py: error: step train: out of memory\n" in said
    assert said.splitlines()[-1].startswith("trigger_retraining: error: retrain-")
    assert "exit code 1: run.py: error: step train: out of memory; log: " in said.splitlines()[-1]
    project.write("cycle.yml", {})
    assert project.run(wait="true")[2]["started"] is True


def test_a_stopped_step_takes_its_job_along(project):
    project.write("cycle.yml", {"wait": True})
    process = project.start(wait="true")
    (start,) = until(project.starts)
    process.send_signal(signal.SIGTERM)
    code, _, receipt = project.result(process)
    assert code != 0 and receipt == {}
    assert not psutil.pid_exists(start["pid"])
    (project.folder / "go").touch()
    assert project.run(wait="true")[2]["started"] is True  # not taken for done


def test_what_the_runner_refuses_is_refused_by_the_dry_run(project):
    project.write("cycle.yml", {"refuse": "--set inputs.sed: the job has no input 'sed'"})
    code, said, receipt = project.run(dry_run="true", pipeline_inputs="{sed: 1}")
    assert (code, receipt) == (4, {})
    assert said == "trigger_retraining: error: run.py: error: --set inputs.sed: the job has no input 'sed'\n"


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ("../cycle.yml", "outside of the project"),
        ("jobs/../../x.yml", "outside of the project"),
        ("/etc/passwd", "outside of the project"),
        ("link.yml", "outside of the project"),
        ("jobs/none.yml", "no such file"),
        ("jobs", "no such file"),
        ("", "no such file"),
    ],
)
def test_only_a_job_file_of_the_project(modules, tmp_path, pipeline, said):
    project = tmp_path / "project"
    (project / "jobs").mkdir(parents=True)
    (tmp_path / "cycle.yml").write_text("{}")
    (project / "link.yml").symlink_to(tmp_path / "cycle.yml")
    runner = modules.local_pipeline.Runner(project, tmp_path, ())
    with pytest.raises(UserError, match=said) as error:
        runner.job_file(pipeline)
    assert error.value.exit_code == 4


def test_local_needs_the_runner(modules):
    with pytest.raises(UserError, match=r"works under scripts/run\.py"):
        modules.local_pipeline.Runner.found({})


GOOD = decision()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps({**GOOD, "action": "none"}), "is not that of its content"),
        (json.dumps({**GOOD, "budget": {"retrains_left": 99}}), "is not that of its content"),
        (json.dumps({**GOOD, "decision_id": "0" * 64}), "is not that of its content"),
        (json.dumps({**GOOD, "extra": 1}), "is not that of its content"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "decision_id"}), "decision_id"),
        (json.dumps(decision(action="retrain now")), "action"),
        (json.dumps(decision(reasons="many")), "reasons"),
        (json.dumps(decision(signals={"llm_drift": True})), "signals"),
        (json.dumps({"verdict": "promote"}), "is it the decision of detect_drift"),
        ("action: retrain", "not the JSON of a decision"),
        ("[]", "the file"),
        ("", "not the JSON of a decision"),
        ('{"a": NaN}', "NaN is no number"),
        ("[" * 100_000, "not the JSON of a decision"),
        ('{"a": "' + "x" * 2**20 + '"}', "larger than"),
    ],
)
def test_a_decision_that_is_none(modules, tmp_path, text, said):
    file = tmp_path / "decision.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said) as error:
        modules.retraining_decision.read(file)
    assert error.value.exit_code == 3
    assert "\n" not in str(error.value)


def test_the_id_does_not_depend_on_spelling(modules, tmp_path):
    file = tmp_path / "decision.json"
    file.write_text(json.dumps(dict(reversed(GOOD.items())), indent=4, ensure_ascii=True))
    assert modules.retraining_decision.read(file).job_name == f"retrain-{GOOD['decision_id'][:12]}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "llm-drift"),
        ({"signals": {"input_drift": "drift", "prompt_sensitivity": "drift", "llm_drift": "none"}}, "prompt-drift"),
        ({"signals": {"input_drift": "drift", "service_drift": "drift"}}, "data-drift"),
        ({"action": "rollback"}, "rollback"),
        ({"action": "alert"}, "alert"),
    ],
)
def test_the_event_of_a_decision(modules, changes, expected):
    read = modules.retraining_decision.Decision.model_validate(decision(**changes))
    assert read.event_type == expected


def test_no_event_without_a_drift(modules):
    read = modules.retraining_decision.Decision.model_validate(decision(signals={"service_drift": "drift"}))
    with pytest.raises(UserError, match="give event_type"):
        _ = read.event_type


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed", "is not a mapping"),
        ("{seed: 1, seed: 2}", "stands twice"),
        ("{seed: [1, 2]}", "neither a value nor data"),
        ("{seed: null}", "neither a value nor data"),
        ("{data: {path: x}}", "neither a value nor data"),
        ("{data: {type: uri_file, path: x, mode: rw_mount}}", "neither a value nor data"),
        ("{'a.path': x}", "not the name of an input"),
        ("{'a=b': x}", "not the name of an input"),
        ("{1: x}", "not the name of an input"),
        ("{a: [", "not YAML"),
    ],
)
def test_inputs_that_are_none(modules, text, said):
    with pytest.raises(UserError, match=said) as error:
        modules.retraining_job.inputs(text, None, None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["yes", "007", "a: b", "{a}", "a\x85b", "\u2028", "\x7f", "a\nb\n", "\0", "\ud800", "$(id) 'q' \"", "", "水"],
)
def test_the_runner_gets_the_very_text(modules, text):
    for key, value in (("inputs.x", text), ("inputs.x.path", {"type": "uri_file", "path": text})):
        said = modules.local_pipeline._setting("x", value)
        assert said.startswith(f'{key}="') and yaml.safe_load(said.removeprefix(f"{key}=")) == text
        assert "\0" not in said and said.encode()  # an argument of a process
    assert modules.local_pipeline._setting("x", 1e-7) == "inputs.x=1e-07"


def test_a_secret_gets_into_no_receipt(modules):
    for url in ("https://a.blob.core.windows.net/c/x?sv=1&sig=aBc%3D", "https://me:aBc@host/x"):
        for text, data in ((f"{{x: '{url}'}}", None), (f"{{x: {{type: uri_file, path: '{url}'}}}}", None), (None, url)):
            with pytest.raises(UserError, match="x: its URL holds a secret") as error:
                modules.retraining_job.inputs(text, data and Path(data), data and "x")
            assert "aBc" not in str(error.value)


def test_fresh_data_is_handed_on_by_its_uri(modules, tmp_path):
    uri = "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/azureml/1/records/"
    given = modules.retraining_job.inputs("{seed: 1}", Path(uri), "raw_data")
    assert given == {"seed": 1, "raw_data": {"type": "uri_folder", "path": uri.rstrip("/")}}
    assert modules.retraining_job.address(tmp_path / ".." / tmp_path.name) == str(tmp_path)
    for data, name in ((tmp_path, None), (None, "raw_data")):
        with pytest.raises(UserError, match="belong together"):
            modules.retraining_job.inputs(None, data, name)
    with pytest.raises(UserError, match="both give"):
        modules.retraining_job.inputs("{raw_data: 1}", tmp_path, "raw_data")


@pytest.mark.parametrize("action", ["none", "alert", "rollback"])
def test_other_actions_start_nothing(load_main, project, action):
    main = load_main("trigger_retraining")
    file = project.write("decision.json", decision(action=action))
    args = main.Args(file, project.folder / "r", project.folder / "e", dry_run=False)
    assert main.run(args) == {"monitor/retraining_started": 0.0}
    receipt = json.loads((project.folder / "r").read_text())
    assert (receipt["action"], receipt["started"], receipt["endpoint_from"]) == (action, False, None)
    assert json.loads((project.folder / "e").read_text()) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "azure"}, "the decision is retrain, and nothing is given to start: azure needs pipeline"),
        ({"target": "github", "repository": "o/n"}, "github_app_id, github_installation_id, github_key_url"),
        ({"pipeline": "p", "actions": "retrain,alert"}, "on retrain only"),
        ({"pipeline": "p", "actions": "retrain;alert"}, "is not one of"),
        ({"target": "github", "wait": True}, "wait: GitHub"),
    ],
)
def test_ports_that_do_not_fit(load_main, project, changes, said):
    main = load_main("trigger_retraining")
    with pytest.raises(UserError, match=said):
        main.run(main.Args(project.decision, project.folder / "r", project.folder / "e", dry_run=False, **changes))
    assert not (project.folder / "r").exists()


def test_a_monitor_that_starts_nothing_says_what_it_would_need(load_main, project):
    main = load_main("trigger_retraining")
    main.run(main.Args(project.decision, project.folder / "r", project.folder / "e", target="azure"))
    receipt = json.loads((project.folder / "r").read_text())
    assert (receipt["started"], receipt["why"]) == (False, "dry_run: nothing is given to start; azure needs pipeline")
