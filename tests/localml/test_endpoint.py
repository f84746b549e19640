"""An endpoint host as a real process with real servers: traffic, failures, restarts, and nothing left over."""

import concurrent.futures
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from localml.endpoints import client

ROOT = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).with_name("endpoint_server.py")
PROBE = {"initial_delay": 0, "period": 0.2, "timeout": 1, "failure_threshold": 30}


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


class Hosted:
    """A host of its own root, with short ways to make and ask endpoints."""

    def __init__(self, root: Path) -> None:
        self.root, self.seen = root, []
        client.ensure_host(root)

    def call(self, method, path, body=None):
        return client.find_host(self.root).call(method, f"/onlineEndpoints{path}", body)

    def refused(self, method, path, body=None) -> client.CallError:
        with pytest.raises(client.CallError) as error:
            self.call(method, path, body)
        assert "\n" not in str(error.value)
        return error.value

    def endpoint(self, name, **deployments) -> "Hosted":
        """An endpoint whose first deployment has all traffic, when all of them are ready."""
        self.call("PUT", f"/{name}", {})
        for deployment, body in deployments.items():
            self.call("PUT", f"/{name}/deployments/{deployment}", self.body(**body))
        for deployment in deployments:
            found = self.settled(name, deployment)
            assert found["provisioning_state"] == "Succeeded", found
        self.call("PUT", f"/{name}/traffic", {"traffic": {next(iter(deployments)): 100}})
        return self

    def body(self, *flags, server=None, **more) -> dict:
        command = {"kind": "command", "command": ["python", str(SERVER), "{port}", *flags]}
        settings = {"request_timeout_ms": 10_000, "max_concurrent_requests_per_instance": 50, "max_queue_wait_ms": 2000}
        settings |= more.pop("settings", {})
        flags = more.pop("flags", [])
        command["command"] += flags
        base = {"server": server or command, "model": str(self.root), "liveness_probe": PROBE, "readiness_probe": PROBE}
        return {**base, "request_settings": settings, **more}

    def settled(self, name, deployment, seconds=20.0):
        def ended():
            found = self.call("GET", f"/{name}/deployments/{deployment}")
            self.seen += [instance["pid"] for instance in found["instances"] if instance["pid"]]
            return found["provisioning_state"] in ("Succeeded", "Failed") and found

        return until(ended, seconds)

    def ask(self, name, body=None, headers=None, path="/v1/chat/completions"):
        """Status, headers and text of the answer."""
        port = self.call("GET", f"/{name}")["port"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        raw = body if isinstance(body, bytes) else json.dumps(body or {})
        connection.request("POST", path, raw, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        try:
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def metrics(self, name, deployment):
        return self.call("GET", f"/{name}/metrics?seconds=60")["deployments"][deployment]

    def close(self):
        client.stop_host(self.root, 20)
        assert not client.is_hosted(self.root)
        assert (self.root / "endpoints" / "host.log").read_text() == ""
        assert not [pid for pid in self.seen if psutil.pid_exists(pid) and str(SERVER) in psutil.Process(pid).cmdline()]


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    host = Hosted(tmp_path_factory.mktemp("hosted"))
    yield host
    host.close()


@pytest.fixture(scope="module")
def demo(hosted):
    """Blue and green, two instances of blue."""
    return hosted.endpoint("demo", blue={"instance_count": 2}, green={})


def pids(hosted, name, deployment):
    return [i["pid"] for i in hosted.call("GET", f"/{name}/deployments/{deployment}")["instances"] if i["healthy"]]


def test_traffic_is_shared_out_by_percentage_and_picked_by_header(demo):
    demo.call("PUT", "/demo/traffic", {"traffic": {"blue": 90, "green": 10}})
    answers = [demo.ask("demo") for _ in range(50)]
    named = [headers["azureml-model-deployment"] for _, headers, _ in answers]
    assert (named.count("blue"), named.count("green")) == (45, 5)
    blue = [json.loads(text)["pid"] for _, headers, text in answers if headers["azureml-model-deployment"] == "blue"]
    assert sorted(blue.count(pid) for pid in pids(demo, "demo", "blue")) == [22, 23]
    demo.call("PUT", "/demo/traffic", {"traffic": {"blue": 100, "green": 0}})
    status, headers, _ = demo.ask("demo", headers={"azureml-model-deployment": "green"})
    assert (status, headers["azureml-model-deployment"]) == (200, "green")
    status, _, text = demo.ask("demo", headers={"azureml-model-deployment": "red"})
    assert (status, json.loads(text)["error"]["code"]) == (404, "DeploymentNotFound")


def test_a_server_sees_what_it_needs_and_no_more(demo, monkeypatch):
    headers = {"Authorization": "Bearer x", "Cookie": "a=b", "Proxy-Connection": "close", "X-Request-Id": "7"}
    _, _, text = demo.ask("demo", headers=headers | {"Connection": "close, X-Hop", "X-Hop": "1"})
    seen = json.loads(text)
    assert not {"authorization", "cookie", "proxy-connection", "x-hop", "azureml-model-deployment"} & set(
        seen["headers"]
    )
    assert "user-agent" not in seen["headers"]  # the client has sent none
    assert seen["headers"]["x-request-id"] == "7"
    assert seen["variables"]["AZUREML_MODEL_DIR"] == str(demo.root)
    assert seen["variables"]["HF_HUB_OFFLINE"] == "1"
    assert int(seen["variables"]["OMP_NUM_THREADS"]) >= 1
    assert not [name for name in seen["variables"] if name.startswith(("PYTEST", "AZURE_CLIENT", "LOCALML"))]


def test_a_body_goes_on_as_it_came(demo):
    status, _, text = demo.ask("demo", b"{}", {"Content-Encoding": "gzip"})  # which it is not
    assert (status, json.loads(text)["headers"]["content-encoding"]) == (200, "gzip")


def test_what_is_no_http_is_refused_and_not_logged(demo):
    """That nothing is logged is seen when the host is closed."""
    with socket.create_connection(("127.0.0.1", demo.call("GET", "/demo")["port"]), timeout=20) as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n")
        assert connection.recv(12)[9:] == b"400"


def test_a_stream_arrives_as_it_is_made(demo):
    port = demo.call("GET", "/demo")["port"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    started = time.monotonic()
    connection.request("POST", "/score", json.dumps({"stream": 4, "pause": 0.5}))
    answer = connection.getresponse()
    assert answer.readline() == b"data: 0\n"
    first = time.monotonic() - started
    assert answer.read().decode().split() == ["data:", "1", "data:", "2", "data:", "3"]
    assert time.monotonic() - started > first + 0.1
    connection.close()


def test_a_stream_that_breaks_is_not_whole_for_the_client_either(demo):
    failed = demo.metrics("demo", "blue")["num_failed"]
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        demo.ask("demo", {"stream": 3, "break": 0})
    assert until(lambda: demo.metrics("demo", "blue")["num_failed"]) == failed + 1


def test_a_copy_goes_to_the_mirror_and_never_slows_the_caller(demo):
    demo.call("PUT", "/demo/traffic", {"traffic": {"blue": 100}, "mirror_traffic": {"green": 50}})
    before = demo.metrics("demo", "green")
    started = time.monotonic()
    for _ in range(10):
        assert demo.ask("demo", {"status": 200})[1]["azureml-model-deployment"] == "blue"
    assert time.monotonic() - started < 5
    until(lambda: demo.metrics("demo", "green")["mirrored"]["num_requests"] == 5)
    after = demo.metrics("demo", "green")
    assert after["num_requests"] == before["num_requests"]
    assert after["mirrored"]["num_failed"] == 0
    demo.call("PUT", "/demo/traffic", {"traffic": {"blue": 100}})


def test_a_killed_instance_costs_no_request_and_comes_back(demo):
    before, failed = pids(demo, "demo", "blue"), demo.metrics("demo", "blue")["num_failed"]
    os.kill(before[0], signal.SIGKILL)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: demo.ask("demo")[0], range(40)))
    assert answers == [200] * 40
    assert demo.metrics("demo", "blue")["num_failed"] == failed
    after = until(lambda: len(found := pids(demo, "demo", "blue")) == 2 and found)
    assert before[1] in after
    assert before[0] not in after
    demo.seen += after


def test_a_request_that_kills_its_server_is_sent_twice_at_most(hosted):
    hosted.endpoint("poison", blue={"instance_count": 3})
    before = set(pids(hosted, "poison", "blue"))
    status, _, text = hosted.ask("poison", {"die": True})
    assert (status, json.loads(text)["error"]["code"]) == (502, "ConnectionLost")
    assert hosted.metrics("poison", "blue")["num_failed"] == 1
    assert sum(psutil.pid_exists(pid) for pid in before) >= 1
    hosted.seen += until(lambda: len(found := pids(hosted, "poison", "blue")) == 3 and found)
    hosted.call("PUT", "/poison/traffic", {"traffic": {}})
    assert hosted.ask("poison")[0] == 503
    hosted.call("DELETE", "/poison")
    assert not (hosted.root / "endpoints" / "poison").exists()


def test_what_is_too_much_or_too_slow(hosted):
    settings = {"request_timeout_ms": 4000, "max_concurrent_requests_per_instance": 1, "max_queue_wait_ms": 100}
    hosted.endpoint("narrow", blue={"settings": settings})
    assert hosted.ask("narrow", {"sleep": 10})[0] == 504
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        statuses = sorted(pool.map(lambda _: hosted.ask("narrow", {"sleep": 1.5})[0], range(3)))
    assert statuses == [200, 429, 429]
    status, _, text = hosted.ask("narrow", b"x" * (16 * 2**20 + 1))
    assert (status, json.loads(text)["error"]["code"]) == (413, "RequestEntityTooLarge")
    assert hosted.ask("narrow", {"status": 500})[0] == 500
    found = hosted.metrics("narrow", "blue")
    assert (found["num_failed"], found["num_client_errors"]) == (2, 2)
    hosted.call("DELETE", "/narrow")


def test_a_client_that_goes_away_frees_its_place(hosted):
    hosted.endpoint("left", blue={"settings": {"max_concurrent_requests_per_instance": 1, "max_queue_wait_ms": 1000}})
    port = hosted.call("GET", "/left")["port"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/score", json.dumps({"stream": 1000, "pause": 0.05}))
    answer = connection.getresponse()
    assert answer.readline() == b"data: 0\n"
    answer.close()
    connection.close()
    assert hosted.ask("left")[0] == 200
    assert hosted.metrics("left", "blue")["num_failed"] == 0
    hosted.call("DELETE", "/left")


IMPATIENT = {**PROBE, "failure_threshold": 3}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"flags": ["--broken"]}, "exited with code 1 (2 times in a row); its last words: no such weights: model.saf"),
        ({"flags": ["--deaf"], "readiness_probe": IMPATIENT}, "did not answer /health within 0.6 s"),
        ({"server": {"kind": "command", "command": ["no-such-program-here"]}}, "cannot be started: No such file"),
        ({"environment_variables": {"ZERO": "\0"}}, "cannot be started: embedded null byte"),
    ],
)
def test_a_deployment_that_never_becomes_healthy(demo, body, words):
    demo.call("PUT", "/demo/deployments/bad", demo.body(**body))
    found = demo.settled("demo", "bad")
    assert found["provisioning_state"] == "Failed"
    assert words in found["error"]["message"]
    assert [instance["pid"] for instance in found["instances"]] == [None]
    status, _, text = demo.ask("demo", headers={"azureml-model-deployment": "bad"})
    assert (status, json.loads(text)["error"]["code"]) == (503, "NoHealthyInstance")
    assert demo.ask("demo")[0] == 200
    demo.call("DELETE", "/demo/deployments/bad")


