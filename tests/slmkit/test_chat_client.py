"""The chat client against a real HTTP server on loopback that misbehaves as endpoints do."""

import asyncio
import email.utils
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, Field

from slmkit.chat_client import AnswerError, ChatClient, retry_after_seconds
from slmkit.errors import UserError
from slmkit.structured_answers import response_format
from tests.chat_endpoint import completion, dripping


def question(text):
    return [{"role": "user", "content": text}]


def asked(body):
    return body["messages"][0]["content"]


def ask(url, *texts, **options):
    """The answers (or errors) to the texts, in order, and the client's usage."""

    async def go():
        async with ChatClient(url, "m", **{"backoff_seconds": 0.01, **options}) as client:
            results = [r async for _, r in client.each(texts, lambda text: client.complete(question(text), seed=1))]
            return results, client.usage

    return asyncio.run(go())


def test_request_and_answer(serve):
    endpoint = serve(completion("four", tokens=(1_000, 200)))
    (answer,), usage = ask(endpoint.url, "2+2?", prices=(2.0, 10.0))
    assert endpoint.paths == ["/v1/chat/completions"]
    assert endpoint.bodies == [{"model": "m", "messages": question("2+2?"), "seed": 1}]
    assert "Authorization" not in endpoint.headers[0]
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens, answer.cached) == ("four", 1_000, 200, False)
    assert answer.cost == pytest.approx(0.004)  # 1000 x 2/1e6 + 200 x 10/1e6
    assert 0 < answer.latency_ms < 5_000
    summary = usage.summary()
    assert (summary["requests"], summary["answers"], summary["prompt_tokens"]) == (1, 1, 1_000)
    assert summary["cost"] == pytest.approx(0.004)
    assert summary["latency_p50_ms"] == summary["latency_p95_ms"] == answer.latency_ms


def test_in_order_and_never_more_than_concurrency(serve):
    together = threading.Barrier(4)

    def slow(number, body):
        if number < 4:
            together.wait(20)
        time.sleep(0.05 if number % 3 else 0.15)
        return completion(asked(body))

    endpoint = serve(slow)
    texts = [f"q{i}" for i in range(20)]
    answers, _ = ask(endpoint.url, *texts, concurrency=4)
    assert [answer.text for answer in answers] == texts
    assert endpoint.most_running == 4


