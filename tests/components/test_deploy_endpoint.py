"""The component deploy_endpoint: what it refuses, and whole rollouts over real servers of this machine."""

import importlib
import json
import os
import re
import signal
import sys
import threading
import time
import types
from pathlib import Path

import psutil
import pytest

import model_registry
from model_registry.versions import Registered
from slmkit import lineage
from slmkit.errors import UserError
from tests.components.steady_load import Load

SERVER = Path(__file__).with_name("breakable_server.py")


def write_model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir()
    for name, content in (("config.json", b"{}"), ("tokenizer.json", b"{}"), ("model.safetensors", weights)):
        (folder / name).write_bytes(content)
    return folder


def manifest_of(model: Path, path: Path, **changes) -> Path:
    said = {"registered": True, "name": "shop", "version": "3", "uri": "models:/shop/3", "why": "", "aliases": []}
    path.write_text(json.dumps(said | {"model_sha256": lineage.sha256(model)} | changes))
    return path


@pytest.fixture
def flags(tmp_path):
    model = write_model(tmp_path / "model")
    manifest = manifest_of(model, tmp_path / "manifest")
    outputs = {"endpoint": tmp_path / "endpoint", "report": tmp_path / "report"}
    return {"model": model, "manifest": manifest, "endpoint_name": "shop", **outputs}


def not_registered(flags):
    manifest_of(flags["model"], flags["manifest"], registered=False, version=None, why="The verdict is reject.")


def other_model(flags):
    (flags["model"] / "model.safetensors").write_bytes(b"others")


def no_tokenizer(flags):
    (flags["model"] / "tokenizer.json").unlink()


def damaged_manifest(flags):
    flags["manifest"].write_text("{")


def manifest_of_something_else(flags):
    flags["manifest"].write_text('{"verdict": "promote"}')


@pytest.mark.parametrize(
    ("change", "exit_code", "said"),
    [
        (not_registered, 3, "shop: nothing was registered, so nothing is deployed: The verdict is reject."),
        (other_model, 4, "not the model that was registered as models:/shop/3"),
        (no_tokenizer, 9, "no tokenizer"),
        (damaged_manifest, 1, "manifest: not JSON"),
        (manifest_of_something_else, 1, "is it the manifest of register_model?"),
        ({"endpoint_name": "-shop"}, 1, "endpoint_name '-shop': 3 to 32 letters"),
        ({"traffic_steps": "10,50"}, 1, "traffic_steps '10,50': rising percentages that end with 100"),
        ({"traffic_steps": "50,10,100"}, 1, "traffic_steps"),
        ({"traffic_steps": "ten"}, 1, "traffic_steps"),
        ({"instance_count": 9}, 1, "keeps it from 1 to 4"),
        ({}, 1, "LOCALML_ENDPOINTS does not name it: run the pipeline by scripts/run.py"),
        ({"target": "azure"}, 1, "AZUREML_ARM_SUBSCRIPTION is not set"),
    ],
)
def test_what_is_refused_before_anything_is_asked(run_component, flags, change, exit_code, said):
    if callable(change):
        change(flags)
        change = {}
    done = run_component("deploy_endpoint", **{**flags, **change})
    assert (done.returncode, len(done.stderr.splitlines())) == (exit_code, 1), done.stderr
    assert said in done.stderr
    assert not flags["endpoint"].exists()


@pytest.fixture
def gone(tmp_path, monkeypatch):
    """The file of a host that is not there any more."""
    path = tmp_path / "host.json"
    path.write_text(json.dumps({"url": "http://127.0.0.1:1", "token": "very-secret", "pid": 1}))
    monkeypatch.setenv("LOCALML_ENDPOINTS", str(path))
    return path


def test_a_host_that_is_gone(load_main, gone):
    load_main("deploy_endpoint")
    local_endpoint = importlib.import_module("local_endpoint")
    for _ in range(2):  # the first one has given the lock back
        with pytest.raises(UserError, match=r"does not answer at http://127\.0\.0\.1:1") as failed:
            local_endpoint.LocalEndpoint("shop", None, None).open()
        assert failed.value.exit_code == 8
        assert "very-secret" not in str(failed.value)
        del failed


