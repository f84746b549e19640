"""Logging to a real MLflow store in SQLite, on a run that somebody else has opened; and without one."""

import http.server
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from localml.mlflow_writer import Writer
from localml.tracking_socket import TrackingSocket
from slmkit import tracking
from slmkit.tracking_clients import TrackingError


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "AZUREML_RUN_ID", "RANK", "LOCALML_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    tracking._say_once.cache_clear()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    return uri, client, client.create_experiment("any", artifact_location=(folder / "artifacts").as_uri())


@pytest.fixture(params=["by mlflow", "by the runner"])
def run(store, monkeypatch, request):
    """Opens a run, names it in the environment, and gives back what stands in it."""
    uri, client, experiment = store
    run_id = client.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    if request.param == "by the runner":
        writer = Writer(uri)
        sockets = TrackingSocket(lambda call, **arguments: getattr(writer, call)(**arguments))
        request.addfinalizer(sockets.close)
        monkeypatch.setenv("LOCALML_TRACKING", sockets.address)
    return lambda: client.get_run(run_id)


def own_tags(run):
    return {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}


def test_parameters(run):
    tracking.log_params({"learning_rate": 2e-4, "packing": False, "seed": None, "note": "한" * 501})
    assert run().data.params == {
        "learning_rate": "0.0002",
        "packing": "False",
        "seed": "None",
        "note": "한" * 500,  # Azure ML keeps no more
    }


def test_another_server_for_another_run(store, tmp_path, monkeypatch):
    """One process, many runs: a service, or tests."""
    for client in (store[1], MlflowClient(f"sqlite:///{tmp_path / 'other.db'}")):
        run_id = client.create_run("0").info.run_id
        monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        tracking.log_params({"seed": 1})
        assert client.get_run(run_id).data.params == {"seed": "1"}


def test_more_than_a_request_may_hold(run, monkeypatch):
    """A server takes 100 parameters or tags a request; the store itself would take more."""
    sizes, log_batch = [], MlflowClient.log_batch

    def recorded(client, run_id, **batch):
        sizes.append(sum(map(len, batch.values())))
        log_batch(client, run_id, **batch)

    monkeypatch.setattr(MlflowClient, "log_batch", recorded)
    many = {f"p{number}": number for number in range(250)}
    tracking.log_params(many)
    tracking.log_metrics(many)
    tracking.set_tags(many)
    data = run().data
    assert sizes == 3 * [100, 100, 50]
    assert data.params == {name: str(value) for name, value in many.items()}
    assert data.metrics == {name: float(value) for name, value in many.items()}
    assert own_tags(run()) == {name: str(value) for name, value in many.items()}


def test_metrics_at_steps(run, store):
    tracking.log_metrics({"train/loss": 2, "train/num_steps": 10}, step=10)
    tracking.log_metrics({"train/loss": 1.5}, step=20)
    tracking.log_metrics({"eval/loss": 3.0})
    history = store[1].get_metric_history(run().info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(10, 2.0), (20, 1.5)]
    assert all(abs(metric.timestamp / 1000 - time.time()) < 60 for metric in history)
    assert run().data.metrics == {"train/loss": 1.5, "train/num_steps": 10.0, "eval/loss": 3.0}


def test_a_name_that_mlflow_refuses_costs_no_other_metric(run):
    tracking.log_metrics({"eval/f1": 0.5, "eval/f1//home/../모델: 1/": 0.25, "eval/Qwen/Qwen3.5": 1.0})
    assert run().data.metrics == {"eval/f1": 0.5, "eval/f1/home/모델_ 1": 0.25, "eval/Qwen/Qwen3.5": 1.0}


def test_artifacts(run, store, tmp_path):
    (tmp_path / "report" / "deep").mkdir(parents=True)
    (tmp_path / "report" / "deep" / "table.csv").write_text("a,b\n")
    (tmp_path / "report.html").write_text("<p>")
    tracking.log_artifact(tmp_path / "report.html")
    tracking.log_artifact(tmp_path / "report")
    artifacts = store[1].list_artifacts(run().info.run_id)
    assert [(artifact.path, artifact.is_dir) for artifact in artifacts] == [("report", True), ("report.html", False)]
    local = store[1].download_artifacts(run().info.run_id, "report/deep/table.csv")
    assert Path(local).read_text() == "a,b\n"


def test_the_run_stays_open_and_is_no_concern_of_the_fluent_interface(run, capsys):
    tracking.set_tags({"teacher": "embedded"})
    assert run().info.status == "RUNNING"
    assert mlflow.active_run() is None
    assert own_tags(run()) == {"teacher": "embedded"}
    assert capsys.readouterr().err == ""


def test_the_run_may_be_named_as_azure_ml_names_it(run, monkeypatch):
    monkeypatch.setenv("AZUREML_RUN_ID", run().info.run_id)
    monkeypatch.delenv("MLFLOW_RUN_ID")
    tracking.log_metrics({"a": 1})
    assert run().data.metrics == {"a": 1.0}


