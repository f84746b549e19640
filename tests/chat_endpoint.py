"""A chat endpoint on loopback that answers, fails and stalls as a test tells it to."""

import contextlib
import http.server
import json
import threading
import time


def completion(text="yes", *, finish_reason="stop", tokens=(10, 5), **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    return {"choices": [choice], "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}}


class Endpoint:
    """Answers each POST with what ``reply(number from 0, body)`` says: (status, payload or raw text, headers)."""

    def __init__(self, reply):
        self.reply, self.bodies, self.headers, self.times = reply, [], [], []
        self.paths, self.running, self.most_running, self._lock = [], 0, 0, threading.Lock()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with endpoint._lock:
                    number = len(endpoint.bodies)
                    endpoint.bodies.append(body)
                    endpoint.headers.append(dict(self.headers))
                    endpoint.times.append(time.monotonic())
                    endpoint.paths.append(self.path)
                    endpoint.running += 1
                    endpoint.most_running = max(endpoint.most_running, endpoint.running)
                result = endpoint.reply(number, body)
                with endpoint._lock:
                    endpoint.running -= 1
                if result is None:  # break the connection
                    self.close_connection = True
                    return
                status, payload, headers = (*result, {})[:3] if isinstance(result, tuple) else (200, result, {})
                raw = (payload if isinstance(payload, str) else json.dumps(payload)).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": len(raw)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(raw)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def dripping():
    """The URL of a server that never ends its answer: each byte of it comes in time."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # until the client has gone
                while not ended.wait(0.05):
                    self.wfile.write(b" ")

        def log_message(self, *_):
            pass

    ended = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
