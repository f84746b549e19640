"""generate_answers against an endpoint on loopback: what it is asked, failures, throttling, refusals, costs, resume."""

import pytest

from slmkit import records
from slmkit.errors import UserError
from tests.chat_endpoint import completion


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("generate_answers")


@pytest.fixture
def run(main, tmp_path):
    """Run on questions that are their numbers; the rows by id, and the metrics."""

    def run(url: str, count: int = 4, **changes):
        with records.write_records(tmp_path / "items") as write:
            for number in range(count):
                write({"id": f"q{number}", "messages": [{"role": "user", "content": str(number)}], "references": ["-"]})
        values = {"eval_items": tmp_path / "items", "predictions": tmp_path / "predictions", "candidate": "api"}
        values |= {"endpoint": url, "endpoint_model": "gpt", "auth": "none", "max_new_tokens": 30, **changes}
        metrics = main.run(main.Args(**values))
        return {row["id"]: row for row in records.read_records(tmp_path / "predictions")}, metrics

    return run


def question(body: dict) -> int:
    return int(body["messages"][-1]["content"])


def test_it_is_asked_greedily_and_each_answer_goes_to_its_question(serve, run):
    endpoint = serve(lambda number, body: completion(f"answer {question(body)}", tokens=(100, 20)))
    rows, metrics = run(endpoint.url, prompt_price=2.0, completion_price=10.0)
    assert list(rows) == ["q0", "q1", "q2", "q3"]
    assert [row["output"] for row in rows.values()] == [f"answer {number}" for number in range(4)]
    assert {row["endpoint"] for row in rows.values()} == {endpoint.url}
    assert not any("model_sha256" in row for row in rows.values())
    for body in endpoint.bodies:
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("gpt", 30, 0.0)
    assert [row["cost"] for row in rows.values()] == pytest.approx([0.0004] * 4)  # 100 * 2 + 20 * 10 millionths
    assert metrics["generate/cost"] == pytest.approx(0.0016)
    assert all(row["latency_ms"] > 0 for row in rows.values())
    assert metrics["perf/requests"] == 4


def test_without_prices_there_is_no_cost(serve, run):
    rows, metrics = run(serve(completion()).url)
    assert {row["cost"] for row in rows.values()} == {None}
    assert "generate/cost" not in metrics


def test_throttling_is_waited_out(serve, run):
    def reply(number, body):
        return (429, {}, {"retry-after-ms": "20"}) if number in (0, 1, 5) else completion(str(question(body)))

    rows, metrics = run(serve(reply).url, count=6, concurrency=2)
    assert [row["output"] for row in rows.values()] == ["0", "1", "2", "3", "4", "5"]
    assert (metrics["perf/throttled"], metrics["generate/num_failed"]) == (3, 0)


def test_failures_are_rows_counted_by_their_kind(serve, run):
    too_long = {"error": {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length"}}
    replies = {
        1: completion("", finish_reason="content_filter"),
        2: (400, too_long),
        3: completion("cut off", finish_reason="length"),
    }
    endpoint = serve(lambda number, body: replies.get(question(body), completion("good")))
    rows, metrics = run(endpoint.url, max_error_fraction=0.5)
    assert [row.get("error") for row in rows.values()] == [
        None,
        "refused by the content filter",
        "HTTP 400: This model's maximum context length is 8192 tokens.",
        None,
    ]
    counts = {name: metrics[f"generate/num_{name}"] for name in ("failed", "refused", "too_long", "cut")}
    assert counts == {"failed": 2, "refused": 1, "too_long": 1, "cut": 1}


def test_too_many_failures_stop_the_step_and_the_answers_are_kept(serve, run, tmp_path):
    is_well = []
    endpoint = serve(lambda number, body: completion("ok") if question(body) < 2 or is_well else (400, {}))
    with pytest.raises(UserError, match="2 of 4 eval items failed"):
        run(endpoint.url)
    assert not (tmp_path / "predictions").exists()
    is_well.append(True)
    rows, _ = run(endpoint.url)
    assert [row["output"] for row in rows.values()] == ["ok"] * 4
    assert sorted(map(question, endpoint.bodies[4:])) == [2, 3]


def test_another_model_at_the_endpoint_is_asked_anew(serve, run, tmp_path):
    endpoint = serve(completion())
    run(endpoint.url)
    earlier = (tmp_path / "predictions").rename(tmp_path / "earlier")
    assert run(endpoint.url, earlier_predictions=earlier)[1]["generate/num_cached"] == 4
    assert run(endpoint.url, earlier_predictions=earlier, endpoint_model="other")[1]["generate/num_cached"] == 0
    assert len(endpoint.bodies) == 8


def test_items_that_are_no_question_are_not_sent(main, serve, tmp_path):
    endpoint = serve(completion())
    with records.write_records(tmp_path / "items") as write:
        write({"id": "none"})
        write({"id": "answered", "messages": [{"role": "assistant", "content": "Me."}]})
    paths = {"eval_items": tmp_path / "items", "predictions": tmp_path / "predictions"}
    main.run(
        main.Args(
            **paths, candidate="api", endpoint=endpoint.url, endpoint_model="gpt", auth="none", max_error_fraction=1.0
        )
    )
    first, second = records.read_records(tmp_path / "predictions")
    assert "non-empty list 'messages'" in first["error"]
    assert "end with the assistant's turn" in second["error"]
    assert endpoint.bodies == []