def test_one_rollout_at_a_time(load_main, gone, monkeypatch):
    """Also of one process, and only as long as it lasts."""
    load_main("deploy_endpoint")
    local_endpoint = importlib.import_module("local_endpoint")
    found = {"scoring_uri": "u", "traffic": {}, "mirror_traffic": {}, "tags": {}, "deployments": []}
    monkeypatch.setattr(local_endpoint.LocalEndpoint, "_call", lambda *_: found)
    first, second, other = (local_endpoint.LocalEndpoint(name, None, None) for name in ("shop", "shop", "library"))
    for target in (first, first, other):  # it may look again
        target.open()
    with pytest.raises(UserError, match="shop: another rollout is under way") as failed:
        second.open()
    assert failed.value.exit_code == 8
    first.close()
    second.open()
    second.close()
    other.close()


def test_what_serves_says_whether_its_traffic_is_collected(load_main, gone, flags, tmp_path):
    """Also where the new deployment was to collect, and the old one, which does not, serves on."""
    from localml.endpoints import contract

    main = load_main("deploy_endpoint")
    modules = {name: importlib.import_module(name) for name in ("deployment_spec", "local_endpoint", "rollout")}
    aims = importlib.import_module("rollout_target")
    gone.write_text(json.dumps(json.loads(gone.read_text()) | {"data_collector": "/root/modelDataCollector"}))
    args = main.Args(**flags, collect_traffic=True)
    spec = modules["deployment_spec"].DeploymentSpec("onnx-cpu", flags["model"], "u", "a" * 64, 1, False, True)
    target = modules["local_endpoint"].LocalEndpoint("shop", spec, None)
    collector = contract.read(spec.local_body(), contract.DeploymentBody).data_collector
    assert {name for name, one in collector.collections.items() if one.is_enabled} == {"request", "response"}
    old = {"blue": {"model_sha256": "b" * 64}}
    endpoint = aims.Endpoint("http://127.0.0.1:1/v1/chat/completions", aims.Traffic({"blue": 100}), old)
    said = {}
    for state in ("rolled_out", "kept_blue"):
        record = modules["rollout"].Record(endpoint=endpoint, blue="blue", green="green", state=state)
        main.write(args, spec, main.read_plan(args), target, record)
        found = json.loads(flags["endpoint"].read_text("utf-8"))
        said[found["deployment"]] = (found["model_sha256"], found["collected_traffic"])
    assert said == {"green": ("a" * 64, "/root/modelDataCollector/shop"), "blue": ("b" * 64, None)}


def test_a_time_that_is_no_number_is_none(load_main):
    load_main("deploy_endpoint")
    counts = importlib.import_module("local_endpoint")._counts
    found = {"num_requests": 3, "num_failed": 1, "p95_milliseconds": float("nan")}
    assert counts(found).p95_seconds is None
    assert counts(found | {"p95_milliseconds": 1500.0}).p95_seconds == 1.5


@pytest.mark.parametrize(
    ("change", "exit_code", "said"),
    [
        ({}, None, None),
        ({"version": "4"}, 3, "shop version 4: the registry has no models:/shop/3 under this name"),
        ({"name": "shoe"}, 3, "shoe version 3: the registry has no models:/shop/3 under this name"),
        ({"uri": "azureml:other:3"}, 3, "the registry has no azureml:other:3 under this name"),
        ({"model_sha256": "e" * 64}, 4, "models:/shop/3: another model"),
    ],
)
def test_a_manifest_that_the_registry_contradicts(load_main, monkeypatch, change, exit_code, said):
    """Else a manifest written by hand would have any registered version served."""
    main = load_main("deploy_endpoint")
    there = Registered("shop", "3", "models:/shop/3", {"model_sha256": "a" * 64})
    find = {("shop", "3"): there}
    monkeypatch.setattr(model_registry, "find", lambda name, *, version, registry_name: find.get((name, version)))
    manifest = {"name": "shop", "version": "3", "uri": "models:/shop/3", "model_sha256": "a" * 64} | change
    if exit_code is None:
        return main.check_registered(manifest)
    with pytest.raises(UserError, match=re.escape(said)) as failed:
        main.check_registered(manifest)
    assert failed.value.exit_code == exit_code


