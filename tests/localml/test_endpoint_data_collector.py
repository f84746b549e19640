"""The data collector of the local endpoints: what it logs of real requests, read back by collect_traffic."""

import asyncio
import concurrent.futures
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from localml.assets import Assets
from localml.endpoints.contract import DataCollector
from localml.endpoints.request_log import RequestLog
from localml.errors import RunError
from tests.localml.test_endpoint import Hosted, until

SERVER = Path(__file__).parents[1] / "components" / "breakable_server.py"
COLLECTS = {"collections": {"request": {"enabled": "true"}, "response": {"enabled": "True"}}, "sampling_rate": 1.0}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """An endpoint whose blue answers, and whose green gets a copy of each second request; red says nothing of logs."""
    host = Hosted(tmp_path_factory.mktemp("shop"))
    host.breaks = host.root / "breaks"
    server = {"kind": "command", "command": [sys.executable, str(SERVER), "--port", "{port}"]}
    body = {"server": server, "environment_variables": {"BREAKS": str(host.breaks)}, "data_collector": COLLECTS}
    host.endpoint("shop", blue=body, green=body)
    host.call("PUT", "/shop/deployments/red", host.body(server={"kind": "command", "command": ["false"]}))
    host.call("PUT", "/shop/traffic", {"traffic": {"blue": 100}, "mirror_traffic": {"green": 50}})
    yield host
    host.close()


def chat(text, **more):
    return {"model": "slm", "messages": [{"role": "user", "content": text}], **more}