def test_the_same_again_is_nothing_new_and_another_count_scales(hosted):
    hosted.endpoint("size", blue={})
    first = pids(hosted, "size", "blue")
    hosted.call("PUT", "/size/deployments/blue", hosted.body())
    assert pids(hosted, "size", "blue") == first
    hosted.call("PUT", "/size/deployments/blue", hosted.body(instance_count=2))
    assert hosted.settled("size", "blue")["instance_count"] == 2
    assert first[0] in pids(hosted, "size", "blue")
    other = hosted.refused("PUT", "/size/deployments/blue", hosted.body(tags={"a": "b"}))
    assert (other.status, other.code) == (409, "TrafficNotZero")
    hosted.call("PUT", "/size/deployments/blue", hosted.body())
    assert pids(hosted, "size", "blue") == first
    capacity = {"minimum": 2, "maximum": 2, "default": 2}
    hosted.call("PUT", "/size/deployments/blue/autoscale", {"profiles": [{"capacity": capacity}]})
    decisions = until(lambda: hosted.call("GET", "/size/deployments/blue/autoscale")["decisions"])
    assert (decisions[0]["from"], decisions[0]["to"]) == (1, 2)
    assert hosted.settled("size", "blue")["instance_count"] == 2
    assert (refusal := hosted.refused("DELETE", "/size/deployments/blue")).code == "TrafficNotZero", refusal
    hosted.call("DELETE", "/size")