def test_adapters_are_served_on_a_base_with_its_tokenizer_and_by_no_other_spec(load_main, tmp_path):
    load_main("deploy_endpoint")
    spec_of = importlib.import_module("deployment_spec").DeploymentSpec
    names = ("vllm-multi-lora-gpu", "transformers-multi-lora-cpu", "vllm-gpu")
    *several, single = (spec_of(name, tmp_path, "u", "a", 1, False) for name in names)

    def refused(spec, said):
        with pytest.raises(UserError, match=said) as failed:
            spec.check_model()
        assert failed.value.exit_code == 9

    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "tokenizer.json").write_text("{}")
    single.check_model()  # a folder below, as registries make it
    for spec in several:
        refused(spec, "multi-lora-.pu serves base/ and adapters/, as combine_adapters writes them")
    (tmp_path / "base").mkdir()
    for spec in several:
        refused(spec, "base: no tokenizer")
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    for spec in several:
        spec.check_model()
    refused(single, "vllm-gpu serves one model")
    (tmp_path / "adapters" / "slm").mkdir()
    for spec in several:
        refused(spec, "an adapter has the name of the base, slm")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    from localml.endpoints import client

    path = client.ensure_host(tmp_path_factory.mktemp("root"))
    host = client.Host(**{key: json.loads(path.read_text())[key] for key in ("url", "token", "pid")})
    process = psutil.Process(host.pid)
    yield types.SimpleNamespace(path=path, call=host.call)
    family = [process, *process.children(recursive=True)]
    host.call("POST", "/stop")
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive


