"""endpoint_checks: each fault of an endpoint fails its own check, and says what was seen."""

import itertools
import json
import re
import socket

import pytest

from endpoint_checks import chat_calls, smoke_test
from tests.chat_endpoint import dripping
from tests.components import chat_server

NAMES = ["chat_schema", "streaming", "unicode_ja", "unicode_ko", "malformed_body", "concurrency"]


def check(url: str, headers=(), adapters=(), **limits) -> tuple[smoke_test.Result, dict[str, str]]:
    """The result, and the details of the failed checks."""
    target = smoke_test.Target(url, headers if callable(headers) else dict(headers), "m", adapters)
    result = smoke_test.run(target, num_requests=6, concurrency=3, **{"timeout_seconds": 10, **limits})
    return result, {check.name: check.detail for check in result.checks if not check.passed}


def test_an_endpoint_without_fault_passes():
    with chat_server.running() as (url, _):
        result, failed = check(url)
    assert failed == {}
    assert result.passed
    assert [check.name for check in result.checks] == NAMES
    assert (result.num_requests, result.num_failed, result.error_fraction) == (6, 0, 0.0)
    assert len(result.seconds) == 6
    assert min(result.seconds) <= result.p50_seconds <= result.p95_seconds == max(result.seconds)


@pytest.mark.parametrize(
    ("fault", "names", "said"),
    [
        ("wrong sum", ["chat_schema"], r"46 \+ 4 tokens are said to be 99"),
        ("no role", ["streaming"], "does not name the role"),
        ("no reason", ["streaming"], "ends with None"),
        ("no end", ["streaming"], r"without data: \[DONE\]"),
        ("other text", ["streaming"], "🌊!', but answers"),
        ("one piece", ["streaming"], "in one piece"),
        ("not JSON", ["streaming", "unicode_ja", "unicode_ko"], "no chat.completion.chunk"),
        ("content type", ["streaming", "unicode_ja", "unicode_ko"], "text/plain, not text/event-stream"),
        ("counts bytes", ["unicode_ja", "unicode_ko"], "tokens in UTF-8 and"),
        ("question marks", ["unicode_ja", "unicode_ko"], r"takes the question for '\?' in place of each character"),
        ("reads escapes otherwise", ["unicode_ja", "unicode_ko"], r"in UTF-8 it answers '返.*', asked escaped '\?'"),
        ("broken character", ["streaming", "unicode_ja", "unicode_ko"], "�"),
        ("every character", ["unicode_ja", "unicode_ko"], "a broken character in the answer: '�+.'"),
        ("5xx", ["malformed_body"], "not JSON: expected a status of 4xx, got 500"),
        ("Azure 500", ["malformed_body"], "not JSON: expected a status of 4xx, got 500"),
        ("busy", ["concurrency"], "0 of 6 answered, 3 at a time; the first failure: status 429"),
        ("no usage", NAMES, "usage: Field required"),
        ("401", NAMES, "status 401: .*no valid token"),
    ],
)
def test_a_fault_fails_its_check(fault, names, said):
    with chat_server.running(fault) as (url, _):
        result, failed = check(url)
    assert list(failed) == names
    assert re.search(said, failed[names[0]])
    assert not result.passed


def test_each_adapter_is_asked_by_its_name():
    with chat_server.running() as (url, _):
        result, failed = check(url, adapters=("store", "billing"))
    assert failed == {}
    assert [check.name for check in result.checks] == [*NAMES[:-1], "adapters", NAMES[-1]]
    assert result.checks[-2].detail == "2 of 2 answer by their names; no-such-adapter is refused with 404"


@pytest.mark.parametrize(
    ("fault", "adapters", "said"),
    [
        ("", ("store", "returns"), "returns: status 404: .*no model returns"),
        ("the base answers", ("store",), "store: asked for it, 'm' answered"),
        ("any name", ("store",), "no-such-adapter, which is none of them: expected a status of 4xx, got 200"),
    ],
)
def test_an_adapter_that_does_not_answer_fails_the_check(fault, adapters, said):
    with chat_server.running(fault) as (url, _):
        result, failed = check(url, adapters=adapters)
    assert list(failed) == ["adapters"]
    assert re.search(said, failed["adapters"])
    assert not result.passed


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("silent", "the model wrote nothing, so only the way in was tested"),
        ("stray byte", "stray bytes of the model in 23 characters, and in 23 streamed"),
        ("Azure 400", "no broken character in 11 characters, and in 11 streamed"),
    ],
)
def test_what_the_model_itself_does_is_said_and_no_fault_of_the_endpoint(model, said):
    with chat_server.running(model) as (url, _):
        result, failed = check(url)
    assert failed == {}
    details = {check.name: check.detail for check in result.checks}
    assert details["unicode_ja"].endswith(said)


def test_nobody_there_is_a_failure_and_no_error():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/score"
    result, failed = check(url, max_p95_seconds=1.0)
    assert list(failed) == [*NAMES, "latency"]
    assert failed["latency"] == "nothing was answered"
    assert (result.num_failed, result.p50_seconds, result.p95_seconds) == (6, None, None)


def test_answers_that_drip_in_for_ever_fail_in_time():
    with dripping() as url:
        result, failed = check(url, timeout_seconds=0.2)
    assert (list(failed), result.num_failed) == (NAMES, 6)
    assert failed["chat_schema"] == "no answer: TimeoutError"


def test_limits_are_the_caller_s():
    with chat_server.running("busy") as (url, _):
        assert check(url, max_error_fraction=1.0)[1] == {}
    with chat_server.running() as (url, _):
        result, failed = check(url, max_p95_seconds=1e-6)
    assert list(failed) == ["latency"]
    assert result.error_fraction == 0.0


def test_headers_are_renewed_and_never_said():
    numbers = itertools.count()
    with chat_server.running("401") as (url, seen):
        result, _ = check(url, lambda: {"Authorization": f"Bearer token-{next(numbers)}"})
    tokens = [headers["Authorization"] for headers in seen]
    assert len(set(tokens)) == len(tokens) > 6
    assert "token-" not in str(result)


def test_quantiles_are_times_that_were_seen():
    assert smoke_test._quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.0
    assert smoke_test._quantile([float(n) for n in range(1, 21)], 0.95) == 19.0
    assert smoke_test._quantile([], 0.95) is None


def test_a_stream_may_hold_what_python_takes_for_the_end_of_a_line():
    choice = {"index": 0, "delta": {"content": "one\u2028two"}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    events = f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\ndata: [DONE]\r\n\r\n"
    streamed = chat_calls._streamed(events.encode(), 1)
    assert [choice.delta.content for choice in streamed.choices] == ["one\u2028two"]