def test_only_the_first_of_many_processes_logs(run, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    tracking.log_metrics({"a": 1})
    assert run().data.metrics == {}
    monkeypatch.delenv("MLFLOW_RUN_ID")
    tracking.log_metrics({"a": 1})
    assert capsys.readouterr().err == "", "the first process says it for all"
    monkeypatch.setenv("RANK", "0")
    tracking.log_metrics({"a": 1})
    assert "no open MLflow run" in capsys.readouterr().err


def log_everything(path):
    tracking.log_params({"a": 1})
    tracking.log_metrics({"a": 1})
    tracking.set_tags({"a": "b"})
    tracking.log_artifact(path)


@pytest.mark.parametrize(
    "variables",
    [{}, {"MLFLOW_RUN_ID": "x"}, {"MLFLOW_TRACKING_URI": "sqlite:///absent.db"}, {"AZUREML_RUN_ID": ""}],
)
def test_no_run_is_said_once(monkeypatch, capsys, tmp_path, variables):
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    log_everything(tmp_path)
    assert capsys.readouterr().err == "tracking: no open MLflow run, metrics are only printed\n"
    assert list(tmp_path.iterdir()) == []


def test_a_refused_value_is_a_warning_and_the_rest_is_logged(run, monkeypatch, capsys):
    """A component that was preempted and starts again cannot change what its run says already."""
    tracking.log_params({"seed": 1})
    writer = tracking._writer()
    monkeypatch.setattr(tracking, "_writer", lambda: (time.sleep(0.5), writer)[1])  # as when MLflow is first imported
    for _ in range(2):
        tracking.log_params({"seed": 2})
        assert tracking._resume_at - time.monotonic() < 4, "the import does not count"
        while time.monotonic() < tracking._resume_at:
            time.sleep(0.01)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tracking: not everything is logged, the step goes on: ")
    assert "Changing param" in line
    tracking.log_metrics({"a": 1})
    assert (run().data.params, run().data.metrics) == ({"seed": "1"}, {"a": 1.0})


def test_a_run_that_is_not_there_is_a_warning(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    log_everything(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert "not everything is logged" in line
    assert "0" * 32 in line


def test_a_step_of_the_runner_does_not_load_mlflow(tmp_path):
    """That takes two seconds of each step."""
    asked = []
    sockets = TrackingSocket(lambda *call, **arguments: asked.append((*call, arguments)))
    code = (
        "import sys\nfrom slmkit import tracking\ntracking.set_tags({'a': 'ü\u2028'})\nprint('mlflow' in sys.modules)"
    )
    shared = Path(tracking.__file__).parents[1]
    ours = {"PYTHONPATH": str(shared), "MLFLOW_TRACKING_URI": "sqlite:///absent", "MLFLOW_RUN_ID": "r"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **ours, "LOCALML_TRACKING": sockets.address},
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
    finally:
        sockets.close()
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert asked == [("log_rows", {"run_id": "r", "kind": "tags", "rows": [["a", "ü\u2028"]]})]
    assert not Path(sockets.address).parent.exists()


def test_a_runner_that_has_ended_is_a_warning(monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///absent")
    monkeypatch.setenv("MLFLOW_RUN_ID", "r")
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(f"{folder}/tracking")
        monkeypatch.setenv("LOCALML_TRACKING", f"{folder}/tracking")
        tracking.log_metrics({"a": 1})
    assert "not everything is logged, the step goes on: ConnectionRefusedError" in capsys.readouterr().err


def test_a_step_asks_the_runner_for_nothing_else():
    sockets = TrackingSocket(lambda *_, **__: pytest.fail("asked"))
    writer = tracking.RunnerWriter(sockets.address)
    try:
        with pytest.raises(TrackingError, match="end_run is none of log_rows, log_artifact"):
            writer._ask("end_run", run_id="r", status="FINISHED")
    finally:
        sockets.close()


def test_a_step_that_is_repeated_by_hand_logs_by_mlflow(run, monkeypatch):
    monkeypatch.setenv("LOCALML_TRACKING", "/absent/tracking")
    tracking.log_metrics({"a": 1})
    assert run().data.metrics == {"a": 1.0}


@pytest.fixture
def slow_server():
    """Answers nothing but HTTP 500, after a while."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.asked += 1
            time.sleep(0.2)
            self.send_error(500)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_in_trouble_costs_little_and_is_asked_again_later(slow_server, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{slow_server.server_port}")
    monkeypatch.setenv("MLFLOW_RUN_ID", "x")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    started = time.monotonic()
    for _ in range(1_000):
        tracking.log_metrics({"a": 1})
    assert slow_server.asked == 1
    took = time.monotonic() - started
    assert 0.2 <= took < 20, "all of them would take 200 s"
    assert 2 - took < tracking._resume_at - time.monotonic() <= 10 * took, "ten times the 0.2 s that the first one took"
    monkeypatch.setattr(tracking, "_resume_at", 0.0)  # later
    tracking.log_metrics({"a": 1})
    assert slow_server.asked == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all("not everything is logged, the step goes on" in line for line in lines)


def test_a_step_ends_well_when_tracking_does_not(tmp_path, load_main, monkeypatch, capsys):
    """The outputs of a long step matter more than its metrics."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("MLFLOW_RUN_ID", "x")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_text("A sentence.")
    outputs = {name: tmp_path / name for name in ("documents", "held_out_documents", "manifest", "quarantine")}
    main = load_main("collect_documents")
    assert main.run(main.Args(raw_data=tmp_path / "raw", **outputs))["data/num_documents"] == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tracking: not everything is logged, the step goes on: MlflowException: ")
    assert all(path.is_file() and path.with_name(f"{path.name}.lineage.json").is_file() for path in outputs.values())


def test_numbers_only(run):
    with pytest.raises(ValueError, match="could not convert"):
        tracking.log_metrics({"a": "much"})
