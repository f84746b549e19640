"""The scoring script of an online deployment: OpenAI's chat completions from a model on the CPU.

Serve it with GUNICORN_CMD_ARGS="--threads 32 --keep-alive 0 --no-control-socket". With more threads than answers that
run and wait, probes are answered while the model is busy; an idle open connection would hold up a stop for 30 seconds.
Nothing of a chat is logged, here or by the inference server.
"""

import json
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

from azureml_inference_server_http.api.aml_request import rawhttp
from flask import Request, Response

# The server loads this file by its path.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import chat_request
import engines
from chat_reply import Reply, error_event
from chat_request import RequestError
from lora_engine import LoraEngine, has_adapters

MAX_BODY_BYTES = 2 * 2**20  # 128k tokens of Japanese with every character escaped come to less
MAX_DISCARDED_BYTES = 64 * 2**20
MAX_RUNNING = 4  # answers that advance together; more only make all of them slow
MAX_WAITING = 16
INTERNAL_ERROR = {
    "error": {"message": "The model failed on this request.", "type": "server_error", "param": None, "code": None}
}

logger = logging.getLogger("azmlinfsrv.score")


class Admission:
    """Who may use the model: a few at a time, a few more wait, and the others are told to come back."""

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._places = threading.BoundedSemaphore(max_running + max_waiting)
        self._running = threading.BoundedSemaphore(max_running)

    def enter(self) -> None:
        if not self._places.acquire(blocking=False):
            raise RequestError("too many requests wait; try again in a moment", status=429, code="queue_full")
        self._running.acquire()

    def leave(self) -> None:
        self._running.release()
        self._places.release()


def init() -> None:
    """Load the model that Azure ML has put into AZUREML_MODEL_DIR."""
    global engine, model_name, admission
    # With Application Insights on, the server's request log would hold the answers; it would also wait for a
    # stream's end before sending its beginning.
    from azureml_inference_server_http.server.config import config

    config.app_insights_log_response_enabled = False
    config.mdc_storage_enabled = False

    root = Path(os.environ["AZUREML_MODEL_DIR"])
    folder = model_folder(root)
    engine = LoraEngine(folder) if has_adapters(folder) else engines.load(folder)
    model_name = served_name(root)
    admission = Admission(MAX_RUNNING, MAX_WAITING)


def served_name(root: Path) -> str:
    """What answers call the model: SERVED_MODEL_NAME, as vLLM's container has it, or what the folder tells."""
    # Azure ML puts version 3 of the model support at azureml-models/support/3.
    told = f"{root.parent.name}:{root.name}" if root.parent.parent.name == "azureml-models" else root.name
    return os.environ.get("SERVED_MODEL_NAME") or told


def model_folder(root: Path) -> Path:
    """The folder itself, or the one below it, that holds a model or a base with its adapters."""
    for folder in (root, *sorted(root.glob("*/"))):
        if has_adapters(folder):
            return folder
    found = sorted({file.parent for name in ("genai_config.json", "config.json") for file in root.rglob(name)})
    if root in found:
        return root
    if len(found) != 1:
        names = ", ".join(str(folder.relative_to(root)) for folder in found) or "none"
        raise engines.UnusableModelError(f"{root}: needs one folder with genai_config.json or config.json, has {names}")
    return found[0]


@rawhttp
def run(request: Request) -> Response:
    try:
        return answer(request)
    except RequestError as error:
        headers = {"Retry-After": "1"} if error.status == 429 else {}
        return json_response(error.body, error.status, headers)
    except Exception as error:
        log_failure(error)
        return json_response(INTERNAL_ERROR, 500)


def answer(request: Request) -> Response:
    asked = chat_request.parse(body_of(request))
    asked_of, name = named(asked.model)
    try:
        prompt = engine.encode_chat([message.as_the_template_knows_it() for message in asked.messages])
    except engines.UnusableChatError as error:
        raise RequestError(str(error), param="messages") from None
    if len(prompt) >= engine.context_length:
        raise RequestError(
            f"the model takes {engine.context_length:,} tokens with its answer; the messages come to {len(prompt):,}",
            param="messages",
            code="context_length_exceeded",
        )
    reply = Reply(asked_of, name, prompt, asked)
    pieces = until_client_leaves(reply.pieces(), request.environ.get("gunicorn.socket"))
    admission.enter()
    if asked.stream:
        events = stream(reply, pieces)
        response = Response(events, mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})
        # Not at the end of the stream: a client may be gone before it began.
        response.call_on_close(admission.leave)
        return response
    try:
        text = "".join(pieces)
    finally:
        admission.leave()
    return Response(reply.completion(text), mimetype="application/json")


def named(name: str | None) -> tuple[engines.Engine, str]:
    """Who answers, and what it is called: an adapter by its name, the base otherwise; one model under any name."""
    if not engine.adapters or name in (None, model_name):
        return engine, model_name
    if name not in engine.adapters:
        known = ", ".join((model_name, *engine.adapters))
        raise RequestError(
            f"the model {name!r:.100} does not exist; known: {known}", param="model", code="model_not_found", status=404
        )
    return engine.adapters[name], name


def body_of(request: Request) -> bytes:
    if request.method != "POST":
        raise RequestError("send a POST request", status=405)
    body = request.environ["wsgi.input"]
    try:
        content = body.read(MAX_BODY_BYTES + 1)
        if len(content) <= MAX_BODY_BYTES:
            return content
        # To the end, since a client that is still sending does not see the answer.
        for _ in range(MAX_DISCARDED_BYTES // MAX_BODY_BYTES):
            if not body.read(MAX_BODY_BYTES):
                break
    except Exception:  # whatever the server raises for a connection that breaks, or chunks that are none
        raise RequestError("the body cannot be read to its end") from None
    raise RequestError(f"the body is larger than {MAX_BODY_BYTES:,} bytes", status=413)


def stream(reply: Reply, pieces: Iterator[str]) -> Iterator[bytes]:
    try:
        yield from reply.events(pieces)
    except Exception as error:  # the status has long been sent
        log_failure(error)
        yield error_event(INTERNAL_ERROR)


def until_client_leaves(pieces: Iterator[str], connection: socket.socket | None) -> Iterator[str]:
    """Nobody waits for the rest, while others wait for the model."""
    for piece in pieces:
        yield piece
        if connection is not None and is_closed(connection):
            return


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False  # open, and nothing to read
    except OSError:
        return True


def log_failure(error: Exception) -> None:
    """Where it happened; not the message, which may quote the chat."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s in the model:\n%s", type(error).__name__, where)


def json_response(content: dict, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status=status, headers=headers, mimetype="application/json")
