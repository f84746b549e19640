"""submit.py through azure-ai-ml's own client: jobs of this repository, the end of a job, and what is refused."""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest
import yaml

import submit
import workspace_client
from localml import jobfile
from localml.workspace import settings
from tests.workspace import job_assets

ROOT = Path(__file__).resolve().parent.parent.parent
JOBS = ROOT / "pipelines" / "jobs"
USUAL_JOB = "finetune-phi4-mini-adapter"  # with data, models of the workspace, two clusters, a pipeline in a pipeline
COMPONENT = """\
type: command
name: say_word
version: 0.1.0
display_name: Say a word
inputs:
  word: {type: string, enum: [hello, fail]}
  times: {type: integer, default: 1, min: 1, max: 3}
  texts: {type: uri_folder, optional: true}
outputs:
  said: {type: uri_folder}
code: .
environment:
  image: example.invalid/image:1
  conda_file: {name: none, dependencies: [python=3.11]}
command: >-
  python say.py ${{inputs.word}} ${{inputs.times}} ${{outputs.said}} $[[${{inputs.texts}}]]
"""
SAY = """\
import pathlib, sys
word, times, said = sys.argv[1:4]
if word == "fail":
    sys.exit("error: there is nothing to say")
pathlib.Path(said, "word.txt").write_text(word * int(times))
"""
JOB = """\
type: pipeline
display_name: A word
experiment_name: words
settings: {default_compute: azureml:cpu-cluster}
inputs: {times: 2}
outputs:
  said: {type: uri_folder}
jobs:
  say:
    type: command
    component: c/component.yml
    inputs: {word: hello, times: "${{parent.inputs.times}}"}
    outputs: {said: "${{parent.outputs.said}}"}
"""


@pytest.fixture(scope="module")
def client(workspace):
    return workspace.client()