@pytest.fixture
def local(load_main, host, monkeypatch, tmp_path):
    """The component in this process, with servers that take no time to start and break on demand."""
    main = load_main("deploy_endpoint")
    names = ("deployment_spec", "local_endpoint", "rollout", "rollout_probes")
    modules = types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    breaks = {name: tmp_path / f"{name}_breaks" for name in ("blue", "green")}
    deploy = modules.local_endpoint.LocalEndpoint.deploy

    def deploy_breakable(self, name):
        body = {
            "server": {"kind": "command", "command": [sys.executable, str(SERVER), "--port", "{port}"]},
            "environment_variables": {"BREAKS": str(breaks[name])},
            "request_settings": {"request_timeout_ms": 5000, "max_concurrent_requests_per_instance": 8},
            "liveness_probe": {"initial_delay": 5, "period": 1, "timeout": 2, "failure_threshold": 10},
            "readiness_probe": {"initial_delay": 0, "period": 0.1, "timeout": 2, "failure_threshold": 50},
        }
        with monkeypatch.context() as patch:
            kept = {"model": str(self._spec.model), "tags": self._spec.tags(), **body}
            patch.setattr(modules.deployment_spec.DeploymentSpec, "local_body", lambda spec: kept)
            deploy(self, name)

    monkeypatch.setattr(modules.local_endpoint.LocalEndpoint, "deploy", deploy_breakable)
    monkeypatch.setattr(modules.local_endpoint.LocalEndpoint, "poll_seconds", 0.2)
    monkeypatch.setattr(modules.rollout, "SILENT_SECONDS", 0.5)
    monkeypatch.setenv("LOCALML_ENDPOINTS", str(host.path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    champions = []
    monkeypatch.setattr(main, "make_champion", lambda manifest: champions.append(manifest["version"]))
    monkeypatch.setattr(main, "check_registered", lambda manifest: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield types.SimpleNamespace(main=main, breaks=breaks, champions=champions, **vars(modules))
    for number, handler in handlers.items():
        signal.signal(number, handler)


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def args_of(local, flags, **changes):
    short = {"step_seconds": 0.8, "min_requests": 5, "autoscale": False, "startup_timeout_seconds": 30.0}
    return local.main.Args(**{**flags, **short, **changes})


def later(condition, action):
    """Act from another thread as soon as the condition holds."""

    def act():
        wait_for(condition)
        action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_life_of_an_endpoint(local, host, flags, tmp_path):
    """First deployment, nothing to do, a rollout stopped by SIGTERM, the same one again to its end."""

    def endpoint():
        return json.loads(flags["endpoint"].read_text("utf-8"))

    def live():
        return host.call("GET", "/onlineEndpoints/shop")["traffic"]

    local.main.run(args_of(local, flags))
    found = endpoint()
    assert found == {
        "name": "shop",
        "target": "local",
        "scoring_uri": found["scoring_uri"],
        "deployment": "blue",
        "model": "slm",
        "adapters": [],
        "model_sha256": lineage.sha256(flags["model"]),
        "collected_traffic": None,
        "auth": "none",
        "state": "rolled_out",
        "traffic": {"blue": 100},
    }
    assert live() == {"blue": 100}
    assert local.champions == ["3"]
    rollout = json.loads((flags["report"] / "rollout.json").read_text("utf-8"))
    assert {check["name"]: check["passed"] for check in rollout["smoke_test"]["checks"]} == dict.fromkeys(
        ("chat_schema", "streaming", "unicode_ja", "unicode_ko", "malformed_body", "concurrency"), True
    )

    pids = host.call("GET", "/onlineEndpoints/shop/deployments/blue")["instances"]
    assert local.main.run(args_of(local, flags))["release/rolled_out"] == 1.0
    assert host.call("GET", "/onlineEndpoints/shop/deployments/blue")["instances"] == pids
    assert "served this model to all requests already" in (flags["report"] / "report.html").read_text("utf-8")

    model = write_model(tmp_path / "second", b"better weights")
    new = {**flags, "model": model, "manifest": manifest_of(model, tmp_path / "second_manifest", version="4")}
    with Load(found["scoring_uri"]) as load:
        thread = later(lambda: live().get("green") == 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            local.main.run(args_of(local, new, step_seconds=5.0, mirror_fraction=0.0))
        thread.join()
        assert live() == {"blue": 100}
        assert endpoint()["state"] == "kept_blue"
        assert local.champions == ["3", "3"]
        (green,) = host.call("GET", "/onlineEndpoints/shop/deployments/green")["instances"]

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        local.main.run(args_of(local, new, keep_previous=False))
    assert live() == {"green": 100}
    assert local.champions == ["3", "3", "4"]
    assert host.call("GET", "/onlineEndpoints/shop")["deployments"] == ["green"]
    (still,) = host.call("GET", "/onlineEndpoints/shop/deployments/green")["instances"]
    assert still["pid"] == green["pid"]
    assert {status for _, status, _ in load.answers} == {200}
    assert {name for _, _, name in load.answers} == {"blue", "green"}
    host.call("DELETE", "/onlineEndpoints/shop")


def test_a_model_that_changes_while_it_is_deployed(local, host, flags):
    flags["endpoint_name"] = "changing"
    health = local.local_endpoint.LocalEndpoint.health

    def change_then_health(self, name):
        other_model(flags)
        return health(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local.local_endpoint.LocalEndpoint, "health", change_then_health)
        patch.setattr(local.main.tracking, "log_artifact", lambda path: 1 / 0)  # which does not hide the reason
        with pytest.raises(UserError, match="not the model that was registered as models:/shop/3") as failed:
            local.main.run(args_of(local, flags))
    assert (failed.value.exit_code, local.champions) == (4, [])
    assert host.call("GET", "/onlineEndpoints/changing")["traffic"] == {}
    host.call("DELETE", "/onlineEndpoints/changing")


@pytest.mark.slow
def test_what_breaks_on_the_way_goes_back_and_clients_see_no_more_of_it(local, host, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(local.rollout, "PROBE_SECONDS", (1.0, 1.0))
    ask_twice = local.rollout_probes.probe
    monkeypatch.setattr(local.rollout_probes, "smoke_test", lambda address: (not ask_twice(address, 2, 5.0), "", None))
    flags["endpoint_name"] = "fragile"
    local.main.run(args_of(local, flags))
    uri = json.loads(flags["endpoint"].read_text("utf-8"))["scoring_uri"]

    def live():
        return host.call("GET", "/onlineEndpoints/fragile")["traffic"]

    def kill():
        (green,) = host.call("GET", "/onlineEndpoints/fragile/deployments/green")["instances"]
        psutil.Process(green["pid"]).kill()

    ways = {
        10: lambda: local.breaks["green"].write_text("500"),
        50: kill,
        100: lambda: local.breaks["green"].write_text("hang"),
    }
    for percent, break_it in ways.items():
        local.breaks["green"].unlink(missing_ok=True)
        model = write_model(tmp_path / f"model_{percent}", f"weights {percent}".encode())
        new = {**flags, "model": model, "manifest": manifest_of(model, tmp_path / f"manifest_{percent}")}
        with Load(uri) as load:
            thread = later(lambda percent=percent: live().get("green") == percent, break_it)
            with pytest.raises(local.rollout.RolloutError, match=f"green at {percent} %") as failed:
                local.main.run(args_of(local, new, step_seconds=1.2, mirror_fraction=0.0))
            thread.join()
            assert (failed.value.exit_code, live()) == (6, {"blue": 100})
            # What was under way at that moment may still end badly; what is asked from now on may not.
            returned = time.monotonic()
            wait_for(lambda: sum(asked > returned for asked, _, _ in load.answers) > 50)  # noqa: B023
        assert {(status, name) for asked, status, name in load.answers if asked > returned} == {(200, "blue")}
        assert json.loads((flags["report"] / "rollout.json").read_text("utf-8"))["failure"].startswith("green at")
    host.call("DELETE", "/onlineEndpoints/fragile")