def rows(folder, collection):
    files = sorted(folder.rglob(f"{collection}/*/*/*/*/*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def test_what_is_asked_and_answered_is_logged_and_collected(shop, run_component, tmp_path):
    folder = shop.root / "datastores" / "workspaceblobstore" / "modelDataCollector" / "shop"
    assert sorted(path.name for path in folder.iterdir()) == ["blue", "green"]  # red is off
    ids = {"x-request-id": "order-7"}
    assert shop.ask("shop", chat("電話は090-1234-5678です"), ids)[0] == 200
    streamed = shop.ask("shop", chat("네 알겠습니다", stream=True), path="/score")
    assert streamed[2].endswith("data: [DONE]\n\n")
    shop.breaks.write_text("500")
    assert shop.ask("shop", chat("Does it work?"))[0] == 500
    shop.breaks.unlink()
    assert shop.ask("shop", b"\xff{")[0] == 400
    until(lambda: len(rows(folder / "blue", "response")) == 4)
    assert until(lambda: shop.metrics("shop", "green")["mirrored"]["num_requests"]) == 2
    assert rows(folder / "green", "request") == []  # copies are nobody's traffic

    requests, responses = (rows(folder / "blue", name) for name in ("request", "response"))
    assert [row["correlationid"] for row in requests] == [row["correlationid"] for row in responses]
    assert {row["source"] for row in requests + responses} == {"/onlineEndpoints/shop/deployments/blue"}
    assert len({row["id"] for row in requests + responses}) == 8
    first = requests[0]
    assert (first["specversion"], first["type"], first["method"]) == ("1.0", "azureml.inference.request", "POST")
    assert (first["path"], first["xrequestid"]) == ("/v1/chat/completions", "order-7")
    body = json.dumps(chat("電話は090-1234-5678です"))
    assert (first["data"], first["contentrange"]) == (json.loads(body), f"bytes 0-{len(body) - 1}/{len(body)}")
    assert requests[3]["data_base64"] == "/3s="
    assert [row["statuscode"] for row in responses] == [200, 200, 500, 400]
    assert responses[1]["data"] == streamed[2]
    hours = {file.parent.relative_to(folder / "blue").as_posix() for file in folder.rglob("*.jsonl")}
    moments = {row["time"][:13].replace("-", "/").replace("T", "/") for row in requests}
    assert {f"request/{moment}" for moment in moments} <= hours
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*.jsonl")} == {0o600}

    said = json.loads((shop.root / "endpoints" / "host.json").read_text())["data_collector"]
    endpoint = tmp_path / "endpoint.json"
    endpoint.write_text(json.dumps({"name": "shop", "collected_traffic": f"{said}/shop"}))
    outputs = {name: tmp_path / name for name in ("records", "window", "quarantine")}
    done = run_component("collect_traffic", endpoint=endpoint, max_error_fraction=0.5, **outputs)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in outputs["records"].read_text("utf-8").splitlines()]
    assert [(row["messages"][0]["content"], row["output"], row["status"], row["language"]) for row in found] == [
        ("電話は<PHONE_NUMBER>です", "はい 네", 200, "ja"),
        ("네 알겠습니다", "はい 네", 200, "ko"),
        ("Does it work?", None, 500, "en"),
    ]
    assert found[0]["prompt_tokens"] == len("電話は090-1234-5678です".encode())
    assert found[1]["latency_ms"] >= 100  # two pauses of the stream
    assert {(row["endpoint"], row["deployment"]) for row in found} == {("shop", "blue")}
    window = json.loads(outputs["window"].read_text("utf-8"))
    assert (window["status"], window["num_rows"], window["num_unusable"]) == ("ok", 3, 1)


def test_what_the_control_api_refuses_of_a_data_collector(shop):
    for wrong, said in (
        ({"collections": {"model_inputs": {"enabled": "true"}}}, "data_collector.collections.model_inputs"),
        ({"collections": {}}, "data_collector.collections"),
        ({**COLLECTS, "sampling_rate": 1.5}, "data_collector.sampling_rate"),
        ({"collections": {"request": {"enabled": "maybe"}}}, "data_collector.collections.request.enabled"),
    ):
        refused = shop.refused("PUT", "/shop/deployments/other", shop.body(data_collector=wrong))
        assert refused.status == 400 and said in str(refused)


class SlowWriter(concurrent.futures.Executor):
    """A disk that writes when it is told to."""

    def __init__(self):
        self.waiting = []

    def submit(self, function, *args):
        self.waiting.append((future := concurrent.futures.Future(), function, args))
        return future

    def write(self):
        for future, function, args in self.waiting:
            future.set_result(function(*args))


def test_memory_is_bounded_and_a_long_body_is_cut(tmp_path, monkeypatch, caplog):
    """4 MiB of a body are kept, 64 MiB of all: the 17th request finds no room until the disk has caught up."""

    async def scenario():
        log = RequestLog(tmp_path, "shop", "blue", DataCollector.model_validate(COLLECTS))
        await asyncio.to_thread(log._writer.shutdown)
        log._writer = writer = SlowWriter()
        body = b"x" * (4 * 2**20)
        exchanges = [log.begin("/score", "text/plain", None, body + b"yz") for _ in range(17)]
        assert exchanges.pop() is None
        assert None not in exchanges
        exchanges[0].response.add(b"late")  # no room either
        exchanges[0].end(200)
        assert log.begin("/score", "text/plain", None, b"{}") is None
        writer.write()
        await asyncio.sleep(0)
        assert log.begin("/score", "text/plain", None, b"{}") is not None

    asyncio.run(scenario())
    ((request,), (response,)) = (rows(tmp_path / "shop" / "blue", name) for name in ("request", "response"))
    assert request["contentrange"] == f"bytes 0-{4 * 2**20 - 1}/{4 * 2**20 + 2}"
    assert len(request["data"]) == 4 * 2**20
    assert (response["data"], response["contentrange"]) == ("", "bytes 0-0/4")
    assert "no room for a request in the log" in caplog.text


def test_a_sample_and_a_disk_that_is_full(tmp_path, monkeypatch, caplog):
    """A line is there as a whole or not at all, and what it belongs to goes on."""
    settings = DataCollector.model_validate({"collections": {"request": {"enabled": True}}, "sampling_rate": 0.5})

    async def ask(num):
        log = RequestLog(tmp_path, "shop", "blue", settings)
        for _ in range(num):
            if exchange := log.begin("/score", "application/json", None, b'{"half": "\\ud800"}'):
                exchange.end(200)
        await log.close()

    asyncio.run(ask(200))
    kept = rows(tmp_path / "shop" / "blue", "request")
    assert 60 < len(kept) < 140  # five standard deviations
    assert kept[0]["data"] == {"half": "\ud800"}
    assert rows(tmp_path / "shop" / "blue", "response") == []

    write = os.write

    def half(file, line):
        if not line.startswith(b'{"specversion"'):
            raise OSError(28, "No space left on device")
        return write(file, line[:10])

    monkeypatch.setattr(os, "write", half)
    asyncio.run(ask(20))
    assert rows(tmp_path / "shop" / "blue", "request") == kept
    assert "a request was not logged: [Errno 28] No space left on device" in caplog.text


def test_what_json_cannot_say_again_does_not_spoil_the_log(tmp_path, caplog):
    async def ask():
        log = RequestLog(tmp_path, "shop", "blue", DataCollector.model_validate(COLLECTS))
        for body in (b'{"temperature": 1e999}', b'{"temperature": NaN}', b'{"temperature": 0.5}'):
            log.begin("/score", "application/json", None, body).end(400)
        for depth in range(880, 1000):  # some are read, but not written again
            log.begin("/score", "application/json", None, b"[" * depth + b"]" * depth).end(400)
        await log.close()

    asyncio.run(ask())
    (file,) = (tmp_path / "shop" / "blue").rglob("request/**/*.jsonl")
    written = file.read_text("utf-8").splitlines()
    assert [json.loads(row)["data"] for row in written[:3]] == [
        '{"temperature": 1e999}',
        '{"temperature": NaN}',
        {"temperature": 0.5},
    ]
    assert len(written) + caplog.text.count("a request was not logged") == 123


def test_the_datastore_of_the_workspace_is_below_the_root(tmp_path):
    root, registry = tmp_path / "root", tmp_path / "assets.yml"
    here = root / "datastores" / "workspaceblobstore" / "modelDataCollector" / "shop"
    reference = "azureml://datastores/workspaceblobstore/paths/modelDataCollector/shop"
    for folder in (here, tmp_path / "elsewhere" / "shop"):
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_text("{}")
    assert Assets(tmp_path, registry, root).resolve("x", reference) == here
    with pytest.raises(RunError, match="is not on this machine"):
        Assets(tmp_path, registry, root).resolve("x", reference.replace("modelDataCollector/shop", "../../.."))
    with pytest.raises(RunError, match="no file or folder at"):
        Assets(tmp_path, registry, root).resolve("x", f"{reference}s")
    registry.write_text("azureml://datastores/workspaceblobstore/paths/modelDataCollector: elsewhere\n")
    assert Assets(tmp_path, registry, root).resolve("x", reference) == tmp_path / "elsewhere" / "shop"
