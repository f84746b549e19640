"""A chat server that answers at once, until a file appears that says how it breaks: 500, hang or exit."""

import argparse
import http.server
import json
import os
import sys
import time
from pathlib import Path

MAX_BYTES = 2**20
BREAKS = Path(os.environ["BREAKS"])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {})

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            body = json.loads(raw.decode())
            question, num_tokens = body["messages"][-1]["content"], body.get("max_tokens", 16)
            is_right = (
                len(raw) < MAX_BYTES and body["messages"][-1]["role"] == "user" and num_tokens > 0 and question + ""
            )
        except (ValueError, TypeError, KeyError, IndexError):
            is_right = False
        if not is_right:
            return self.answer(400, {"error": {"message": "not a chat"}})
        how = BREAKS.read_text() if BREAKS.exists() else ""
        if how == "exit":
            os._exit(1)
        if how == "hang":
            time.sleep(600)
        if how == "500":
            return self.answer(500, {"error": {"message": "broken"}})
        if body.get("stream"):
            return self.stream()
        num_bytes = len(question.encode())  # a token each, so that texts of other characters are not alike
        usage = {"prompt_tokens": num_bytes, "completion_tokens": 1, "total_tokens": num_bytes + 1}
        message = {"role": "assistant", "content": "はい 네"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        head = {"id": "1", "object": "chat.completion", "created": 1, "model": "slm"}
        self.answer(200, {**head, "choices": [choice], "usage": usage})

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number, text in enumerate(("はい", " ", "네")):
            delta, reason = (
                ({} if number else {"role": "assistant"}) | {"content": text},
                "stop" if number == 2 else None,
            )
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            event = json.dumps({"id": "1", "object": "chat.completion.chunk", "choices": [choice]})
            self.wfile.write(f"data: {event}\n\n".encode())
            self.wfile.flush()
            time.sleep(0.05)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def answer(self, status, content):
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *said):
        print(*said, file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    http.server.ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler).serve_forever()
