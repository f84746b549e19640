"""The next cycle on Azure ML: the real client over a transport that answers as the management API does."""

import base64
import importlib
import json
from pathlib import Path

import pytest
from azure.core import exceptions

from slmkit.errors import UserError
from tests.components.azure_rest import WORKSPACE, AzureRest, Credential
from tests.components.test_trigger_retraining import decision

ID = "ab" * 32
JOB = f"{WORKSPACE}/jobs/retrain-{ID[:12]}"
VERSIONS = f"{WORKSPACE}/components/finetune/versions"
DATA = "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/azureml/1/records"


class SignedIn(Credential):
    """The client looks into the token for the audience."""

    token = ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode()
        for part in (b'{"alg":"none"}', b'{"aud":"https://ml.azure.com"}', b"signature")
    )


def component(version="3", kind="pipeline"):
    inputs = {
        "raw_data": {"type": "uri_folder"},
        "seed": {"type": "integer", "default": "1"},
        "note": {"type": "string", "optional": True},
    }
    spec = {"name": "finetune", "version": version, "type": kind, "inputs": inputs, "outputs": {}}
    spec |= {"jobs": {}} if kind == "pipeline" else {"command": "python main.py", "environment": "azureml:e:1"}
    return {"id": f"{VERSIONS}/{version}", "name": version, "type": "t", "properties": {"componentSpec": spec}}


@pytest.fixture
def rest():
    rest = AzureRest()
    rest.resources[f"{VERSIONS}/3"] = component()
    rest.resources[VERSIONS] = {"value": [component()]}
    return rest


@pytest.fixture
def start(load_main, rest, monkeypatch, tmp_path):
    load_main("trigger_retraining")
    azure_pipeline, job = importlib.import_module("azure_pipeline"), importlib.import_module("retraining_job")
    monkeypatch.setattr(azure_pipeline, "POLL_SECONDS", 0)
    monkeypatch.chdir(tmp_path)
    places = []

    def connect(registry_name=None):
        from azure.ai.ml import MLClient

        places.append(registry_name)
        return MLClient(SignedIn(), "s", "g", "w", transport=rest.transport)

    def run(pipeline="azureml:finetune:3", dry_run=False, wait=False, **inputs):
        given = {"raw_data": {"type": "uri_folder", "path": DATA}, **inputs}
        given = {name: value for name, value in given.items() if value is not None}
        wanted = job.Wanted(f"retrain-{ID[:12]}", pipeline, given, {"decision_id": ID, "reasons": "accuracy"})
        place = azure_pipeline.Place("cpu-cluster", "slm-retraining")
        return azure_pipeline.start(connect, wanted, place, dry_run=dry_run, wait=wait)

    run.places = places
    return run


def puts(rest):
    return [(path, body) for method, path, body, _ in rest.calls if method == "PUT"]


def job(status, decision_id=ID, **more):
    properties = {
        "jobType": "Pipeline",
        "status": status,
        "tags": {"decision_id": decision_id},
        "settings": {},
        "jobs": {},
    }
    return {"id": JOB, "name": JOB.rpartition("/")[2], "type": "t", "properties": {**properties, **more}}


@pytest.mark.parametrize("pipeline", ["azureml:finetune:3", "finetune:3", "finetune@latest", "azureml:finetune@latest"])
def test_a_job_is_submitted(start, rest, pipeline):
    rest.resources[f"{WORKSPACE}/computes/cpu-cluster"] = {"id": "c", "name": "cpu-cluster", "properties": {}}
    outcome = start(pipeline, seed=7)
    assert outcome.started
    assert outcome.url.startswith(f"https://ml.azure.com/runs/retrain-{ID[:12]}?")
    ((path, body),) = puts(rest)
    assert path == JOB
    properties = body["properties"]
    assert properties["componentId"] == f"{VERSIONS}/3"
    assert properties["experimentName"] == "slm-retraining"
    assert properties["tags"] == {"decision_id": ID, "reasons": "accuracy"}
    assert properties["settings"]["default_compute"] == f"{WORKSPACE}/computes/cpu-cluster"
    assert properties["inputs"] == {
        "raw_data": {"jobInputType": "uri_folder", "uri": DATA},
        "seed": {"jobInputType": "literal", "value": "7"},
    }


