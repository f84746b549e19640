"""serving/score.py under the real Azure ML inference server: OpenAI's form out, 4xx for what a client does wrong."""

import http.client
import json
import logging
import socket
import sys
import time
import types
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import flask
import httpx
import openai
import psutil
import pytest
from openai.types.chat import ChatCompletion

from tests import inference_server

if str(inference_server.SERVING) not in sys.path:
    sys.path.append(str(inference_server.SERVING))

import chat_request
import engines
import score

ASKED = [{"role": "user", "content": "배송은 얼마나 걸리나요? 東京まで 🌊"}]
PRIVATE = "my-secret-diagnosis-4711"


@pytest.fixture(scope="module")
def server(small_model, tmp_path_factory) -> Iterator[inference_server.Server]:
    with inference_server.running(small_model, tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module")
def client(server) -> openai.OpenAI:
    """OpenAI's own client; an endpoint of Azure ML has another path."""

    def to_score(request: httpx.Request) -> None:
        request.url = httpx.URL(server.url)

    http_client = httpx.Client(event_hooks={"request": [to_score]}, timeout=60, trust_env=False)
    return openai.OpenAI(base_url="http://endpoint/v1", api_key="none", http_client=http_client, max_retries=0)


def post(server: inference_server.Server, content: bytes | dict) -> httpx.Response:
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return httpx.post(server.url, content=content, timeout=60, trust_env=False)


def test_listens_on_this_machine_only(server):
    listening = [
        connection.laddr.ip
        for process in (server.process, *server.process.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def test_answer_has_openai_s_form(server):
    response = post(server, {"messages": ASKED, "max_tokens": 7})
    assert response.headers["content-type"] == "application/json"
    answer = ChatCompletion.model_validate(response.json(), strict=True)
    assert (answer.object, answer.choices[0].message.role) == ("chat.completion", "assistant")
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 7
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 7
    assert abs(answer.created - time.time()) < 60


def test_openai_s_client_sees_the_same_text_streamed(client):
    asked = {"model": "any", "messages": ASKED, "max_tokens": 20}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1
    without_usage = list(client.chat.completions.create(**asked, stream=True))
    assert len(without_usage) == len(chunks) - 1
    assert all(chunk.usage is None for chunk in without_usage)


def test_sampling_is_repeated_by_its_seed(client):
    def texts(**more) -> list[str]:
        asked = {"model": "any", "messages": ASKED, "max_tokens": 12, **more}
        return [client.chat.completions.create(**asked).choices[0].message.content for _ in range(2)]

    greedy, sampled = texts(), texts(temperature=1.7, top_p=0.95, seed=3)
    assert greedy[0] == greedy[1]
    assert sampled[0] == sampled[1] != greedy[0]


def test_stop_string_ends_the_answer(client):
    def ask(**more):
        return client.chat.completions.create(model="any", messages=ASKED, max_tokens=20, **more).choices[0]

    text = ask().message.content
    assert len(text) > 6
    stop = text[3:5]
    ended = ask(stop=stop)
    assert (ended.message.content, ended.finish_reason) == (text[: text.index(stop)], "stop")
    assert ask(stop=["never there", "neither"]).message.content == text


def test_parts_of_text_and_what_asks_for_nothing_are_taken(server):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    in_parts = post(server, {"messages": [{"role": "developer", "content": parts}], "max_completion_tokens": 3})
    as_text = post(server, {"messages": [{"role": "system", "content": "one\ntwo"}], "max_tokens": 3, "n": 1})
    assert in_parts.status_code == as_text.status_code == 200
    assert in_parts.json()["choices"] == as_text.json()["choices"]
    harmless = {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "presence_penalty": 0}
    assert (
        post(server, {"messages": ASKED, "max_tokens": 1, "user": "me", "top_p": None, **harmless}).status_code == 200
    )


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{hello", None),
        (b"[" * 100_000, None),
        (b'{"messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}", None),
        (b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', None),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None),
        (b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}', "temperature"),
        (b'{"messages": [{"role": "user", "content": "a"}], "top_p": Infinity}', "top_p"),
        ([1], None),
        ("text", None),
        (None, None),
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [*ASKED, {"role": "wizard", "content": "a"}]}, "messages[1].role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": ASKED, "max_tokens": -1}, "max_tokens"),
        ({"messages": ASKED, "max_tokens": 0}, "max_tokens"),
        ({"messages": ASKED, "max_tokens": True}, "max_tokens"),
        ({"messages": ASKED, "max_completion_tokens": "many"}, "max_completion_tokens"),
        ({"messages": ASKED, "temperature": -0.1}, "temperature"),
        ({"messages": ASKED, "temperature": 2.1}, "temperature"),
        ({"messages": ASKED, "top_p": 0}, "top_p"),
        ({"messages": ASKED, "seed": 2**63}, "seed"),
        ({"messages": ASKED, "seed": 10**400}, "seed"),
        ({"messages": ASKED, "stop": ""}, "stop[0]"),
        ({"messages": ASKED, "stop": ["a", 3]}, "stop[1]"),
        ({"messages": ASKED, "stop": ["a"] * 17}, "stop"),
        ({"messages": ASKED, "stream": "yes"}, "stream"),
        ({"messages": ASKED, "n": 2}, "n"),
        ({"messages": ASKED, "tools": [{"type": "function"}]}, "tools"),
        ({"messages": ASKED, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": ASKED, "logprobs": True}, "logprobs"),
        ({"messages": ASKED, "frequency_penalty": 0.5}, "frequency_penalty"),
        ({"messages": [{"role": "user", "content": "and so on " * 3000}]}, "messages"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_client_s_mistake_is_a_400_that_names_it(server, body, param):
    response = post(server, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert response.status_code == 400
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]


def test_openai_s_client_knows_the_errors(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": "so on " * 5000}])
    assert raised.value.code == "context_length_exceeded"
    assert "2,048 tokens" in raised.value.message


def test_ten_megabytes_are_refused(server):
    chat = json.dumps({"messages": ASKED, "padding": "a" * 10 * 2**20}).encode()
    assert post(server, chat).status_code == 413
    address = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("POST", "/score", iter([chat]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    response = connection.getresponse()
    assert (response.status, json.load(response)["error"]["type"]) == (413, "invalid_request_error")
    connection.close()


def test_other_methods_are_refused(server):
    response = httpx.get(server.url, trust_env=False)
    assert (response.status_code, response.json()["error"]["message"]) == (405, "send a POST request")


def test_probes_are_answered_while_all_places_are_taken_and_those_who_leave_free_theirs(server):
    address = urllib.parse.urlsplit(server.url)
    body = json.dumps({"messages": ASKED, "max_tokens": 2000, "stream": True}).encode()
    request = b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    one_token = {"messages": ASKED, "max_tokens": 1}
    streams = []
    try:
        for _ in range(score.MAX_RUNNING + score.MAX_WAITING):
            streams.append(socket.create_connection((address.hostname, address.port), timeout=30))
            streams[-1].sendall(request)
        refused = httpx.Response(0)
        deadline = time.monotonic() + 30
        while refused.status_code != 429 and time.monotonic() < deadline:
            try:
                refused = httpx.post(server.url, json=one_token, timeout=0.5, trust_env=False)
            except httpx.TimeoutException:
                continue
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "queue_full"
        assert httpx.get(server.url.removesuffix("score"), timeout=10, trust_env=False).text == "Healthy"
        assert streams[0].recv(12) == b"HTTP/1.1 200"
    finally:
        for stream in streams:
            stream.close()
    # Twenty answers of up to two thousand tokens would take minutes.
    answered, deadline = httpx.Response(0), time.monotonic() + 20
    while answered.status_code != 200 and time.monotonic() < deadline:
        answered = post(server, one_token)
    assert answered.status_code == 200


def test_nothing_of_a_chat_is_logged(server):
    chat = [{"role": "user", "content": PRIVATE}]
    assert post(server, {"messages": chat, "max_tokens": 2}).status_code == 200
    assert post(server, {"messages": chat, "max_tokens": 2, "stream": True}).status_code == 200
    assert post(server, {"messages": [{"role": PRIVATE, "content": PRIVATE}]}).status_code == 400
    assert post(server, f'{{"messages": "{PRIVATE}'.encode()).status_code == 400
    log = server.log.read_text(encoding="utf-8")
    assert "POST /score" in log
    assert PRIVATE not in log


class BrokenEngine:
    """Fails after some tokens with a message that quotes the chat."""

    context_length = 100
    adapters = types.MappingProxyType({})

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens

    def encode_chat(self, messages):
        return [1, 2, 3]

    def decoder(self):
        return self

    def put(self, token_id: int) -> str:
        return "x"

    def stream(self, *_):
        yield from range(self.num_tokens)
        raise RuntimeError(f"cannot go on with {PRIVATE}")


@pytest.mark.parametrize("num_tokens", [0, 2])
def test_a_failure_of_the_model_is_told_without_the_chat(monkeypatch, caplog, num_tokens):
    monkeypatch.setattr(score, "engine", BrokenEngine(num_tokens), raising=False)
    monkeypatch.setattr(score, "model_name", "broken:1", raising=False)
    monkeypatch.setattr(score, "admission", score.Admission(1, 0), raising=False)
    app = flask.Flask("test")
    app.add_url_rule("/score", view_func=lambda: score.run(flask.request), methods=["POST"])
    with caplog.at_level(logging.ERROR):
        whole = app.test_client().post("/score", json={"messages": ASKED})
        streamed = app.test_client().post("/score", json={"messages": ASKED, "stream": True})
        events = streamed.text.strip().split("\n\n")  # read to its end
        streamed.close()
        again = app.test_client().post("/score", json={"messages": ASKED})
    assert whole.status_code == again.status_code == 500
    assert whole.json["error"]["type"] == "server_error"
    assert len(events) == num_tokens + 2
    assert json.loads(events[-1].removeprefix("data: ")) == whole.json
    assert "RuntimeError in the model" in caplog.text
    assert PRIVATE not in caplog.text + whole.text + streamed.text


def test_a_stream_that_is_never_read_gives_its_place_back(monkeypatch):
    monkeypatch.setattr(score, "engine", BrokenEngine(2), raising=False)
    monkeypatch.setattr(score, "model_name", "broken:1", raising=False)
    monkeypatch.setattr(score, "admission", score.Admission(1, 0), raising=False)
    with flask.Flask("test").test_request_context(json={"messages": ASKED, "stream": True}, method="POST"):
        score.run(flask.request).close()
    score.admission.enter()
    with pytest.raises(chat_request.RequestError) as refused:
        score.admission.enter()
    assert refused.value.status == 429


def test_the_served_name_is_the_deployment_s_or_the_folder_s(monkeypatch):
    mounted = Path("/var/azureml-app/azureml-models/support/3")
    assert [score.served_name(root) for root in (mounted, Path("/runs/quantized_model"))] == [
        "support:3",
        "quantized_model",
    ]
    monkeypatch.setenv("SERVED_MODEL_NAME", "slm")
    assert score.served_name(mounted) == "slm"


def test_model_folder_is_the_one_that_holds_a_model(tmp_path):
    with pytest.raises(engines.UnusableModelError, match="has none"):
        score.model_folder(tmp_path)
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "deep" / "genai_config.json").write_text("{}")
    assert score.model_folder(tmp_path) == tmp_path / "model" / "deep"
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(engines.UnusableModelError, match="model, model/deep"):
        score.model_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert score.model_folder(tmp_path) == tmp_path
