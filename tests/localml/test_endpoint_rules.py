"""The parts of an endpoint without a process: shares of traffic, metrics, rules of scaling, the chat form."""

import asyncio
import json
import math
import random
from types import SimpleNamespace

import pytest

from localml.endpoints import autoscale, chat_form, registry, splitter
from localml.endpoints.autoscale import Window, decide
from localml.endpoints.balancer import Balancer
from localml.endpoints.contract import ApiError, AutoscaleBody, DeploymentBody, TrafficBody, read
from localml.endpoints.request_metrics import HORIZON_SECONDS, RequestMetrics
from localml.endpoints.traffic import Mirror, Shares


@pytest.mark.parametrize(
    ("weights", "num_requests"), [({"blue": 90, "green": 10}, 50), ({"a": 34, "b": 33, "c": 33}, 100)]
)
def test_every_share_is_exact_over_a_round_and_never_far_off_before(weights, num_requests):
    shares, seen = Shares(weights), dict.fromkeys(weights, 0)
    for number in range(1, num_requests + 1):
        seen[shares.next()] += 1
        for name, weight in weights.items():
            assert abs(seen[name] - number * weight / 100) < 1
    assert seen == {name: weight * num_requests // 100 for name, weight in weights.items()}


def test_no_share_at_all():
    assert Shares({"blue": 0}).next() is None
    assert Mirror({}).next() is None
    assert Mirror({"green": 0}).next() is None


def test_a_mirror_takes_its_part_of_the_requests():
    mirror = Mirror({"green": 20})
    assert [mirror.next() for _ in range(50)].count("green") == 10


def test_metrics_against_the_plain_list():
    now = [1000.0]
    metrics, draw = RequestMetrics(lambda: now[0]), random.Random(1)
    seconds = [draw.lognormvariate(-3, 1) for _ in range(2000)]
    for value in seconds:
        now[0] += 0.005
        metrics.record(value, 200)
    metrics.record(9.0, 504)
    metrics.record(0.001, 429)
    found = metrics.summary(60)
    assert (found["num_requests"], found["num_failed"], found["num_client_errors"]) == (2002, 1, 1)
    for share in (50, 95):
        exact = 1000 * sorted(seconds)[math.ceil(share / 100 * 2000) - 1]
        assert found[f"p{share}_milliseconds"] == pytest.approx(exact, rel=0.035)
    assert found["requests_per_second"] == pytest.approx(2002 / 10, rel=0.01)


def test_metrics_forget():
    now = [0.0]
    metrics = RequestMetrics(lambda: now[0])
    metrics.record(0.1, 500)
    now[0] = 20
    metrics.record(0.1, 200)
    assert metrics.summary(10)["num_failed"] == 0
    assert metrics.summary(30)["num_failed"] == 1
    now[0] = 20 + HORIZON_SECONDS + 1  # the same place in the ring holds another moment now
    assert metrics.summary(HORIZON_SECONDS)["num_requests"] == 0
    assert metrics.summary(10)["p95_milliseconds"] is None


def test_metrics_do_not_reach_further_back_than_asked():
    now = [1000.1]
    metrics = RequestMetrics(lambda: now[0])
    metrics.record(0.1, 500)
    now[0] = 1001.4
    metrics.record(0.1, 200)
    since_a_change_at_1000_3 = metrics.summary(1.1)
    assert (since_a_change_at_1000_3["num_requests"], since_a_change_at_1000_3["num_failed"]) == (1, 0)


@pytest.mark.parametrize("sent", [b"{", b"no size of a chunk\r\n"])
def test_a_client_that_never_sends_its_whole_request_is_not_waited_for(monkeypatch, sent):
    monkeypatch.setattr(splitter, "_BODY_SECONDS", 0.1)
    framing = b"Content-Length: 9" if sent == b"{" else b"Transfer-Encoding: chunked"

    async def ask() -> bytes:
        served = splitter.Splitter({})
        await served.listen(None)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST /score HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n\r\n")
        await asyncio.sleep(0.02)
        writer.write(sent)
        try:
            return await asyncio.wait_for(reader.readline(), 10)
        finally:
            writer.close()
            await served.close()

    assert asyncio.run(ask()) == b"HTTP/1.1 408 Request Timeout\r\n"


def rules(**changes) -> AutoscaleBody:
    def rule(metric, direction, comparison, threshold):
        trigger = {"metric_name": metric, "operator": comparison, "threshold": threshold}
        trigger |= {"time_grain": "PT1M", "time_window": "PT3M"}
        action = {"direction": direction, "type": "ChangeCount", "value": 1, "cooldown": "PT5M"}
        return {"metric_trigger": trigger, "scale_action": action}

    content = {
        "capacity": {"minimum": 1, "maximum": 3, "default": 1},
        "rules": [
            rule("CpuUtilizationPercentage", "Increase", "GreaterThan", 70),
            rule("CpuUtilizationPercentage", "Decrease", "LessThan", 25),
            rule("RequestsPerMinute", "Decrease", "LessThan", 10),
        ],
        **changes,
    }
    return read({"profiles": [content]}, AutoscaleBody)


@pytest.mark.parametrize(
    ("cpu", "requests", "count", "rested", "wanted"),
    [
        (80, 100, 1, 300, 2),
        (80, 100, 3, 300, None),  # as many as allowed
        (80, 100, 1, 299, None),  # the cooldown has not passed
        (20, 100, 2, 300, None),  # in only if every rule for it holds
        (20, 5, 2, 300, 1),
        (20, 5, 1, 300, None),  # as few as allowed
        (50, 5, 2, 300, None),
        (None, 5, 2, 300, None),  # nothing known is no reason
        (50, 50, 5, 0, 3),  # outside the capacity: at once
    ],
)
def test_a_decision_to_scale(cpu, requests, count, rested, wanted):
    profile = rules().profiles[0]
    values = {"CpuUtilizationPercentage": cpu, "RequestsPerMinute": requests}
    observed = [(rule, values[rule.metric_trigger.metric_name]) for rule in profile.rules]
    decision = decide(observed, profile.capacity, count, rested)
    assert (decision and decision.count) == wanted


def test_autoscale_goes_on_when_the_disk_is_full(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    async def scale(count: int) -> None:
        scaled.append(count)

    async def run() -> None:
        monkeypatch.setattr(registry, "write_whole", full)
        endpoints = registry.Registry(tmp_path)
        deployment = SimpleNamespace(instances=[], provisioning_state="Succeeded", autoscale=None, scale=scale)
        await endpoints._set_autoscale(deployment, rules(rules=[]))
        while len(scaled) < 2:  # which never grows to what was asked for
            assert not any(task.done() for task in deployment.autoscale._tasks)
            await pause(0.01)
        await deployment.autoscale.stop()
        await endpoints.close()

    scaled, pause = [], asyncio.sleep
    monkeypatch.setattr(autoscale.asyncio, "sleep", lambda seconds: pause(seconds / 100))
    asyncio.run(run())
    assert scaled == [1, 1]


def test_a_window_has_no_value_before_it_is_full():
    window = Window(rules().profiles[0].rules[0].metric_trigger)
    window.add(90)
    window.add(60)
    assert window.value is None
    window.add(90)
    assert window.value == 80
    window.add(30)
    assert window.value == 60


SERVE = {"server": {"kind": "transformers_serve"}, "model": "m"}
OUTSIDE = {"kind": "inference_server", "code": "c", "scoring_script": "../x.py"}


@pytest.mark.parametrize(
    ("body", "kind", "found"),
    [
        ({"traffic": {"blue": 90}}, TrafficBody, "add up to 90"),
        ({"traffic": {"blue": 100}, "mirror_traffic": {"green": 51}}, TrafficBody, "at most 50"),
        ({"traffic": {}, "mirror_traffic": {"green": 10, "red": 10}}, TrafficBody, "one deployment"),
        ({"traffic": {"blue": 150, "green": -50}}, TrafficBody, "traffic.blue"),
        (SERVE | {"instance_count": 0}, DeploymentBody, "instance_count"),
        (SERVE | {"request_settings": {"request_timeout_ms": 180_001}}, DeploymentBody, "180000"),
        (SERVE | {"environment_variables": {"A B": "c"}}, DeploymentBody, "environment_variables"),
        (SERVE | {"server": OUTSIDE}, DeploymentBody, "inside"),
        (SERVE | {"server": {"kind": "shell"}}, DeploymentBody, "server"),
        ({"profiles": [{"capacity": {"minimum": 2, "maximum": 1, "default": 1}}]}, AutoscaleBody, "minimum <= default"),
        ([], TrafficBody, "body"),
    ],
)
def test_a_body_that_is_refused(body, kind, found):
    with pytest.raises(ApiError) as refused:
        read(body, kind)
    assert found in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"messages": []}',
        b'{"messages": "hi"}',
        b'{"messages": [{"role": "user", "content": 5}]}',
        b'{"messages": [{"role": "hacker", "content": "x"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "seed": "x"}',
        b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    ],
)
def test_a_chat_that_is_refused(body):
    with pytest.raises(chat_form.ChatFormError) as refused:
        chat_form.checked(body, "/models/m")
    assert refused.value.body["error"]["type"] == "invalid_request_error"