def test_dry_run_checks_and_submits_nothing(start, rest):
    outcome = start(dry_run=True)
    assert (outcome.started, outcome.status, puts(rest)) == (False, None, [])
    with pytest.raises(UserError, match="no input 'sed'"):
        start(dry_run=True, sed=1)


def test_there_already(start, rest):
    rest.resources[JOB] = job("Running")
    outcome = start()
    assert (outcome.started, outcome.status, puts(rest)) == (False, "Running", [])
    rest.resources[JOB] = job("Running", decision_id=ID[:12] + "0" * 52)
    with pytest.raises(UserError, match="not for the decision") as error:
        start()
    assert error.value.exit_code == 8


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (409, {"code": "Conflict", "message": "conflict"}),
        (400, {"code": "UserError", "message": "A job with this name already exists. Use a different name."}),
    ],
)
def test_another_submitted_it_at_the_same_moment(start, rest, status, error):
    def refuse(method, path, body):
        if method == "PUT" and path == JOB:
            rest.resources[JOB] = job("Preparing")
            return status, error

    rest.refuse = refuse
    outcome = start()
    assert (outcome.started, outcome.status) == (False, "Preparing")


def test_waiting_for_its_end(start, rest, monkeypatch):
    from azure.ai.ml.operations import JobOperations

    folders = []

    def download(self, name, *, download_path, output_name):
        folders.append(download_path)
        (download_path / output_name).mkdir()
        (download_path / output_name / "endpoint").write_text("rolled")

    monkeypatch.setattr(JobOperations, "download", download)
    states = ["Running", "Finalizing", "Completed"]
    outputs = {"endpoint": {"jobOutputType": "uri_file"}}

    def later(method, path, body):
        if method == "GET" and path == JOB and JOB in rest.resources:
            rest.resources[JOB] = job(states.pop(0) if len(states) > 1 else states[0], outputs=outputs)

    rest.refuse = later
    outcome = start(wait=True)
    assert (outcome.started, outcome.status, outcome.endpoint) == (True, "Completed", b"rolled")
    assert [folder.exists() for folder in folders] == [False]
    rest.resources[JOB], states[:] = job("Running"), ["Failed"]
    with pytest.raises(UserError, match=r"ended as Failed; see https://ml\.azure\.com/runs/") as error:
        start(wait=True)
    assert error.value.exit_code == 6


def answered(kind, status):
    error = kind("lost")
    error.status_code = status
    return error


@pytest.fixture
def looks(start, rest, monkeypatch):
    """What the looks at the running job give, in their order; the last one again and again."""
    from azure.ai.ml.operations import JobOperations

    rest.resources[JOB] = job("Running")
    get, answers = JobOperations.get, []

    def look(self, name):
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        rest.resources[JOB] = job(answer)
        return get(self, name)

    monkeypatch.setattr(JobOperations, "get", look)
    return answers


def test_an_answer_that_is_lost_while_waiting_is_asked_for_again(start, looks, capsys):
    lost = [
        exceptions.ServiceRequestError("no route"),
        exceptions.ServiceResponseError("reset"),
        answered(exceptions.ClientAuthenticationError, None),
        answered(exceptions.HttpResponseError, None),
        answered(exceptions.HttpResponseError, 503),
        answered(exceptions.DecodeError, 200),
    ]
    looks += ["Running", *lost, "Running", lost[0], "Completed"]
    assert start(wait=True).status == "Completed"
    name = JOB.rpartition("/")[2]
    assert capsys.readouterr().err == f"{name}: Azure ML: no route; trying again\n" * 2


