"""The parts of the local workspace one by one, in this process: files of jobs, refusals, logs, certificates, locks."""

import datetime
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from azure.core.exceptions import ServiceRequestError

import workspace as script
from localml.errors import RunError
from localml.workspace import certificates, job_logs, job_process, settings, workspace_api
from localml.workspace.arm import ArmError, Place
from localml.workspace.assets_api import Assets
from localml.workspace.identity import Identity
from localml.workspace.job_files import JobFiles, named
from localml.workspace.jobs import Jobs
from localml.workspace.resource_store import ResourceStore
from localml.workspace.service import Service
from localml.workspace.workspace_api import SCOPE

PLACE = Place.of(f"{SCOPE}/jobs/one")
REGISTRY = "azureml://registries/shared"
BLOB = "https://127.0.0.1:1/localworkspace"


@pytest.fixture(scope="session", autouse=True)
def workspace():
    """None runs for these tests."""


@pytest.fixture(autouse=True)
def _environment():
    pass


@pytest.fixture
def store(tmp_path) -> ResourceStore:
    return ResourceStore(settings.database(tmp_path))


@pytest.fixture
def jobs(store, tmp_path) -> Jobs:
    return Jobs(store, tmp_path, SimpleNamespace(address=lambda name: name), {})


@pytest.fixture
def files(store, tmp_path) -> JobFiles:
    blobs = SimpleNamespace(download=lambda container, path, target: (container, path, target.relative_to(tmp_path)))
    return JobFiles(store, blobs, tmp_path, tmp_path)


def add(store: ResourceStore, resource_id: str, **properties) -> str:
    store.add(*Place.of(resource_id).key, {"properties": properties})
    return resource_id


def test_environments_of_one_version_keep_their_own_packages(store, files, tmp_path):
    (tmp_path / "components").mkdir()
    conda = {}
    for place in (f"{SCOPE}/environments/data", f"{SCOPE}/environments/train", f"{REGISTRY}/environments/data"):
        made = files._environment(add(store, f"{place}/versions/1", image="image", condaFile=f"name: {place}"))
        conda[place] = made["conda_file"]
    assert {place: Path(path).read_text() for place, path in conda.items()} == {
        place: f"name: {place}" for place in conda
    }
    with pytest.raises(RunError, match="environments/absent/versions/1 is not in registry shared"):
        files._environment(f"{REGISTRY}/environments/absent/versions/1")


def test_data_come_from_the_store_that_is_named(store, files):
    read = "azureml://datastores/{}/paths/a/b.txt".format
    assert files.local_data(read("workspaceblobstore"))[:2] == ("azureml-blobstore", "a/b.txt")
    assert files.local_data(read("workspaceartifactstore"))[:2] == ("azureml", "a/b.txt")
    with pytest.raises(RunError, match="datastore raw_data is not on this machine"):
        files.local_data(read("raw_data"))
    with pytest.raises(RunError, match="leads out"):
        files.local_data("azureml://datastores/workspaceblobstore/paths/../../../a.txt")


def test_what_the_endpoints_of_this_machine_collect_is_found(files, tmp_path):
    """They write files, as those of local runs do, where Azure ML's data collector writes blobs."""
    folder = tmp_path / "datastores" / "workspaceblobstore" / "modelDataCollector" / "e"
    folder.mkdir(parents=True)
    assert files.local_data("azureml://datastores/workspaceblobstore/paths/modelDataCollector/e/") == folder
    with pytest.raises(RunError, match="leads out"):
        files.local_data("azureml://datastores/workspaceblobstore/paths/../workspaceblobstore/modelDataCollector/../a")


def test_data_and_models_of_registries_are_inputs(store, files):
    model = add(store, f"{REGISTRY}/models/slm/versions/3", modelUri=f"{BLOB}/c0ffee/weights")
    assert files.local_data(model)[:2] == ("c0ffee", "weights")
    data = add(store, f"{REGISTRY}/data/texts/versions/1", dataUri=f"{BLOB}/feed/a/b.jsonl?sig=1")
    assert files.local_data(data)[:2] == ("feed", "a/b.jsonl")
    for absent in (f"{REGISTRY}/models/slm/versions/4", f"{REGISTRY}/models/slm/labels/latest"):
        with pytest.raises(RunError, match="is not in registry shared; register it as a version there"):
            files.local_data(absent)


