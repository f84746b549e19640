"""The parts of the local workspace one by one, in this process: files of jobs, refusals, logs, certificates, locks."""

import contextlib
import datetime
import fcntl
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from azure.core.exceptions import ServiceRequestError

import workspace as script
from localml.errors import RunError
from localml.workspace import (
    blobs,
    certificates,
    endpoints_api,
    job_logs,
    job_process,
    registered_models,
    settings,
    studio,
    workspace_api,
)
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


class SomeBlobs:
    """A blob store in which a path without an ending is a folder; each file says where it is from and which it is."""

    def __init__(self) -> None:
        self.num_downloads = 0
        self.breaks = False

    def download(self, container: str, path: str, target: Path) -> Path:
        self.num_downloads += 1
        top = target / Path(path).name
        for name in ("",) if top.suffix else ("a.txt", "b.txt"):
            (file := top / name if name else top).parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{container}/{path} {self.num_downloads}")
            if self.breaks:
                raise ServiceRequestError("connection reset")
        return top


@pytest.fixture
def store(tmp_path) -> ResourceStore:
    return ResourceStore(settings.database(tmp_path))


@pytest.fixture
def jobs(store, tmp_path) -> Jobs:
    return Jobs(store, tmp_path, SimpleNamespace(address=lambda name: name), {}, at_once=2)


@pytest.fixture
def files(store, tmp_path) -> JobFiles:
    return JobFiles(store, SomeBlobs(), tmp_path, tmp_path)


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
    assert files.local_data(read("workspaceblobstore")).read_text() == "azureml-blobstore/a/b.txt 1"
    assert files.local_data(read("workspaceartifactstore")).read_text() == "azureml/a/b.txt 2"
    with pytest.raises(RunError, match="datastore raw_data is not on this machine"):
        files.local_data(read("raw_data"))
    with pytest.raises(RunError, match="leads out"):
        files.local_data("azureml://datastores/workspaceblobstore/paths/../../../a.txt")


def test_what_is_brought_once_stays_as_it_is(files):
    """A server has it open, and a deployment is put again for a change of its count."""
    read = "azureml://datastores/workspaceblobstore/paths/{}".format
    files._blobs.breaks = True
    with pytest.raises(ServiceRequestError):
        files.local_data(read("models/one"))
    files._blobs.breaks = False
    folder = files.local_data(read("models/one"))
    before = {file.name: (file.stat().st_ino, file.read_text()) for file in folder.iterdir()}
    assert before.keys() == {"a.txt", "b.txt"}
    assert files.local_data(read("models/one/")) == folder
    assert {file.name: (file.stat().st_ino, file.read_text()) for file in folder.iterdir()} == before


def test_a_file_does_not_stand_for_the_folder_that_it_is_in(files):
    read = "azureml://datastores/workspaceblobstore/paths/{}".format
    assert files.local_data(read("models/one/a.txt")).name == "a.txt"
    assert len(list(files.local_data(read("models/one")).iterdir())) == 2


def test_what_the_endpoints_of_this_machine_collect_is_found(files, tmp_path):
    """They write files, as those of local runs do, where Azure ML's data collector writes blobs."""
    folder = tmp_path / "datastores" / "workspaceblobstore" / "modelDataCollector" / "e"
    folder.mkdir(parents=True)
    assert files.local_data("azureml://datastores/workspaceblobstore/paths/modelDataCollector/e/") == folder
    with pytest.raises(RunError, match="leads out"):
        files.local_data("azureml://datastores/workspaceblobstore/paths/../workspaceblobstore/modelDataCollector/../a")


def test_data_and_models_of_registries_are_inputs(store, files):
    model = add(store, f"{REGISTRY}/models/slm/versions/3", modelUri=f"{BLOB}/c0ffee/weights")
    assert (files.local_data(model) / "a.txt").read_text() == "c0ffee/weights 1"
    data = add(store, f"{REGISTRY}/data/texts/versions/1", dataUri=f"{BLOB}/feed/a/b.jsonl?sig=1")
    assert files.local_data(data).read_text() == "feed/a/b.jsonl 2"
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