def test_load_makes_a_second_instance_and_quiet_takes_it_away(hosted):
    def rule(direction, comparison):
        window = {"time_grain": "PT1S", "time_window": "PT1S"}
        trigger = {"metric_name": "RequestsPerMinute", "operator": comparison, "threshold": 60, **window}
        return {"metric_trigger": trigger, "scale_action": {"direction": direction, "value": 1, "cooldown": "PT1S"}}

    hosted.endpoint("elastic", blue={})
    rules = [rule("Increase", "GreaterThan"), rule("Decrease", "LessThan")]
    profile = {"capacity": {"minimum": 1, "maximum": 2, "default": 1}, "rules": rules}
    hosted.call("PUT", "/elastic/deployments/blue/autoscale", {"profiles": [profile]})
    until(lambda: hosted.ask("elastic") and len(pids(hosted, "elastic", "blue")) == 2)
    until(lambda: len(hosted.call("GET", "/elastic/deployments/blue")["instances"]) == 1)
    decisions = hosted.call("GET", "/elastic/deployments/blue/autoscale")["decisions"]
    assert [(d["from"], d["to"]) for d in decisions[:2]] == [(1, 2), (2, 1)]
    assert decisions[0]["reason"].startswith("RequestsPerMinute")
    hosted.call("DELETE", "/elastic")