def pipeline(**given):
    node = {"componentId": f"{SCOPE}/components/say/versions/1", "inputs": {}} | given.pop("node", {})
    return {"properties": {"jobType": "Pipeline", "jobs": {"say": node}} | given}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"inputs": {"model": {"uri": f"{REGISTRY}/models/slm/versions/4"}}}, "models slm:4, which is not in registry"),
        ({"node": {"inputs": {"text": {"uri": f"azureml:{SCOPE}/data/no/versions/1"}}}}, "data no:1, which is not in"),
        ({"node": {"componentId": f"{REGISTRY}/components/say/versions/2"}}, "components say:2, which is not in reg"),
        ({"node": {"inputs": {"word": {"value": "${{parent.inputs.word}}"}}}}, "does not send one that is null or an"),
    ],
)
def test_what_a_job_names_is_there(store, jobs, changed, said):
    add(store, f"{SCOPE}/components/say/versions/1")
    with pytest.raises(ArmError, match=said):
        jobs.submit(PLACE, "one", pipeline(**changed))
    assert not store.all("jobs")


def test_text_that_looks_like_an_id_names_no_component(store, jobs):
    text = "as /subscriptions/x/components/y/versions/z says"
    assert named({"description": text, "jobs": {"a": {"component": f"azureml:{SCOPE}/components/b/versions/1"}}}) == {
        Place.of(f"{SCOPE}/components/b/versions/1")
    }


def test_a_job_submitted_again_with_more_is_another_one(store, jobs):
    add(store, f"{SCOPE}/components/say/versions/1")
    made = jobs.submit(PLACE, "one", pipeline())
    read_back = {"properties": made["properties"] | {"tags": {"a": "b"}}}
    assert jobs.submit(PLACE, "one", read_back)["properties"]["tags"] == {"a": "b"}
    with pytest.raises(ArmError, match="another one \\(inputs\\)"):
        jobs.submit(PLACE, "one", pipeline(inputs={"word": {"value": "hello"}}))


def test_a_cancellation_reaches_a_process_that_was_not_told(store, jobs):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        known = {"pid": process.pid, "created": script.psutil.Process(process.pid).create_time()}
        store.add("runs", "one", "", {"properties": {"process": known}})
        jobs._find_again("one", "CancelRequested")
        assert process.wait(10) < 0
        assert "one" in jobs._kill_at
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("served", "status"), [(True, "Failed"), (False, "Preparing")])
def test_a_job_whose_workspace_went_away_is_taken_up_by_the_next(store, tmp_path, monkeypatch, served, status):
    settings.ensure(tmp_path)
    store.add("jobs", "one", "", {"properties": {"status": "NotStarted"}})
    store.add("runs", "one", "", {"properties": {}})

    def gone(*_):
        raise ServiceRequestError("connection refused")

    monkeypatch.setattr(job_process, "_run", gone)
    monkeypatch.setattr(job_process.job_logs, "upload", lambda *_: None)
    monkeypatch.setattr(job_process.signal, "signal", lambda *_: None)
    with (settings.folder(tmp_path) / "service.lock").open("a") as lock:
        if served:
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert job_process.main(tmp_path, "one") == 1
    assert store.get("jobs", "one")["properties"]["status"] == status


@pytest.mark.parametrize("name", ["..", "a b", "-a", "a,b"])
def test_an_asset_without_a_proper_name_is_refused(store, name):
    place = Place(SCOPE, "local", in_registry=False, tail=("data", name, "versions", "1"))
    with pytest.raises(ArmError, match="is no name and version"):
        Assets(store, None).answer("PUT", place, {}, {"properties": {"dataUri": "x"}})