@pytest.mark.parametrize("content", ["{", '{"port": 1}', "[]"])
def test_damaged_settings_are_not_replaced_and_their_service_is_stopped(tmp_path, capsys, content):
    known = settings.ensure(tmp_path)
    assert settings.ensure(tmp_path) == known
    file = settings.folder(tmp_path) / "settings.json"
    file.write_text(content)
    for refused in (lambda: settings.ensure(tmp_path), lambda: script.running(tmp_path)):
        with pytest.raises(RunError, match=r"settings\.json: .*`workspace.py down` and remove it"):
            refused()
    assert file.read_text() == content
    (tmp_path / "localml.workspace.service").write_text("import time; print('ready', flush=True); time.sleep(60)")
    command = [sys.executable, "localml.workspace.service", str(tmp_path), "2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as service:
        try:
            service.stdout.readline()
            assert script.main(["--root", str(tmp_path), "down"]) == 0
            service.wait(10)
        finally:
            service.kill()
    assert capsys.readouterr().out == "stopped\n"
    file.unlink()
    assert settings.ensure(tmp_path).secret != known.secret


NPM = """#!{python}
import pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--prefix") + 1])
main = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
main.parent.mkdir(parents=True)
main.touch()
{then}
"""
HANG = """child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({pid!r}).write_text(str(child.pid))
child.wait()"""


def test_azurite_is_installed_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()

    def npm(then: str) -> None:
        for name, content in (("npm", NPM.format(python=sys.executable, then=then)), ("node", "#!/bin/sh")):
            (tmp_path / "bin" / name).write_text(content)
            (tmp_path / "bin" / name).chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(blobs, "_INSTALL_SECONDS", 3.0)
    root, pid = tmp_path / "root", tmp_path / "pid"
    npm("sys.exit('no network')")
    for _ in range(2):
        with pytest.raises(RunError, match=r"npm could not install azurite@.*: no network"):
            blobs.azurite_command(root)
    npm(HANG.format(pid=str(pid)))
    with pytest.raises(RunError, match=r"did not install azurite@.* within 3 s; .*npm install -g azurite@"):
        blobs.azurite_command(root)
    with contextlib.suppress(psutil.NoSuchProcess):  # its end may wait to be noticed
        assert psutil.Process(int(pid.read_text())).status() == psutil.STATUS_ZOMBIE
    (root / "npm" / "node_modules").mkdir(parents=True)  # of an install that was cut, before it was done in one go
    npm("")
    _, made = blobs.azurite_command(root)
    assert Path(made).is_file()
    assert Path(made).is_relative_to(root / "npm")
    npm("sys.exit('again')")
    assert blobs.azurite_command(root)[1] == made


@pytest.mark.parametrize("failure", [RunError("it ended at once"), TimeoutError("timed out")])
def test_a_host_that_fails_is_an_error_of_the_service(tmp_path, monkeypatch, failure):
    def fail(*_):
        raise failure

    monkeypatch.setattr(endpoints_api.endpoint_host, "running_host", fail)
    with pytest.raises(ArmError, match=f"The host of the online endpoints failed: {failure}") as refused:
        endpoints_api.OnlineEndpoints(None, None, tmp_path, "secret").host("GET", "/onlineEndpoints/words")
    assert refused.value.status == 503


def test_a_badge_has_the_color_of_its_state():
    """Of two rules of one weight the later one counts."""
    shades = [state for state in ("s{", "Completed{", "Failed{", "Canceled,") if f".{state}" in studio._STYLE]
    assert sorted(shades, key=lambda state: studio._STYLE.rindex(f".{state}"))[0] == "s{"
    assert len(shades) == 4


def test_models_below_a_folder_with_any_letter_are_published(store, tmp_path):
    root = tmp_path / "my 日本語"
    (root / "model").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as registry:
        registry.execute("CREATE TABLE model_versions (name, version, source, description, current_stage)")
        registry.execute("CREATE TABLE model_version_tags (name, version, key, value)")
        row = ("slm", 1, (root / "model").as_uri(), None, "None")
        registry.execute("INSERT INTO model_versions VALUES (?, ?, ?, ?, ?)", row)
        registry.commit()
    uploaded = []
    registered_models.publish(root, store, SimpleNamespace(upload=lambda *given: uploaded.append(given)))
    assert uploaded == [(root / "model", "azureml-blobstore", "models/slm/1")]
    assert store.get("models", "slm", "1")["properties"]["modelType"] == "custom_model"


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