@pytest.mark.parametrize("name", ["ab", "1abc", "a_b", "..%2F..%2Fetc", "a" * 33, "abc-", "%2e%2e"])
def test_a_name_that_azure_would_refuse(hosted, name):
    assert hosted.refused("PUT", f"/{name}", {}).status in (400, 404)
    assert hosted.refused("PUT", f"/demo/deployments/{name}", hosted.body()).status in (400, 404)


def test_what_the_control_api_refuses(demo):
    taken = socket.create_server(("127.0.0.1", 0))
    try:
        refusal = demo.refused("PUT", "/second", {"port": taken.getsockname()[1]})
    finally:
        taken.close()
    assert (refusal.status, refusal.code) == (409, "PortInUse")
    assert demo.refused("GET", "/second").code == "NotFound"
    port = demo.call("GET", "/demo")["port"]
    assert demo.refused("PUT", "/second", {"port": port}).code == "PortInUse"
    assert "no such folder" in str(demo.refused("PUT", "/demo/deployments/bad", demo.body(model="/absent/model")))
    code = {"kind": "inference_server", "code": "/absent/code", "scoring_script": "score.py"}
    assert "no such folder" in str(demo.refused("PUT", "/demo/deployments/bad", demo.body(server=code)))
    before = pids(demo, "demo", "green")
    here = code | {"code": str(demo.root / "endpoints"), "scoring_script": "absent.py"}
    assert "no absent.py in" in str(demo.refused("PUT", "/demo/deployments/green", demo.body(server=here)))
    assert pids(demo, "demo", "green") == before != []
    assert demo.refused("PUT", "/demo/traffic", {"traffic": {"absent": 100}}).code == "NotFound"
    assert demo.refused("PUT", "/demo", {"prot": 1}).code == "BadRequest"


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
def test_a_web_page_is_refused_on_both_planes(demo, headers):
    host = client.find_host(demo.root)
    assert demo.ask("demo", headers=headers)[0] == 403
    connection = http.client.HTTPConnection(host.url.removeprefix("http://"))
    connection.request("GET", "/onlineEndpoints", headers={"Authorization": f"Bearer {host.token}", **headers})
    assert connection.getresponse().status == 403
    connection.close()


