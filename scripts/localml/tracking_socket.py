"""Takes from running steps what they log, so that none of them has to load MLflow, which takes seconds each time."""

import contextlib
import json
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("log_rows", "log_artifact")


class TrackingSocket(socketserver.ThreadingUnixStreamServer):
    """Hands each request, a line of JSON with a call and its arguments, to ``ask``, and its error back.

    The socket lies in a folder that other users of the machine cannot enter.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, ask: Callable[..., Any]) -> None:
        self.ask = ask
        self.folder = Path(tempfile.mkdtemp(prefix="localml-"))  # a path of a socket has 107 characters at most
        super().__init__(str(self.folder / "tracking"), _Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def address(self) -> str:
        return str(self.server_address)

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Handler(socketserver.StreamRequestHandler):
    server: TrackingSocket

    def handle(self) -> None:
        try:
            call, arguments = json.loads(self.rfile.readline())
            if call not in CALLS:
                raise ValueError(f"{call} is none of {', '.join(CALLS)}")
            self.server.ask(call, **arguments)
            answer = {}
        except Exception as error:  # whatever it is, the step says it and goes on
            answer = {"error": str(error)}
        with contextlib.suppress(OSError):  # the step has ended meanwhile
            self.wfile.write(json.dumps(answer).encode() + b"\n")