def test_what_a_progress_bar_prints_stays_in_the_log_of_its_step(tmp_path):
    folder = settings.folder(tmp_path) / "jobs" / "one"
    folder.mkdir(parents=True)
    (folder / "std_log.txt").write_bytes("▶ a running\n[a] 10%\r20%\x0cnew page\u2028\n✔ a finished".encode())
    assert job_logs.step_log(tmp_path, "one", "a") == "10%\r20%\x0cnew page\u2028\n"
    assert job_logs.execution_log(tmp_path, "one") == "▶ a running\n✔ a finished\n"


def test_a_certificate_of_a_clock_that_ran_ahead_is_made_anew(tmp_path, monkeypatch):
    later = SimpleNamespace(
        **{name: getattr(datetime, name) for name in ("UTC", "timedelta")},
        datetime=SimpleNamespace(now=lambda zone: datetime.datetime.now(zone) + datetime.timedelta(days=5)),
    )
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "datetime", later)
        certificate, *_ = certificates.ensure(tmp_path)
    first = certificate.read_bytes()
    certificates.ensure(tmp_path)
    second = certificate.read_bytes()
    certificates.ensure(tmp_path)
    assert first != second == certificate.read_bytes()


def test_the_secrets_are_for_their_owner_alone(tmp_path):
    settings.ensure(tmp_path)
    _, key, _ = certificates.ensure(settings.folder(tmp_path) / "tls")
    assert (settings.folder(tmp_path).stat().st_mode & 0o777, key.stat().st_mode & 0o777) == (0o700, 0o600)
    assert (settings.folder(tmp_path) / "settings.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("header", [None, "", "é", "no"])
def test_no_token_without_the_secret(header):
    with pytest.raises(ArmError) as refused:
        Identity("secret").issue(header, "any")
    assert refused.value.status == 401


def test_only_its_own_service_is_the_one_that_runs(tmp_path):
    (tmp_path / "localml.workspace.service").write_text("import time; print('ready', flush=True); time.sleep(60)")
    other = subprocess.Popen(
        [sys.executable, "localml.workspace.service", str(tmp_path / "another")], cwd=tmp_path, stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        for root in (tmp_path, tmp_path / "another"):
            settings.write(root, settings.Settings(1, 2, 3, "s", "k", 4, pid=other.pid))
        assert script.running(tmp_path) is None
        assert script.running(tmp_path / "another").pid == other.pid
    finally:
        other.kill()
        other.communicate()


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("DELETE", SCOPE, 403, "stays"),
        ("PUT", f"{SCOPE}-new", 403, "made on Azure"),
        ("GET", SCOPE.replace("resourceGroups/local", "resourceGroups/other"), 404, "resourceGroups/other was not"),
        ("GET", f"{SCOPE}-new", 404, "Workspace local-new was not found"),
    ],
)
def test_there_is_one_workspace_and_it_stays(method, path, status, said):
    service = Service.__new__(Service)
    with pytest.raises(ArmError, match=said) as refused:
        service._resource(method, Place.of(path), {}, None)
    assert refused.value.status == status


def test_workspaces_are_listed():
    known = settings.Settings(1, 2, 3, "s", "k", 4)
    for scope in (SCOPE, SCOPE.replace("/resourceGroups/local", "")):
        answer = workspace_api.listed("GET", scope.rpartition("/")[0], known)
        assert [each["name"] for each in answer["value"]] == ["local"]
    assert workspace_api.listed("GET", SCOPE, known) is None


def test_steps_of_a_job_know_their_workspace(tmp_path):
    found = settings.ensure(tmp_path).job_variables(tmp_path)
    assert {"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "ARM_CLOUD_METADATA_URL", "MLFLOW_TRACKING_TOKEN"} <= found.keys()
    assert found["AZUREML_ARM_WORKSPACE_NAME"] == "local"
    assert found["MLFLOW_TRACKING_TOKEN"] != found["IDENTITY_HEADER"]
    assert os.environ.get("IDENTITY_HEADER") != found["IDENTITY_HEADER"]
