"""Clients that ask an endpoint all the time, and what each of them sees."""

import http.client
import json
import threading
import time
from urllib.parse import urlsplit


class Load:
    """Clients that ask all the time; ``answers`` are (when it was asked, status, which deployment)."""

    def __init__(self, uri: str, num_clients: int = 4, timeout_seconds: float = 60.0) -> None:
        self.timeout = timeout_seconds
        self.uri, self.answers, self.ending = urlsplit(uri), [], threading.Event()
        self.body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8})
        self.threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(num_clients)]

    def ask(self) -> None:
        while not self.ending.wait(0.02):
            asked, connection = time.monotonic(), http.client.HTTPConnection(self.uri.netloc, timeout=self.timeout)
            try:
                connection.request("POST", self.uri.path, self.body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                seen = answer.status, answer.headers.get("azureml-model-deployment")
            except (OSError, http.client.HTTPException) as error:
                seen = type(error).__name__, None
            finally:
                connection.close()
            self.answers.append((asked, *seen))

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join()
