"""generate_answers against an endpoint on loopback: what it is asked, failures, throttling, refusals, costs, resume."""

import asyncio
import json
import time
import types

import pytest

from slmkit import endpoint_access, lineage, records
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


# --- what deploy_endpoint deployed -----------------------------------------------------------------------------------


@pytest.fixture
def deployed(tmp_path):
    """The file that deploy_endpoint writes."""

    def write(url: str, **changes):
        endpoint = {"name": "slm", "scoring_uri": url, "deployment": "blue", "model": "gpt", "auth": "none"}
        path = tmp_path / "endpoint.json"
        path.write_text(json.dumps(endpoint | changes), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("path", ["/score", "/v1/chat/completions"])
def test_a_deployed_endpoint_is_asked_at_its_own_path_and_rows_name_the_deployment(
    serve, run, deployed, path, capsys, tmp_path
):
    def reply(number, body):
        name = "green" if question(body) == 2 else "blue"
        return 200, completion("ok"), {"azureml-model-deployment": name}

    endpoint = serve(reply)
    url = endpoint.url.removesuffix("/v1") + path
    rows, metrics = run(None, endpoint_model=None, auth="azure", deployed_endpoint=deployed(url))
    assert set(endpoint.paths) == {path} and {body["model"] for body in endpoint.bodies} == {"gpt"}
    assert [row["deployment"] for row in rows.values()] == ["blue", "blue", "green", "blue"]
    assert {row["endpoint"] for row in rows.values()} == {url}
    assert metrics["generate/num_deployments"] == 2
    assert "answered by more than one deployment: blue 3, green 1" in capsys.readouterr().out
    assert lineage.read(tmp_path / "predictions")["inputs"].keys() == {"eval_items", "deployed_endpoint"}


def test_an_adapter_of_a_deployed_endpoint_is_asked_by_its_name(serve, run, deployed):
    endpoint = serve(lambda number, body: completion("ok"))
    path = deployed(endpoint.url, adapters=["store", "billing"])
    rows, _ = run(None, endpoint_model="store", deployed_endpoint=path)
    assert {body["model"] for body in endpoint.bodies} == {"store"}
    assert {row["endpoint_model"] for row in rows.values()} == {"store"}
    with pytest.raises(UserError, match="no returns at this endpoint; known are gpt, store, billing"):
        run(None, endpoint_model="returns", deployed_endpoint=path)


def test_one_prompt_asked_repeatedly_is_asked_each_time(main, serve, deployed, tmp_path):
    endpoint = serve(lambda number, body: completion(f"answer {number}"))
    with records.write_records(tmp_path / "items") as write:
        for id in ("q", "q:r1", "q:r2"):
            write({"id": id, "messages": [{"role": "user", "content": "the same"}]})
    paths = {"eval_items": tmp_path / "items", "predictions": tmp_path / "predictions"}
    main.run(main.Args(**paths, candidate="now", deployed_endpoint=deployed(endpoint.url), concurrency=1))
    outputs = [row["output"] for row in records.read_records(tmp_path / "predictions")]
    assert outputs == ["answer 0", "answer 1", "answer 2"]


def test_the_status_of_the_model_behind_a_424_decides(serve, run, deployed, capsys):
    """Azure ML answers 424 for whatever the model's server answered: a 503 of it passes, a 400 does not."""

    def reply(number, body):
        if number == 0:
            return 424, {}, {"ms-azureml-model-error-statuscode": "503", "retry-after-ms": "20"}
        if question(body) == 1:
            return 424, {"error": {"message": "too long"}}, {"ms-azureml-model-error-statuscode": "400"}
        return 200, completion("ok"), {"azureml-model-deployment": "blue"}

    endpoint = serve(reply)
    changes = {"endpoint_model": None, "deployed_endpoint": deployed(endpoint.url + "/chat/completions")}
    rows, metrics = run(None, concurrency=1, max_error_fraction=0.5, **changes)
    assert [row.get("error") for row in rows.values()] == [None, "HTTP 400: too long", None, None]
    assert metrics["perf/throttled"] == 1
    assert [row.get("deployment") for row in rows.values()] == ["blue", None, "blue", "blue"]
    assert "more than one deployment" not in capsys.readouterr().out


def test_another_model_behind_the_same_address_is_not_taken_for_the_one_before(serve, run, deployed, tmp_path):
    is_well = []
    endpoint = serve(lambda number, body: completion("ok") if is_well or question(body) < 2 else (400, {}))

    def ask(model_sha256):
        return run(None, endpoint_model=None, deployed_endpoint=deployed(endpoint.url, model_sha256=model_sha256))

    with pytest.raises(UserError, match="2 of 4 eval items failed"):
        ask("a" * 64)
    is_well.append(True)
    ask("b" * 64)
    assert len(endpoint.bodies) == 8  # all four once more: what the other model said is not kept


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"auth": "key"}, "auth is 'key'"),
        ({"model": None}, "no model"),
        ({"scoring_uri": "file:///etc/passwd"}, "is not the URL of an endpoint"),
        ({"scoring_uri": "https://slm.inference.ml.azure.com/score?code=1"}, "carries a key or password"),
        ({"scoring_uri": "http://slm.example/score", "auth": "aad_token"}, "over https only"),
        ({"deployment": 5}, "deployment is not a text"),
    ],
)
def test_a_deployed_endpoint_that_cannot_be_asked(run, deployed, changes, said):
    with pytest.raises(UserError, match=said):
        run(None, endpoint_model=None, deployed_endpoint=deployed("http://127.0.0.1:9/score", **changes))


def test_a_deployed_endpoint_stands_alone(run, deployed, tmp_path):
    path = deployed("http://127.0.0.1:9/score")
    with pytest.raises(UserError, match="leave out model and endpoint"):
        run("http://127.0.0.1:9/v1", endpoint_model=None, deployed_endpoint=path)
    with pytest.raises(UserError, match="is asked anew"):
        run(None, endpoint_model=None, deployed_endpoint=path, earlier_predictions=tmp_path / "items")
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="not a JSON object"):
        run(None, endpoint_model=None, deployed_endpoint=path)


def test_the_sign_in_of_azure_ml_asks_for_its_own_token():
    asked = []

    class Credential:
        def get_token(self, *scopes):
            asked.append(scopes)
            return types.SimpleNamespace(token="t", expires_on=time.time() + 3600)

    signed_in = endpoint_access.sign_in("https://slm.inference.ml.azure.com/score", "azure_ml", Credential())
    assert asyncio.run(signed_in.headers()) == {"Authorization": "Bearer t"}
    assert asked == [("https://ml.azure.com/.default",)]