def test_one_cool_down_for_all_workers(serve):
    endpoint = serve(
        lambda n, body: (429, {}, {"Retry-After": "0.5"}) if n == 0 else (time.sleep(0.02), completion())[1]
    )
    answers, usage = ask(endpoint.url, *map(str, range(30)), concurrency=3)
    assert [answer.text for answer in answers] == ["yes"] * 30
    first = endpoint.times[0]
    during = [at for at in endpoint.times[1:] if at - first < 0.49]
    assert len(during) <= 2  # only the requests of the two other workers that were already under way
    assert len(endpoint.times) == 31
    assert (usage.throttled, usage.retries, usage.requests) == (1, 1, 31)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 10.0),  # second 100, asked at second 90
        ({"retry-after": "Thu, 01 Jan 1970 00:00:40 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers, expected):
    assert retry_after_seconds(headers, now=90.0) == expected


def test_retry_after_as_a_date_is_waited_for(serve):
    wanted = int(time.time()) + 1
    date = email.utils.formatdate(wanted, usegmt=True)
    endpoint = serve(lambda n, body: (503, "", {"Retry-After": date}) if n == 0 else completion())
    ask(endpoint.url, "q")
    assert wanted <= time.time() < wanted + 5


def test_a_wait_of_no_time_is_none(serve):
    """An endpoint that says so is still in trouble: the rests grow, 0.1 to 0.2 s, then 0.2 to 0.4 s."""
    endpoint = serve(lambda n, body: (429, {}, {"Retry-After": "0"}) if n < 2 else completion())
    ask(endpoint.url, "q", backoff_seconds=0.2)
    first, second, third = endpoint.times
    assert second - first >= 0.1
    assert third - second >= 0.2


def test_a_quota_that_is_used_up_stops_at_once(serve):
    endpoint = serve((429, {}, {"Retry-After": "86400"}))
    with pytest.raises(UserError, match=r"HTTP 429.*86400 s.*quota"):
        ask(endpoint.url, "q")
    assert len(endpoint.bodies) == 1


def test_endless_throttling_ends(serve):
    endpoint = serve((429, {}, {"retry-after-ms": "10"}))
    with pytest.raises(UserError, match="HTTP 429, 4 times in a row"):
        ask(endpoint.url, "q", max_retries=3)
    assert len(endpoint.bodies) == 4


def test_passing_failures_are_retried_and_nothing_is_asked_twice_after_success(serve, tmp_path):
    failures = [
        *((500, "oops"), None, (502, "{}"), (200, "not JSON"), (200, {"choices": []}), (408, "")),
        *((200, "not gzip", {"Content-Encoding": "gzip"}), completion([{"type": "text", "text": "a list"}])),
    ]
    seen = Counter()

    def flaky(number, body):
        seen[asked(body)] += 1
        turn = int(asked(body))
        return (
            failures[turn // 2 % len(failures)] if turn % 2 == 0 and seen[asked(body)] == 1 else completion(asked(body))
        )

    endpoint = serve(flaky)
    texts = [str(i) for i in range(24)]
    answers, usage = ask(endpoint.url, *texts, cache_path=tmp_path / "cache")
    assert [answer.text for answer in answers] == texts
    assert all(seen[text] == (2 if int(text) % 2 == 0 else 1) for text in texts)
    assert (usage.requests, usage.retries, usage.answers, usage.failed) == (36, 12, 24, 0)

    again, usage = ask(endpoint.url, *texts, cache_path=tmp_path / "cache")
    assert sum(seen.values()) == 36
    assert [(a.text, a.cached, a.latency_ms) for a in again] == [(text, True, None) for text in texts]
    assert usage.summary() == {**dict.fromkeys(usage.summary(), 0), "cached": 24}


def test_one_failing_request_does_not_stop_the_others_and_is_not_cached(serve, tmp_path):
    healed = False

    def poison(number, body):
        return (500, "down") if asked(body) == "b" and not healed else completion(asked(body))

    endpoint = serve(poison)
    (a, b, c), usage = ask(endpoint.url, "a", "b", "c", max_retries=2, cache_path=tmp_path / "cache")
    assert (a.text, c.text) == ("a", "c")
    assert isinstance(b, AnswerError)
    assert str(b) == "HTTP 500 (3 attempts)"
    assert (usage.failed, usage.answers, usage.requests) == (1, 2, 5)
    healed = True
    (_, b, _), usage = ask(endpoint.url, "a", "b", "c", cache_path=tmp_path / "cache")
    assert (b.text, usage.cached, usage.requests) == ("b", 2, 1)


def test_slow_replies_time_out_and_are_asked_again(serve):
    asked_again = threading.Event()

    def slow_once(number, body):
        asked_again.set() if number else asked_again.wait(20)
        return completion()

    (answer,), usage = ask(serve(slow_once).url, "q", timeout_seconds=2)
    assert (answer.text, usage.retries) == ("yes", 1)


def test_an_answer_that_drips_in_for_ever_times_out():
    with dripping() as url:
        (error,), _ = ask(url, "q", timeout_seconds=0.3, max_retries=0)
    assert str(error) == "no answer in time (TimeoutError) (1 attempts)"


def test_an_answer_nested_without_end_is_one_request_that_failed(serve):
    (error,), _ = ask(serve("[" * 100_000).url, "q", max_retries=0)
    assert str(error) == "HTTP 200 without a chat completion in it (1 attempts)"


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_fails_at_once(serve, status):
    endpoint = serve((status, {"error": {"message": "no"}}))
    with pytest.raises(UserError, match=rf"{endpoint.url} refused access \(HTTP {status}\).*auth"):
        ask(endpoint.url, "q")
    assert len(endpoint.bodies) == 1


def test_unknown_model(serve):
    with pytest.raises(UserError, match="knows no model 'm'"):
        ask(serve((404, {"error": {"code": "DeploymentNotFound"}})).url, "q")


def test_nothing_listening():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    started = time.monotonic()
    with pytest.raises(UserError, match=f"nothing answers at {url}.*check the URL"):
        ask(url, "q")
    assert time.monotonic() - started < 2


def test_other_errors_carry_the_reason(serve):
    (answer,), _ = ask(serve((400, {"error": {"code": "x", "message": "context\n too long"}})).url, "q")
    assert isinstance(answer, AnswerError)
    assert str(answer) == "HTTP 400: context too long"


@pytest.mark.parametrize(
    "reply",
    [
        (400, {"error": {"code": "content_filter", "message": "policy"}}),
        completion("", finish_reason="content_filter"),
        completion(None, refusal="I cannot help with that."),
    ],
)
def test_refusals_are_counted_and_not_cached(serve, tmp_path, reply):
    endpoint = serve(lambda n, body: reply if asked(body) == "bad" else completion())
    for _ in range(2):
        (bad, good), usage = ask(endpoint.url, "bad", "good", cache_path=tmp_path / "cache")
        assert (bad.refused, bad.text, good.refused) == (True, "", False)
        assert (usage.refused, usage.failed) == (1, 0)
    assert [asked(body) for body in endpoint.bodies].count("bad") == 2
    assert [asked(body) for body in endpoint.bodies].count("good") == 1


class Part(BaseModel):
    title: str = Field(min_length=2)


class Pairs(BaseModel):
    count: int = 0
    parts: list[Part]
    note: str | None = None


def ask_pairs(url, **options):
    async def go():
        async with ChatClient(url, "m", backoff_seconds=0.01, **options) as client:
            asks = client.each(["q"], lambda text: client.complete_structured(question(text), Pairs))
            _, result = await anext(asks)
            return result, client.usage

    return asyncio.run(go())


GOOD = '{"count": 1, "parts": [{"title": "ab"}], "note": null}'


def test_structured_schema_is_strict():
    part = {"type": "object", "properties": {"title": {"type": "string"}}}
    part |= {"required": ["title"], "additionalProperties": False}
    assert response_format(Pairs)["json_schema"] == {
        "name": "Pairs",
        "strict": True,
        "schema": {
            "type": "object",
            "$defs": {"Part": part},
            "properties": {
                "count": {"type": "integer"},
                "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
            "required": ["count", "parts", "note"],
            "additionalProperties": False,
        },
    }


def test_malformed_answers_are_asked_again_and_only_the_good_one_is_kept(serve, tmp_path):
    replies = ['{"count": 1, "parts": [{"title": "a"}]}', "Sure! Here it is", f"```json\n{GOOD}\n```"]
    endpoint = serve(lambda n, body: completion(replies[n]))
    (answer, pairs), usage = ask_pairs(endpoint.url, cache_path=tmp_path / "cache")
    assert pairs == Pairs(count=1, parts=[Part(title="ab")])
    assert (usage.malformed, usage.answers, usage.requests, usage.prompt_tokens) == (2, 1, 3, 30)
    assert "parts.0.title" in endpoint.bodies[1]["messages"][-1]["content"]
    assert endpoint.bodies[2]["messages"][1] == {"role": "assistant", "content": "Sure! Here it is"}

    (answer, pairs), usage = ask_pairs(endpoint.url, cache_path=tmp_path / "cache")
    assert (pairs.count, answer.cached, usage.requests) == (1, True, 0)


def test_malformed_to_the_end_is_a_failure_and_is_not_kept(serve, tmp_path):
    endpoint = serve(completion("{"))
    for expected in (3, 6):
        error, usage = ask_pairs(endpoint.url, cache_path=tmp_path / "cache")
        assert isinstance(error, AnswerError)
        assert "malformed answer, asked 3 times" in str(error)
        assert (usage.failed, usage.malformed, len(endpoint.bodies)) == (1, 3, expected)


def test_structured_refusal(serve):
    (answer, pairs), usage = ask_pairs(serve(completion("", finish_reason="content_filter")).url)
    assert (answer.refused, pairs, usage.refused) == (True, None, 1)


def test_cache_is_keyed_by_everything_that_was_asked(serve, tmp_path):
    endpoint = serve(lambda n, body: completion(str(n)))
    path = tmp_path / "cache"

    async def text(model="m", text="q", cache_as=None, **params):
        async with ChatClient(endpoint.url, model, cache_path=path, cache_as=cache_as) as client:
            return (await client.complete(question(text), **params)).text

    async def go():
        first = await text(temperature=0, seed=1)
        assert await text(seed=1, temperature=0) == first
        others = [await text(temperature=1), await text("n", seed=1), await text(text="r"), await text(cache_as="x")]
        assert len({first, *others}) == 5
        assert await text(cache_as="x") == others[-1]

    asyncio.run(go())


def test_a_cache_in_use_says_so(serve, tmp_path):
    endpoint = serve(completion())

    async def go():
        async with ChatClient(endpoint.url, "m", cache_path=tmp_path / "cache") as client:
            await client.complete(question("q"))
            with pytest.raises(UserError, match="another process"):
                ChatClient(endpoint.url, "m", cache_path=tmp_path / "cache")

    asyncio.run(go())
    (tmp_path / "damaged").write_bytes(b"x" * 5_000)
    with pytest.raises(UserError, match="damaged"):
        ask(endpoint.url, "q", cache_path=tmp_path / "damaged")


def test_a_kill_loses_no_answer(serve, tmp_path, root):
    reached, killed = threading.Event(), threading.Event()

    def stall(number, body):
        if number == 5:
            reached.set()
            killed.wait(60)
        return completion(asked(body))

    endpoint = serve(stall)
    code = f"""
import asyncio
from pathlib import Path
from slmkit.chat_client import ChatClient
async def go():
    async with ChatClient({endpoint.url!r}, "m", concurrency=1, cache_path=Path({str(tmp_path / "cache")!r})) as client:
        for i in range(9):
            await client.complete([{{"role": "user", "content": str(i)}}], seed=1)
asyncio.run(go())
"""
    env = {**os.environ, "PYTHONPATH": str(root / "components" / "_shared")}
    process = subprocess.Popen([sys.executable, "-c", code], env=env)
    assert reached.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed.set()
    answers, usage = ask(endpoint.url, *map(str, range(9)), cache_path=tmp_path / "cache")
    assert [answer.text for answer in answers] == [str(i) for i in range(9)]
    assert (usage.cached, usage.requests) == (5, 4)


class Credential:
    """Hands out tokens that live for so many seconds."""

    def __init__(self, *lifetimes):
        self.lifetimes, self.scopes = list(lifetimes), []

    def get_token(self, *scopes):
        self.scopes.append(scopes)
        number = len(self.scopes)
        return SimpleNamespace(token=f"secret-{number}", expires_on=time.time() + self.lifetimes[number - 1])


def test_azure_token_is_sent_and_renewed_before_it_expires(serve):
    endpoint = serve(completion())
    credential = Credential(60, 3_600)  # the first one is too close to its end to be used a second time
    ask(endpoint.url, "a", "b", "c", auth="azure", credential=credential, concurrency=1)
    assert [headers["Authorization"] for headers in endpoint.headers] == ["Bearer secret-1"] + ["Bearer secret-2"] * 2
    assert credential.scopes == [("https://cognitiveservices.azure.com/.default",)] * 2


def test_no_token_in_errors_or_logs(serve, caplog):
    caplog.set_level(logging.DEBUG)
    told = {"error": {"message": "bad header Bearer secret-1"}}
    endpoint = serve(lambda n, body: (500, told) if n == 0 else (422, told))
    (answer,), _ = ask(endpoint.url, "q", auth="azure", credential=Credential(3_600))
    assert str(answer) == "HTTP 422: bad header Bearer ***"
    assert "HTTP 500" in caplog.text
    assert "secret" not in caplog.text


def test_a_failed_azure_sign_in_is_one_line(serve):
    from azure.core.exceptions import ClientAuthenticationError

    class Broken:
        def get_token(self, *_):
            raise ClientAuthenticationError("many\nlines")

    endpoint = serve(completion())
    with pytest.raises(UserError, match=r"no Azure sign-in.*az login"):
        ask(endpoint.url, "q", auth="azure", credential=Broken())
    assert endpoint.bodies == []


@pytest.mark.parametrize(
    "url",
    [
        "https://u:pw@h/v1",  # pragma: allowlist secret
        "https://h/v1?api-key=pw",
        "https://h/v1?sig=pw",
        "https://h/v1?code=pw",
    ],
)
def test_a_key_in_the_url_is_refused_and_not_repeated(url):
    with pytest.raises(UserError, match="carries a key") as error:
        ChatClient(url, "m")
    assert "pw" not in str(error.value)


def test_a_token_is_not_sent_in_the_clear():
    with pytest.raises(UserError, match="over https only"):
        ChatClient("http://example.org/v1", "m", auth="azure")


@pytest.mark.parametrize("url", ["", "h/v1", "ftp://h/v1", "http://", "h/v1?api-key=pw", "u:pw@h/v1"])
def test_not_a_url(url):
    with pytest.raises(UserError, match="is not the URL of an endpoint") as error:
        ChatClient(url, "m")
    assert "pw" not in str(error.value)


def test_half_a_character_becomes_a_question_mark(serve):
    """JSON can carry it, and no file that the answer is written to can."""
    refusal = {"error": {"message": "no \ud83d"}}
    (answer, error), _ = ask(
        serve(lambda n, body: json.dumps(completion("a\ud83d")) if n == 0 else (400, json.dumps(refusal))).url,
        "1",
        "2",
        concurrency=1,
    )
    assert answer.text == "a?"
    assert str(error) == "HTTP 400: no ?"


def test_counts_that_are_no_numbers_are_no_completion(serve):
    good, bad = json.dumps(completion("yes")), json.dumps(completion("yes", tokens=(float("inf"), 1)))
    (answer,), usage = ask(serve(lambda n, body: good if n else bad).url, "q")
    assert (answer.text, usage.retries) == ("yes", 1)


def test_query_of_the_url_is_kept(serve):
    endpoint = serve(completion())
    ask(endpoint.url + "/?api-version=2024-10-21", "q")
    assert endpoint.paths == ["/v1/chat/completions?api-version=2024-10-21"]
