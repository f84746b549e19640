"""The embedded teacher is asked over HTTP like any other, and an endpoint takes its place without another line."""

import asyncio

import httpx
import pytest

from slmkit import teacher
from slmkit.chat_client import AnswerError
from tests.chat_endpoint import completion

HELLO = [{"role": "user", "content": "hello"}]


def shout(body):
    if "seed" not in body:
        raise ValueError("no seed")
    return f"{body['messages'][-1]['content'].upper()} {body['seed']}"


def ask(base_url, model="m", **params):
    async def once():
        async with teacher.connect(base_url, model, shout, auth="none", max_retries=0) as client:
            return await client.complete(HELLO, **params)

    return asyncio.run(once())


def test_the_embedded_teacher_answers():
    assert ask("embedded", seed=7).text == "HELLO 7"


def test_what_it_does_not_know_is_an_error_of_the_request():
    with pytest.raises(AnswerError, match="no seed"):
        ask("embedded")


def test_an_endpoint_is_asked_for_the_model(serve):
    endpoint = serve(lambda number, body: completion(body["model"]))
    assert ask(endpoint.url, "gpt", seed=1).text == "gpt"


def test_it_serves_chat_completions_only():
    with teacher.served(shout) as url:
        assert httpx.post(f"{url}/completions", json={}).status_code == 404
        assert httpx.post(f"{url}/chat/completions", content=b"{").status_code == 400


def test_answers_so_far_are_kept_and_forgotten(tmp_path):
    async def fill(path):
        async with teacher.connect("embedded", "", shout, auth="azure", cache_path=path) as client:
            await client.complete(HELLO, seed=1)
            again = await client.complete(HELLO, seed=1)
            return again.cached

    path = teacher.keep_until_done(tmp_path)
    assert asyncio.run(fill(path))
    assert asyncio.run(fill(path)), "the port of the embedded teacher must not be part of the key"
    teacher.forget(path)
    assert list(tmp_path.iterdir()) == []


def test_names():
    assert teacher.name("embedded", "gpt") == "embedded"
    assert teacher.name("https://x.example/v1", "gpt") == "gpt"
