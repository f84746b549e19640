"""MLflow's server for the steps of a workspace's jobs, without what Azure ML's does not have.

Azure ML answers 404 for logged models and traces, so that ``mlflow.<flavor>.log_model`` of MLflow 3 fails there. A step
that does so must fail here as well. Started by the first job as ``python -m localml.workspace.tracking_server ROOT``.
"""

import contextlib
import fcntl
import hmac
import http.client
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

from localml.errors import RunError
from localml.workspace import settings

_SCRIPTS = Path(__file__).resolve().parents[2]
_START_SECONDS = 90.0
_MISSING = ("/mlflow/logged-models", "/mlflow/traces")


@contextlib.contextmanager
def wanted(root: Path) -> Iterator[TextIO]:
    """While anybody is in here the server stays; the system itself notices who is killed."""
    with _open(root, "wanted") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lock


@contextlib.contextmanager
def running(root: Path) -> Iterator[Future]:
    """The address of the server, which is started where it does not run: meanwhile a job has other things to do."""
    with wanted(root), ThreadPoolExecutor(1) as beside:
        yield beside.submit(_ensure, root)


def _ensure(root: Path) -> str:
    known = settings.read(root)
    with _open(root, "start") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not _answers(known.tracking_port):
            _start(root, known.tracking_port)
    return known.tracking_url


def _start(root: Path, port: int) -> None:
    log = settings.folder(root) / "tracking.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "localml.workspace.tracking_server", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(_SCRIPTS)},
        )
    ends = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < ends:
        if _answers(port):
            return
        time.sleep(0.1)
    process.kill()
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise RunError(f"MLflow's server did not start: {lines[-1] if lines else 'no word'} (see {log})")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().read() == b"OK"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _open(root: Path, name: str) -> TextIO:
    return (settings.folder(root) / f"tracking.{name}").open("a")


def serve(root: Path) -> None:
    """Until nobody wants it any more."""
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{(root / 'mlflow.db').as_posix()}"
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = (root / "mlartifacts").as_uri()
    from flask import Response, request
    from mlflow.server import app
    from werkzeug.serving import make_server

    known = settings.read(root)
    expected = f"Bearer {known.tracking_token}".encode()

    @app.before_request
    def as_on_azure() -> Response | None:
        given = request.headers.get("Authorization", "").encode("utf-8", "replace")
        if request.path != "/health" and not hmac.compare_digest(given, expected):
            return Response("MLFLOW_TRACKING_TOKEN is not that of this workspace.", 401, content_type="text/plain")
        if any(part in request.path for part in _MISSING):
            return Response(f"There is no {request.path} on Azure ML.", 404, content_type="text/plain")
        return None

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line for each call
    server = make_server("127.0.0.1", known.tracking_port, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with _open(root, "wanted") as lock:
        while True:
            time.sleep(1)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]).resolve())