def test_the_control_api_needs_its_token(demo):
    host = client.find_host(demo.root)
    file = demo.root / "endpoints" / "host.json"
    assert file.stat().st_mode & 0o077 == 0
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {host.token}"}):
        connection = http.client.HTTPConnection(host.url.removeprefix("http://"))
        connection.request("GET", "/onlineEndpoints", headers=headers)
        assert connection.getresponse().status == 401
        connection.close()


def script(root, *flags) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "endpoint.py"), "--root", str(root), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_script_sees_and_changes_what_is_there(demo):
    shown = script(demo.root, "show", "demo")
    assert "blue: Succeeded" in shown.stdout
    assert f"curl -N http://127.0.0.1:{demo.call('GET', '/demo')['port']}/v1/chat/completions" in shown.stdout
    assert script(demo.root, "traffic", "demo", "blue=40", "green=60").stdout == "demo: blue 40 %, green 60 %\n"
    wrong = script(demo.root, "traffic", "demo", "blue=40")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    assert "add up to 40" in wrong.stderr
    assert "a server for tests" in script(demo.root, "logs", "demo", "green").stdout
    demo.call("PUT", "/demo/traffic", {"traffic": {"blue": 100}})


def test_a_host_that_is_killed_leaves_nothing_and_comes_back(tmp_path):
    hosted = Hosted(tmp_path).endpoint("again", blue={})
    port, old = hosted.call("GET", "/again")["port"], pids(hosted, "again", "blue")[0]
    os.kill(client.find_host(tmp_path).pid, signal.SIGKILL)
    until(lambda: not client.is_hosted(tmp_path))
    assert psutil.pid_exists(old)
    with socket.create_server(("127.0.0.1", port)):
        up = script(tmp_path, "up")
    assert f"http://127.0.0.1:{port}/v1/chat/completions  blue 100 %" in up.stdout, up.stderr
    assert f"not served: port {port} cannot be had" in up.stdout
    assert hosted.call("PUT", "/again", {})["port"] == port
    assert not psutil.pid_exists(old)
    hosted.settled("again", "blue")
    assert hosted.ask("again")[0] == 200
    assert script(tmp_path, "stop").stdout == "stopped\n"
    hosted.close()
    assert "endpoint.py up" in script(tmp_path, "list").stderr


def test_on_a_full_disk_traffic_goes_back_and_nothing_is_left_running(tmp_path):
    hosted = Hosted(tmp_path).endpoint("full", blue={}, green={})
    for name in ("endpoints.json", "processes.json"):
        (tmp_path / "endpoints" / f"{name}.partial").mkdir()  # so that neither can be written
    hosted.call("PUT", "/full/traffic", {"traffic": {"green": 100}})
    assert hosted.ask("full")[1]["azureml-model-deployment"] == "green"
    os.kill(pids(hosted, "full", "green")[0], signal.SIGKILL)
    new = until(lambda: pids(hosted, "full", "green"))
    running = [*pids(hosted, "full", "blue"), *new]
    client.stop_host(tmp_path, 20)
    assert len(running) == 2
    assert "endpoints.json cannot be written" in (tmp_path / "endpoints" / "host.log").read_text()
    assert not [pid for pid in running if psutil.pid_exists(pid)]


