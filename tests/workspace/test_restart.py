"""Jobs of a workspace that is killed, restarted, flooded, and asked to cancel: none is lost, none runs twice."""

import concurrent.futures
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from azure.ai.ml import load_job

from localml.workspace import job_process, settings
from localml.workspace.resource_store import ResourceStore
from localml.workspace.workspace_api import SCOPE

JOB = Path(__file__).resolve().parent / "count_job" / "job.yml"
ENDED = ("Completed", "Failed", "Canceled")


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


@pytest.fixture(scope="module")
def store(workspace) -> ResourceStore:
    return ResourceStore(settings.database(workspace.root))


@pytest.fixture(scope="module")
def call(workspace) -> Callable[..., requests.Response]:
    """The API without a client, which is quicker for many calls."""
    known, root = settings.read(workspace.root), workspace.root
    address = {"resource": known.url}
    header = {"X-IDENTITY-HEADER": known.secret}
    authority = str(settings.authority(root))
    token = requests.get(f"{known.url}/identity/token", address, headers=header, verify=authority, timeout=30).json()
    signed = {"Authorization": f"Bearer {token['access_token']}"}

    def answer(method: str, path: str, body: Any = None, **query: str) -> requests.Response:
        url = path if path.startswith("https") else f"{known.url}{SCOPE}/jobs{path}"
        return requests.request(method, url, params=query, json=body, headers=signed, verify=authority, timeout=60)

    return answer


@pytest.fixture
def never(tmp_path) -> Iterator[Path]:
    """What steps wait for that are to be killed; should the test fail they end by themselves."""
    yield tmp_path / "never"
    for name in ("waits-1", "waits-2"):
        (tmp_path / f"never-{name}").touch()


def status(store: ResourceStore, name: str) -> str:
    return store.get("jobs", name)["properties"]["status"]


def step_processes(file: Path) -> list[psutil.Process]:
    """The processes of steps that wait for files whose names begin with this one's."""
    running = ((process, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return [process for process, command in running if any(part.startswith(f"{file}-") for part in command)]


@pytest.mark.slow
def test_kills_and_cancels_lose_nothing_and_run_nothing_twice(workspace, store, call, never):
    client = workspace.client()
    for name in ("waits-1", "waits-2"):
        job = load_job(JOB, params_override=[{"name": name, "inputs.wait_for": f"{never}-{name}"}])
        client.jobs.create_or_update(job)
    for name in ("waits-1", "waits-2"):
        until(lambda name=name: store.get("steps", name, "count_words"))
    until(lambda: len(step_processes(never)) == 2)

    # the workspace is killed while two jobs run, and comes back once, with one job at a time
    service = psutil.Process(settings.read(workspace.root).pid)
    (azurite,) = (process for process in service.children() if "--blobPort" in process.cmdline())
    service.send_signal(signal.SIGKILL)
    psutil.wait_procs([service])
    assert azurite.is_running()  # for the jobs
    before = {name: store.get("runs", name)["properties"]["process"] for name in ("waits-1", "waits-2")}
    with concurrent.futures.ThreadPoolExecutor(2) as several:
        said = [each.stdout for each in several.map(workspace.script, ["up"] * 2, ["--jobs"] * 2, ["1"] * 2)]
    assert sorted("runs already" in each for each in said) == [False, True]
    assert not azurite.is_running()
    service = psutil.Process(settings.read(workspace.root).pid)
    (azurite,) = (process for process in service.children() if "--blobPort" in process.cmdline())
    azurite.kill()
    assert {name: store.get("runs", name)["properties"]["process"] for name in before} == before
    assert len(step_processes(never)) == 2

    # 50 submissions at once, each of them twice, are 50 jobs that wait for a place
    body = {"properties": store.get("submissions", "waits-1")}
    names = [f"many-{number}" for number in range(50)]
    with concurrent.futures.ThreadPoolExecutor(10) as several:
        answers = list(several.map(lambda name: call("PUT", f"/{name}", body).status_code, names * 2))
    assert answers == [201] * 100
    first = call("GET", "", **{"$skip": ""}).json()
    listed = [each["name"] for each in first["value"]]
    while "nextLink" in first:
        first = call("GET", first["nextLink"]).json()
        listed += [each["name"] for each in first["value"]]
    assert sorted(name for name in listed if name.startswith("many-")) == sorted(names)
    other = {"properties": body["properties"] | {"experimentName": "another"}}
    refused = call("PUT", "/many-7", other)
    assert refused.status_code == 409
    assert "experimentName" in refused.json()["error"]["message"]

    # what waits is canceled at once, without having begun
    for name in names:
        assert call("POST", f"/{name}/cancel").status_code == 200
    assert {status(store, name) for name in names} == {"Canceled"}
    assert not any(store.get("runs", name)["properties"].get("process") for name in names)

    # one that runs ends its step; one that is killed has failed, and leaves no step behind
    until(lambda: [each for each in service.children() if each != azurite and "--blobPort" in each.cmdline()])
    client.jobs.begin_cancel("waits-1").result()
    os.kill(before["waits-2"]["pid"], signal.SIGKILL)
    until(lambda: status(store, "waits-1") in ENDED and status(store, "waits-2") in ENDED)
    assert (status(store, "waits-1"), status(store, "waits-2")) == ("Canceled", "Failed")
    assert [store.get("steps", name, "count_words")["status"] for name in before] == ["Canceled", "Failed"]
    until(lambda: not step_processes(never))
    details = client.jobs._runs_operations.get_run_details("waits-2")
    assert "killed" in json.dumps(details.error.as_dict())
    assert call("DELETE", "/waits-2").status_code == 200
    assert call("GET", "/waits-2").status_code == 404


def test_a_job_is_taken_by_one_process_only(tmp_path):
    store = ResourceStore(tmp_path / "workspace.db")
    store.add("jobs", "one", "", {"properties": {"status": "NotStarted"}})
    store.add("runs", "one", "", {"properties": {}})
    assert [job_process._take(store, "one") for _ in range(3)] == [True, False, False]
    assert store.get("runs", "one")["properties"]["process"]["pid"] == os.getpid()


@pytest.mark.parametrize("name", ["..", "a b", "-a", "a" * 256, "a.b"])
def test_a_name_that_is_none(call, name):
    answer = call("PUT", f"/{name.replace('.', '%2e')}", {"properties": {"jobType": "Pipeline"}})
    assert answer.status_code in (400, 404, 501)


def test_a_transaction_that_fails_leaves_nothing(tmp_path):
    store = ResourceStore(tmp_path / "workspace.db")
    with pytest.raises(KeyError), store.transaction():
        store.add("jobs", "one", "", {})
        with store.transaction():
            store.add("runs", "one", "", {})
        raise KeyError
    assert store.all("jobs") == store.all("runs") == []
