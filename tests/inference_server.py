"""The Azure ML inference server with the scoring script that ships, as a real process on loopback."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SERVING = ROOT / "components" / "deploy_endpoint" / "serving"


@dataclass(frozen=True)
class Server:
    url: str
    log: Path
    process: psutil.Process


@contextlib.contextmanager
def running(model: Path, folder: Path) -> Iterator[Server]:
    """Start it in an empty folder, since the server takes a config.json where it starts for its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "localml.inference_server", "--entry_script", str(SERVING / "score.py")]
    variables = {"PYTHONPATH": str(ROOT / "scripts"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    variables["GUNICORN_CMD_ARGS"] = "--threads 32 --keep-alive 0 --no-control-socket"
    log = folder / "server.log"
    with log.open("wb") as out:
        started = subprocess.Popen(
            [*command, "--model_dir", str(model), "--port", str(port)],
            cwd=folder,
            env={**os.environ, **variables},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    process = psutil.Process(started.pid)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/", started, log)
        yield Server(f"http://127.0.0.1:{port}/score", log, process)
    finally:
        workers = process.children(recursive=True) if process.is_running() else []
        started.terminate()
        try:
            started.wait(timeout=10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        _, left = psutil.wait_procs(workers, timeout=5)
        for worker in left:
            worker.kill()
        assert not left, "the server has left a worker behind"


def wait_until_ready(url: str, started: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and started.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the inference server does not answer: {log.read_text(errors='replace')[-2000:]}")