def test_without_an_answer_for_minutes_it_says_that_the_job_goes_on(start, looks, monkeypatch):
    monkeypatch.setattr(importlib.import_module("azure_pipeline"), "PATIENCE_SECONDS", 0.01, raising=False)
    looks += ["Running", exceptions.ServiceRequestError("no route")]
    name = JOB.rpartition("/")[2]
    said = rf"no route; {name} goes on: see https://ml\.azure\.com/runs/{name}\S+, or start this step again"
    with pytest.raises(UserError, match=said) as error:
        start(wait=True)
    assert error.value.exit_code == 8


@pytest.mark.parametrize(
    ("kind", "status"), [(exceptions.HttpResponseError, 403), (exceptions.ResourceNotFoundError, None)]
)
def test_a_refusal_while_waiting_is_not_repeated(start, looks, kind, status):
    looks += ["Running", answered(kind, status), "Completed"]
    with pytest.raises(UserError, match="Azure ML: lost"):
        start(wait=True)
    assert looks == ["Completed"]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"sed": 1}, "no input 'sed'; it has: raw_data, seed, note"),
        ({"raw_data": None}, "needs the input 'raw_data'"),
        ({"raw_data": "text"}, "is of type uri_folder"),
        ({"seed": {"type": "uri_file", "path": DATA}}, "is of type integer"),
        ({"raw_data": {"type": "uri_folder", "path": "/mnt/azureml/data"}}, "is not in Azure"),
    ],
)
def test_inputs_that_do_not_fit(start, rest, inputs, said):
    with pytest.raises(UserError, match=said) as error:
        start(**inputs)
    assert (error.value.exit_code, puts(rest)) == (4, [])


def test_pipelines_that_are_none(start, rest):
    for pipeline in ("pipelines/jobs/demo.yml", "finetune", "azureml:finetune", "azureml://datastores/d/paths/p", ""):
        with pytest.raises(UserError, match="write azureml:NAME:VERSION"):
            start(pipeline)
    with pytest.raises(UserError, match="not registered"):
        start("azureml:finetune:4")
    rest.resources[f"{VERSIONS}/3"] = component(kind="command")
    with pytest.raises(UserError, match="a command component"):
        start()


def test_a_pipeline_of_a_registry(start, rest):
    start("azureml://registries/team/components/finetune/versions/3", dry_run=True)
    assert start.places == [None, "team"]


def test_a_refusal_is_one_line_without_a_token(start, rest):
    message = f"AuthorizationFailed:\n the client may not; Bearer {SignedIn.token} {'and so on' * 100}"
    rest.refuse = lambda method, path, body: (
        (403, {"code": "Forbidden", "message": message}) if method == "PUT" else None
    )
    with pytest.raises(UserError, match=r" …; give .*AzureML Data Scientist") as error:
        start()
    assert "\n" not in str(error.value) and SignedIn.token not in str(error.value)
    assert error.value.exit_code == 8


def test_the_component_hands_all_on(load_main, rest, monkeypatch, tmp_path):
    """From the ports to the request, with fresh_data as the URI that the mode direct gives."""
    from azure.ai.ml import MLClient

    import model_registry

    main = load_main("trigger_retraining")
    client = MLClient(SignedIn(), "s", "g", "w", transport=rest.transport)
    monkeypatch.setattr(model_registry, "workspace_client", lambda registry_name=None: client)
    (tmp_path / "decision").write_text(json.dumps(decision()))
    paths = {name: tmp_path / name for name in ("decision", "receipt", "current_endpoint")}
    flags = {"target": "azure", "pipeline": "finetune@latest", "fresh_data_input": "raw_data", "dry_run": False}
    main.run(main.Args(**paths, **flags, fresh_data=Path(DATA)))
    ((path, body),) = puts(rest)
    assert path.endswith(f"/jobs/retrain-{decision()['decision_id'][:12]}")
    assert body["properties"]["inputs"]["raw_data"]["uri"] == DATA
    receipt = json.loads((tmp_path / "receipt").read_text())
    assert receipt["started"] and receipt["job_name"] == path.rpartition("/")[2]
    assert receipt["url"].startswith("https://ml.azure.com/")
