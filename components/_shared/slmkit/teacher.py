"""The teacher that a component asks: an OpenAI-compatible endpoint, or the component's own one on loopback."""

import contextlib
import http.server
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from slmkit.chat_client import ChatClient

EMBEDDED = "embedded"
EmbeddedTeacher = Callable[[dict[str, Any]], str]
"""Takes the body of a chat-completions request and gives the text of the answer; ``ValueError`` for a bad request."""


@contextlib.asynccontextmanager
async def connect(
    teacher: str, teacher_model: str, answer: EmbeddedTeacher, *, auth: str, **settings: Any
) -> AsyncIterator[ChatClient]:
    """The client of the endpoint at ``teacher``, or of the embedded teacher, which is served for as long.

    The embedded one is asked over HTTP as well, so that what runs without a model is what runs with one.
    ``settings`` are those of ``ChatClient``.
    """
    if teacher != EMBEDDED:
        async with ChatClient(teacher, teacher_model, auth=auth, **settings) as client:
            yield client
        return
    with served(answer) as base_url:  # its port is another one each time, and no key of a cache
        async with ChatClient(base_url, EMBEDDED, auth="none", cache_as=EMBEDDED, **settings) as client:
            yield client


def name(teacher: str, teacher_model: str) -> str:
    """What to call the teacher in logs and reports."""
    return EMBEDDED if teacher == EMBEDDED else teacher_model


def keep_until_done(report: Path) -> Path:
    """The file of the teacher's answers so far, from which a killed step goes on."""
    return report / "teacher_answers.sqlite"


def forget(answers_so_far: Path) -> None:
    """Remove the answers of a step that is done."""
    for path in answers_so_far.parent.glob(f"{answers_so_far.name}*"):
        path.unlink()


@contextlib.contextmanager
def served(answer: EmbeddedTeacher) -> Iterator[str]:
    """Serve on a free port of this machine; gives the base URL."""
    handler = type("Handler", (_Handler,), {"answer": staticmethod(answer)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    answer: EmbeddedTeacher

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/chat/completions":
            status, payload = 404, {"error": {"message": f"nothing at {self.path}"}}
        else:
            try:
                status, payload = 200, _completion(self.answer(json.loads(body)))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                status, payload = 400, {"error": {"message": f"{EMBEDDED}: not a request that it knows: {error!r}"}}
        raw = json.dumps(payload, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Stay silent: the client counts its requests."""


def _completion(content: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    tokens = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}  # there is no model to count them
    return {"object": "chat.completion", "model": EMBEDDED, "choices": [choice], "usage": tokens}