@pytest.fixture(autouse=True)
def _one_client(client, monkeypatch):
    """All tests but those on signing in share one."""
    monkeypatch.setattr(workspace_client, "connect", lambda args: client)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two small jobs, ``job.yml`` and ``failing.yml``."""
    folder = tmp_path_factory.mktemp("word")
    (folder / "c").mkdir()
    (folder / "c" / "component.yml").write_text(COMPONENT)
    (folder / "c" / "say.py").write_text(SAY)
    (folder / "job.yml").write_text(JOB)
    (folder / "failing.yml").write_text(JOB.replace("word: hello", "word: fail"))
    return folder


@pytest.fixture(scope="module")
def submitted(workspace, folder) -> subprocess.CompletedProcess:
    """Both jobs, as ``word-1`` and ``word-2``; they run while other tests do."""
    command = [sys.executable, str(ROOT / "scripts" / "submit.py"), "--set", "tags.trigger=test", "-f"]
    done = subprocess.run(
        [*command, str(folder / "job.yml"), "--name", "word-1"], capture_output=True, text=True, check=False
    )
    submit.main(["--file", str(folder / "failing.yml"), "--name", "word-2"])
    return done


def test_two_lines_and_no_noise(submitted, client):
    assert submitted.returncode == 0, submitted.stderr
    link = client.jobs.get("word-1").studio_url
    assert submitted.stdout == f"submitted to workspace local\nword-1: {link}\n"
    assert submitted.stderr == ""
    assert client.jobs.get("word-1").tags == {"trigger": "test"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[] if path.stem == USUAL_JOB else pytest.mark.submission)
        for path in sorted(JOBS.glob("*.yml"))
    ],
)
def test_a_job_of_this_repository(client, capsys, name):
    job_assets.register(client, JOBS / f"{name}.yml")
    code = submit.main(["--file", str(JOBS / f"{name}.yml"), "--name", name])
    assert code == 0, capsys.readouterr().err
    client.jobs.begin_cancel(name)
    sent = client.jobs.get(name)
    file = yaml.safe_load((JOBS / f"{name}.yml").read_text())
    assert (sent.display_name, sent.experiment_name) == (file["display_name"], file["experiment_name"])
    assert sent.jobs.keys() == file["jobs"].keys()
    assert sent.outputs.keys() == file["outputs"].keys()


def words(**changes: object) -> dict:
    """The job file with other values at places such as ``jobs.say.inputs.word``; None takes a value away."""
    content = yaml.safe_load(JOB)
    for place, value in changes.items():
        *sections, last = place.split("__")
        inner = content
        for section in sections:
            inner = inner[section]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    return content


SAY_NODE = words()["jobs"]["say"]
# what is wrong, the file or its text, more flags, what is said about it
REFUSED = {
    "no such file": (None, [], "no such job file"),
    "no YAML": ("jobs: [", [], "job.yml: "),
    "no mapping": ("- 1", [], "job.yml: "),
    "a job of another type": (
        {"type": "command", "command": "true", "environment": {"image": "i:1"}, "compute": "azureml:cpu-cluster"},
        [],
        "this is a command job",
    ),
    "no component file": (words(jobs__say__component="c/other.yml"), [], "other.yml"),
    "an unknown component asset": (words(jobs__say__component="azureml:unknown:1"), [], "unknown"),
    "a value that is not one of those": (words(jobs__say__inputs__word="shout"), [], "shout"),
    "a required input is missing": (words(jobs__say__inputs__word=None), [], "word"),
    "an unknown input": (words(jobs__say__inputs__wrod="hello"), [], "no input 'wrod'"),
    "a number out of range": (words(jobs__say__inputs__times=9), [], "times"),
    "no number": (words(jobs__say__inputs__times="many"), [], "times"),
    "an unknown step is read": (
        words(jobs__say__inputs__texts="${{parent.jobs.other.outputs.said}}"),
        [],
        "other",
    ),
    "a cycle": (
        words(
            jobs={
                name: SAY_NODE | {"inputs": {"word": "hello", "texts": f"${{{{parent.jobs.{other}.outputs.said}}}}"}}
                for name, other in (("say", "again"), ("again", "say"))
            },
            outputs={},
        ),
        [],
        "wait for each other: ",
    ),
    "an unknown pipeline input": (words(), ["--set", "inputs.tmies=1"], "no input 'tmies'"),
    "an unknown input of a step": (words(), ["--set", "jobs.say.inputs.wrod=hello"], "no input 'wrod'"),
    "a setting without a value": (words(), ["--set", "inputs.times"], "expected KEY=VALUE"),
    "a compute that is not there": (words(jobs__say__compute="azureml:other-cluster"), [], "other-cluster"),
    "data that are not on this machine": (
        words(jobs__say__inputs__texts={"type": "uri_folder", "path": "nowhere"}),
        [],
        "nowhere",
    ),
    "a version that is not there": (
        words(inputs={"times": 1, "texts": {"type": "uri_folder", "path": "azureml:unknown-data:7"}}),
        [],
        "unknown-data:7",
    ),
    "an asset that is not there": (
        words(inputs={"times": 1, "texts": {"type": "uri_folder", "path": "azureml:unknown-data@latest"}}),
        [],
        "Asset unknown-data does not exist in workspace local",
    ),
    "another job of a name": (words(inputs__times=3), ["--name", "word-1"], "Job word-1 exists already"),
    "an output that the job does not have": (words(), ["--download", "sad"], "it has: said"),
    "a place for it that is taken": (words(outputs={"c": {"type": "uri_folder"}}), ["--download", "c"], "c exists"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what, submitted, client, folder, capsys):
    content, flags, said = REFUSED[what]
    file = folder / f"{'-'.join(what.split())}-job.yml"
    if content is not None:
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    names = {job.name for job in client.jobs.list()}
    assert submit.main(["--file", str(file), "--download-path", str(folder), *flags]) == 2
    line = capsys.readouterr().err
    assert line.startswith("submit.py: error: ")
    assert said in line
    assert line.count("\n") == 1
    assert len(line) < 700
    assert {job.name for job in client.jobs.list()} == names


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--wait"],
        ["--name", "word-1"],
        ["--wait", "--name", "../word"],
        ["--wait", "--name", "-word"],
        ["--wait", "--name", "word-1", "--dry-run"],
        ["--wait", "--name", "word-1", "--set", "tags.a=b"],
    ],
    ids=" ".join,
)
def test_flags_that_say_nothing(flags, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        submit.main(flags)
    assert "submit.py: error: " in capsys.readouterr().err


class SignIn:
    """In place of DefaultAzureCredential: an expired token of the workspace, or none at all."""

    def __init__(self, secret: str | None) -> None:
        self._secret = secret

    def get_token(self, *scopes: str, **options: object):
        from azure.core.credentials import AccessToken
        from azure.core.exceptions import ClientAuthenticationError

        if self._secret is None:
            raise ClientAuthenticationError(message="DefaultAzureCredential failed to retrieve a token.\nAttempted...")
        claims = {"iss": "https://127.0.0.1", "aud": scopes[0], "tid": "t", "exp": int(time.time()) - 1}
        return AccessToken(jwt.encode(claims, self._secret, "HS256"), int(time.time()) + 3600)


NAMED = ["--subscription", settings.SUBSCRIPTION, "-g", settings.RESOURCE_GROUP]
CONNECT = workspace_client.connect


def test_wrong_workspace(monkeypatch, submitted, capsys):
    monkeypatch.setattr(workspace_client, "connect", CONNECT)
    assert submit.main(["--wait", "--name", "word-1", *NAMED, "-w", "other"]) == 2
    assert capsys.readouterr().err == "submit.py: error: workspace: Workspace other was not found.\n"


@pytest.mark.parametrize("what", ["expired", "none"])
def test_no_sign_in(workspace, what, monkeypatch, capsys):
    secret = settings.read(workspace.root).secret if what == "expired" else None
    monkeypatch.setattr(workspace_client, "connect", CONNECT)
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", lambda: SignIn(secret))
    assert submit.main(["--wait", "--name", "word-1"]) == 3
    line = capsys.readouterr().err
    assert ("the sign-in is not taken" if secret else "no sign-in (az login)") in line
    assert line.count("\n") == 1


def test_no_workspace_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workspace_client, "connect", CONNECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AZURE_ML_WORKSPACE")
    assert submit.main(["--wait", "--name", "word-1"]) == 2
    line = capsys.readouterr().err
    assert "--workspace-name" in line
    assert line.count("\n") == 1


def test_a_name_that_is_given_goes_before_config_json(workspace, submitted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workspace_client, "connect", CONNECT)
    known = {"subscription_id": settings.SUBSCRIPTION, "resource_group": settings.RESOURCE_GROUP}
    (tmp_path / "config.json").write_text(json.dumps(known | {"workspace_name": "local"}))
    monkeypatch.chdir(tmp_path)
    for name in ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_ML_WORKSPACE"):
        monkeypatch.delenv(name)
    args = argparse.Namespace(subscription=None, resource_group=None, workspace_name=None)
    assert workspace_client.connect(args).workspace_name == "local"
    args.workspace_name = "other"
    with pytest.raises(workspace_client.RefusedError, match="Workspace other was not found"):
        workspace_client.connect(args)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("ServiceRequestError", "no answer from Azure: the connection is gone"),
        ("IncompleteReadError", "Azure does not answer now: the connection is gone"),
        ("HttpResponseError", "Azure does not answer now: the connection is gone"),
    ],
)
def test_no_network(client, monkeypatch, capsys, kind, said):
    """A port that is closed, an answer that breaks off: as azure-core says it."""
    from azure.core import exceptions

    def closed(name: str):
        raise getattr(exceptions, kind)("the connection\nis gone")

    monkeypatch.setattr(client.jobs, "get", closed)
    assert submit.main(["--wait", "--name", "word-1"]) == 3
    assert capsys.readouterr().err == f"submit.py: error: job word-1: {said}\n"


def test_a_name_that_was_made_up_is_told_where_the_answer_is_lost(client, folder, monkeypatch, capsys):
    """Without it the job that may have been taken would be submitted a second time."""
    from azure.core.exceptions import ServiceResponseError

    sent = []

    def lost(job):
        sent.append(job.name)
        raise ServiceResponseError("gone")

    monkeypatch.setattr(client.jobs, "create_or_update", lost)
    assert submit.main(["--file", str(folder / "job.yml")]) == 3
    assert re.fullmatch(r"\w+", sent[0])
    assert f"submit it again with --name {sent[0]}: it will be there once" in capsys.readouterr().err


def test_a_text_is_set_as_it_is_given(folder):
    """YAML would make 1.1, 83, 45045, a date, true and a of the first ones."""
    texts = ["1.10", "0123", "12:30:45", "2026-01-01", "yes", "a # b", "a: b", "[a", "日本 語", '"1.10"', "'it''s'"]
    file = folder / "text.yml"
    file.write_text(yaml.safe_dump(words(inputs={"times": 2} | {f"text{number}": "" for number in range(len(texts))})))
    job = jobfile.load(file, ["tags.text=1.10", *(f"inputs.text{number}={text}" for number, text in enumerate(texts))])
    assert job.tags == {"text": "1.10"}
    assert [job.inputs[f"text{number}"]._data for number in range(len(texts))] == [*texts[:-2], "1.10", "it's"]


def test_a_connection_that_stays_lost_says_how_to_go_on(client, submitted, monkeypatch, capsys):
    def lost(args):
        raise workspace_client.UnreachableError("workspace: no answer from Azure")

    monkeypatch.setattr(workspace_client, "connect", lost)
    monkeypatch.setattr(submit, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(workspace_client.UnreachableError, match=r"to go on: submit\.py --wait --name word-1"):
        submit.wait(argparse.Namespace(), None, "word-1")


def test_a_token_that_expires_while_it_waits(workspace, submitted, capsys):
    """The next client signs in again."""
    from azure.ai.ml import MLClient

    secret = settings.read(workspace.root).secret
    names = settings.SUBSCRIPTION, settings.RESOURCE_GROUP, settings.WORKSPACE
    expired = MLClient(SignIn(secret), *names, show_progress=False)
    job = submit.wait(argparse.Namespace(), expired, "word-1")
    assert job.status == "Completed"
    out, err = capsys.readouterr()
    assert "the sign-in is not taken" in err
    assert err.count("\n") == 1
    assert out.splitlines()[-1].endswith(" Completed")


def test_the_outputs_of_a_job_that_was_submitted_twice(submitted, folder, tmp_path, capsys):
    flags = ["--name", "word-1", "--download", "said", "--download-path", str(tmp_path)]
    assert submit.main(["--file", str(folder / "job.yml"), *flags, "--set", "tags.trigger=test"]) == 0
    assert (tmp_path / "said" / "word.txt").read_text() == "hellohello"
    assert [path.name for path in tmp_path.iterdir()] == ["said"]
    assert capsys.readouterr().out.endswith(f"said: {tmp_path / 'said'}\n")
    assert submit.main(flags) == 2  # what is there is never replaced
    assert f"{tmp_path / 'said'} exists" in capsys.readouterr().err


def test_a_job_that_fails_says_why(submitted, capsys):
    assert submit.main(["--name", "word-2", "--stream"]) == 1
    out, err = capsys.readouterr()
    assert "word-2" in out
    assert err.startswith("submit.py: error: job word-2: Failed: ")
    assert "there is nothing to say" in err
    assert err.count("\n") == 1


def test_a_job_that_is_not_there(capsys):
    assert submit.main(["--wait", "--name", "word-3"]) == 2
    assert "word-3 was not found" in capsys.readouterr().err


def test_a_dry_run_sends_nothing_and_needs_no_workspace(folder, monkeypatch, capsys):
    monkeypatch.setattr(workspace_client, "connect", lambda args: pytest.fail("a connection"))
    (folder / "texts").mkdir()
    file = folder / "dry.yml"
    texts = {"type": "uri_folder", "path": "texts"}
    file.write_text(yaml.safe_dump(words(inputs={"times": 2, "texts": texts}, outputs__said__name="words")))
    assert submit.main(["--file", str(file), "--name", "word-4", "--dry-run", "--set", "inputs.times=3"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: valid; 1 steps",
        "  name    word-4",
        "  input   texts = texts (uploaded)",
        "  input   times = 3",
        "  step    say: Say a word on cpu-cluster",
        "  output  said: uri_folder, registered as words",
    ]
