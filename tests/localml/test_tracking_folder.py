"""The folder of the socket on which steps log: gone with its runner, however that ends."""

import subprocess
import sys
import time
from types import SimpleNamespace
from unittest import mock

from localml import tracking

RUNNER = """
import sys, time
from pathlib import Path
from localml.tracking import Tracker
tracker = Tracker(Path(sys.argv[1]), "e", "j")
tracker.open()
print("open", flush=True)
time.sleep(60)
"""


def test_a_runner_that_is_killed_leaves_no_folder(root, tmp_path):
    environment = {"PYTHONPATH": str(root / "scripts"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", RUNNER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout.readline() == "open\n"
        assert list(tmp_path.glob("localml-*/tracking"))
        runner.kill()
    ends = time.monotonic() + 60
    while list(tmp_path.glob("localml-*")):
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_job_of_a_workspace_opens_no_socket(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALML_TRACKING_SERVER", "http://127.0.0.1:1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answers = SimpleNamespace(readline=lambda: '{"result": "1"}', close=lambda: None)
    writer = SimpleNamespace(stdin=mock.Mock(), stdout=answers, wait=lambda: None)
    monkeypatch.setattr(tracking, "subprocess", mock.Mock(Popen=lambda *_, **__: writer))
    with tracking.Tracker(tmp_path, "e", "j") as tracker:
        tracker.open()
        assert not list(tmp_path.glob("localml-*"))
        assert tracker.environment("run")["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:1"