@pytest.mark.slow
def test_a_host_that_is_slow_is_not_started_again(tmp_path):
    hosted = Hosted(tmp_path)
    host = client.find_host(tmp_path)
    file, seconds = tmp_path / "endpoints" / "host.json", 1.5 * client._ANSWER_SECONDS
    said = file.read_text()
    os.kill(host.pid, signal.SIGSTOP)
    try:
        assert client.running_host(tmp_path) == host
        file.write_text(json.dumps(json.loads(said) | {"create_time": 0}))  # as of a process that ended long ago
        later = threading.Timer(seconds, os.kill, (host.pid, signal.SIGCONT))
        later.start()
        assert client.running_host(tmp_path) == host
        later.join()
    finally:
        os.kill(host.pid, signal.SIGCONT)
        file.write_text(said)
    hosted.close()


@pytest.fixture
def few_files_allowed():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files_allowed")
def test_two_that_ask_at_once_get_the_same_host_which_may_open_many_files(tmp_path):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(client.ensure_host(tmp_path).read_text())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1
    assert psutil.Process(json.loads(results[0])["pid"]).rlimit(psutil.RLIMIT_NOFILE)[0] > 300
    client.stop_host(tmp_path, 20)


SCORE = """
import os
def init():
    print("the model is at", os.environ["AZUREML_MODEL_DIR"], flush=True)
    assert not os.path.exists("config.json"), "the server would take it for its settings"
def run(data):
    return {"given": data, "number": NUMBER}
"""


def test_the_inference_server_runs_its_own_copy_of_the_code(hosted, tmp_path):
    (tmp_path / "score.py").write_text(SCORE.replace("NUMBER", "1"))
    server = {"kind": "inference_server", "code": str(tmp_path), "scoring_script": "score.py"}
    hosted.endpoint("scored", blue={"server": server})
    (tmp_path / "score.py").write_text(SCORE.replace("NUMBER", "2"))
    status, _, text = hosted.ask("scored", {"a": "b"}, path="/score")
    assert (status, json.loads(text)["number"]) == (200, 1)
    assert json.loads(json.loads(text)["given"]) == {"a": "b"}
    lines = hosted.call("GET", "/scored/deployments/blue/logs?lines=1000")["lines"]
    assert any(f"the model is at {hosted.root}" in line for line in lines)
    assert not [line for line in lines if "Traceback" in line or "ontrol socket" in line]
    assert hosted.refused("PUT", "/scored/deployments/blue", hosted.body(server=server)).code == "TrafficNotZero"
    hosted.call("DELETE", "/scored")


@pytest.mark.slow
def test_transformers_serve_answers_in_the_chat_form(tmp_path, small_model):
    hosted = Hosted(tmp_path)
    probe = {**PROBE, "failure_threshold": 600}
    body = {"server": {"kind": "transformers_serve"}, "model": str(small_model), "readiness_probe": probe}
    hosted.call("PUT", "/chat", {})
    hosted.call("PUT", "/chat/deployments/blue", hosted.body(**body, settings={"request_timeout_ms": 60_000}))
    try:
        found = until(
            lambda: (d := hosted.call("GET", "/chat/deployments/blue"))["provisioning_state"] != "Creating" and d, 120
        )
        assert found["provisioning_state"] == "Succeeded", found
        hosted.seen += [found["instances"][0]["pid"]]
        hosted.call("PUT", "/chat/traffic", {"traffic": {"blue": 100}})
        chat = {"messages": [{"role": "user", "content": "日本語と한국어"}], "max_tokens": 4, "model": "slm:3"}
        status, _, text = hosted.ask("chat", chat)
        assert status == 200, text
        assert json.loads(text)["object"] == "chat.completion"
        status, headers, text = hosted.ask("chat", chat | {"stream": True})
        assert headers["Content-Type"].startswith("text/event-stream")
        assert text.endswith("data: [DONE]\n\n")
        assert hosted.ask("chat", {"messages": []})[0] == 400
    finally:
        hosted.close()
