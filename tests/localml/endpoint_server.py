"""A server for tests of the endpoint host, that does what the body of a request asks: wait, fail, stream, die."""

import http.server
import json
import os
import signal
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self._send(200, b"{}")

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        time.sleep(body.get("sleep", 0))
        if body.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if "stream" in body:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(body["stream"]):
                part = f"data: {number}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
                time.sleep(body.get("pause", 0))
                if body.get("break") == number:
                    self.close_connection = True
                    return
            self.wfile.write(b"0\r\n\r\n")
            return
        seen = {name.lower(): value for name, value in self.headers.items()}
        answer = {"pid": os.getpid(), "path": self.path, "headers": seen, "variables": dict(os.environ)}
        self._send(body.get("status", 200), json.dumps(answer).encode())

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


print("a server for tests", flush=True)
if "--broken" in sys.argv:
    sys.exit("no such weights: model.safetensors")
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
if "--deaf" in sys.argv:
    time.sleep(600)
server.serve_forever()