def test_a_chat_names_the_model_as_the_server_does():
    body = json.dumps({"model": "gpt", "messages": [{"role": "user", "content": "日本 한국 👩‍👩‍👧"}], "max_tokens": 5})
    expected = json.loads(body) | {"model": "/models/m"}
    assert json.loads(chat_form.checked(body.encode(), "/models/m")) == expected


def place(**known):
    return SimpleNamespace(**{"healthy": True, "suspected": False, "in_flight": 0, "last_taken": 0, **known})


def test_requests_take_turns_wait_in_line_and_are_refused():
    async def run():
        first, second, ill = place(), place(), place(healthy=False)
        balancer = Balancer([first, second, ill], limit=1, max_wait_seconds=0.05)
        assert {id(await balancer.take()), id(await balancer.take())} == {id(first), id(second)}
        waiting = asyncio.create_task(balancer.take())
        await asyncio.sleep(0)
        balancer.give_back(second)
        assert await waiting is second
        with pytest.raises(ApiError) as busy:
            await balancer.take()
        assert busy.value.status == 429
        gone = asyncio.create_task(balancer.take())
        await asyncio.sleep(0)
        gone.cancel()
        balancer.give_back(first)  # in the moment in which nobody waits any more
        await asyncio.gather(gone, return_exceptions=True)
        assert (first.in_flight, second.in_flight) == (0, 1)
        waiting = [asyncio.create_task(balancer.take()) for _ in range(2)]
        await asyncio.sleep(0)
        first.healthy = second.healthy = False
        balancer.dispatch()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [getattr(result, "status", None) for result in results].count(503) == 1  # the other one has first
        with pytest.raises(ApiError) as dead:
            await balancer.take()
        assert dead.value.status == 503

    asyncio.run(run())
