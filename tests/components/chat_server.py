"""A chat endpoint on loopback that does all that is asked of one, except for the one fault that a test gives it."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator

TEXT = "返品は三十日以内です🌊"
MODELS = ("m", "store", "billing")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fault, seen = "", []

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(dict(self.headers))
        try:
            body = json.loads(raw)
            content = body["messages"][0]["content"]
            is_right = isinstance(content, str) and body["messages"][0]["role"] == "user" and body["max_tokens"] > 0
        except (ValueError, TypeError, KeyError, IndexError):
            is_right = False
        if not is_right and self.fault.startswith("Azure "):
            self.answer(424, {"error": "model error"}, {"ms-azureml-model-error-statuscode": self.fault[-3:]})
        elif not is_right:
            self.answer(500 if self.fault == "5xx" else 422, {"detail": "not the chat form"})
        elif body["model"] not in MODELS and self.fault != "any name":
            self.answer(404, {"error": {"message": f"no model {body['model']}"}})
        elif self.fault == "401":
            self.answer(401, {"error": {"message": "no valid token"}})
        elif self.fault == "busy" and body["max_tokens"] == 16:
            self.answer(429, {"error": {"message": "busy"}})
        elif body.get("stream"):
            self.stream()
        else:
            self.whole(raw, content, "m" if self.fault == "the base answers" else body["model"])

    def whole(self, raw: bytes, content: str, model: str) -> None:
        text = TEXT.replace("三", "�") if self.fault == "broken character" else self.text()
        if self.fault == "reads escapes otherwise" and rb"\u" in raw:
            text = "?"
        encoding = "latin-1" if self.fault == "question marks" else "utf-8"  # a token is a byte
        num_tokens = len(raw if self.fault == "counts bytes" else content.encode(encoding, "replace"))
        total = 99 if self.fault == "wrong sum" else num_tokens + 4
        usage = {"prompt_tokens": num_tokens, "completion_tokens": 4, "total_tokens": total}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}
        self.answer(200, answer | ({} if self.fault == "no usage" else {"usage": usage}))

    def stream(self) -> None:
        text = TEXT + "!" if self.fault == "other text" else self.text()
        deltas = [{} if self.fault == "no role" else {"role": "assistant"}, *({"content": letter} for letter in text)]
        events = [self.chunk(delta) for delta in deltas]
        if self.fault != "no reason":
            events.append(self.chunk({}, "stop"))
        if self.fault == "not JSON":
            events.append(b"data: {\n\n")
        if self.fault != "no end":
            events.append(b"data: [DONE]\n\n")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if self.fault == "content type" else "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in [b"".join(events)] if self.fault == "one piece" else events:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def text(self) -> str:
        written = {"silent": "", "stray byte": TEXT + "�" + TEXT, "every character": "�" * len(TEXT) + "."}
        return written.get(self.fault, TEXT)

    def chunk(self, delta: dict, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"

    def answer(self, status: int, content: dict, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        lengths = {"Content-Type": "application/json", "Content-Length": str(len(raw))}
        for name, value in {**lengths, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def running(fault: str = "") -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Its URL, and the headers of each request so far."""
    handler = type("Handler", (Handler,), {"fault": fault, "seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/score", handler.seen
    finally:
        server.shutdown()
        server.server_close()
