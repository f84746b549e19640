"""run_flow: which node is at fault, known by hand; shared answers, resume, a local model, the report."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit import records
from slmkit.errors import UserError
from tests.chat_endpoint import completion

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "pipelines" / "samples"
OUTPUTS = ("baseline_scores", "baseline_predictions", "candidate_scores", "candidate_predictions")
OUTPUTS += ("node_results", "report")

# Three nodes in a row. A model without faults says q1 -> a1 -> b1 -> c1; each fault is a line here.
FAULTS = {
    **{("first", "q2"): "x2", ("second", "x2"): "y2", ("third", "y2"): "z2"},  # all wrong after first
    **{("second", "a3"): "y3", ("third", "y3"): "z3"},  # second spoils a right input
    **{("first", "q4"): "x4", ("second", "x4"): "b4"},  # second makes first's fault good
    **{("first", "q5"): "x5", ("second", "x5"): "b5", ("third", "b5"): "z5"},  # made good, then spoiled by third
    ("first", "q6"): (400, {"error": {"message": "too long"}}),
}
NEXT = {"first": ("q", "a"), "second": ("a", "b"), "third": ("b", "c")}


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("run_flow")


def faulty(number: int, body: dict):
    node, text = (message["content"].removesuffix(" please") for message in body["messages"])
    said = FAULTS.get((node, text)) or text.replace(*NEXT[node])
    return said if isinstance(said, tuple) else completion(said)


def chain(folder: Path, *, head: str = "", **variants: str) -> Path:
    """first -> second -> third, each of one prompt, second of more where ``variants`` has them: name -> system turn."""
    folder.mkdir(exist_ok=True)
    nodes = []
    for node, reads in (("first", "${row.question}"), ("second", "${first.output}"), ("third", "${second.output}")):
        files = {"plain": node, **(variants if node == "second" else {})}
        for name, system in files.items():
            prompt = f"---\nname: {node}\n---\nsystem:\n{system}\n\nuser:\n{{{{text}}}}\n"
            (folder / f"{node}.{name}.prompty").write_text(prompt)
        entries = {name: f"{node}.{name}.prompty" for name in files}
        nodes.append({"name": node, "variants": entries, "inputs": {"text": reads}})
    (folder / "flow.yaml").write_text(head + json.dumps({"nodes": nodes, "output": "${third.output}"}))
    return folder


def chain_items(path: Path, numbers=range(1, 7), **changes) -> Path:
    with records.write_records(path) as write:
        for n in numbers:
            gold = {"first": f"a{n}", "second": f"b{n}"}
            question = [{"role": "user", "content": f"q{n}"}]
            write({"id": f"item-{n}", "messages": question, "references": [f"c{n}"], "node_outputs": gold} | changes)
    return path


@pytest.fixture
def make_args(main, tmp_path):
    def make(**changes) -> object:
        values = {name: tmp_path / name for name in OUTPUTS}
        if "flow" not in changes:
            values["flow"] = chain(tmp_path / "flow")
        if "eval_items" not in changes:
            values["eval_items"] = chain_items(tmp_path / "items")
        return main.Args(**{**values, "candidate": "chain", "max_error_fraction": 0.2, **changes})

    return make


def at(endpoint) -> dict:
    return {"endpoint": endpoint.url, "endpoint_model": "m", "auth": "none"}


def rows(path: Path) -> list[dict]:
    return list(records.read_records(path))


def report_of(args) -> dict:
    return json.loads((args.report / "report.json").read_text(encoding="utf-8"))


def test_the_node_at_fault_is_the_one_known_by_hand(main, make_args, serve):
    args = make_args(**at(serve(faulty)))
    main.run(args)
    found = {(row["id"], row["node"]) for row in rows(args.node_results) if row["at_fault"]}
    assert found == {("item-2", "first"), ("item-3", "second"), ("item-5", "third"), ("item-6", "first")}

    (baseline,) = report_of(args)["candidates"]
    first, second, third = baseline["nodes"]
    assert (baseline["num_wrong"], baseline["num_failed"]) == (4, 1)
    assert [node["num_at_fault"] for node in (first, second, third)] == [2, 1, 1]
    # Right end to end: first on 1 3; second on 1 4 5; third on 1 4. On gold, second fails on 3 and third on 5 alone.
    assert [node["end_to_end"] for node in (first, second, third)] == pytest.approx([2 / 6, 3 / 6, 2 / 6])
    assert [node["isolated"] for node in (first, second, third)] == pytest.approx([2 / 6, 5 / 6, 5 / 6])
    assert [node["upstream_loss"]["mean"] for node in (first, second, third)] == pytest.approx([0, 2 / 6, 3 / 6])
    assert third["upstream_loss"]["low"] < 3 / 6 < third["upstream_loss"]["high"]


def test_outputs_are_those_of_the_records(main, make_args, serve):
    args = make_args(**at(serve(faulty)), prompt_price=1000.0, completion_price=2000.0)
    main.run(args)
    who = {"candidate": "chain.baseline", "endpoint": args.endpoint}
    scores = {row.pop("id"): row for row in rows(args.baseline_scores)}
    assert scores["item-1"] == {**who, "exact_match": 1.0, "f1": 1.0, "failed": 0}
    assert scores["item-2"] == {**who, "exact_match": 0.0, "f1": 0.0, "failed": 0}
    assert scores["item-6"] == {**who, "exact_match": 0.0, "f1": 0.0, "failed": 1}

    predictions = {row.pop("id"): row for row in rows(args.baseline_predictions)}
    assert list(predictions) == [f"item-{n}" for n in range(1, 7)]
    one = predictions["item-1"]
    assert one.pop("latency_ms") > 0
    # Three answers of 10 prompt and 5 completion tokens: 3 * (10 * 1000 + 5 * 2000) / 1e6.
    assert one == {
        **who,
        **{"output": "c1", "prompt_tokens": 30, "completion_tokens": 15},
        **{"cached": False, "cost": pytest.approx(0.06)},
    }
    assert predictions["item-6"]["error"] == "first: HTTP 400: too long"
    assert (predictions["item-6"]["output"], predictions["item-6"]["latency_ms"]) == ("", None)

    errors = {(r["id"], r["node"], r["mode"]): r["error"] for r in rows(args.node_results) if "error" in r}
    assert errors["item-6", "third", "end_to_end"] == "not run: second gave no output"
    assert ("item-6", "third", "isolated") not in errors
    assert rows(args.candidate_scores) == rows(args.candidate_predictions) == []
    assert not list(args.node_results.parent.glob("*.so_far.jsonl"))


def test_what_is_asked_twice_is_asked_once(main, make_args, serve, tmp_path):
    """first: 6 questions. second: a1 to a6 on gold, and x2 x4 x5. third: b1 to b6 on gold, and y2 y3."""
    endpoint = serve(faulty)
    main.run(make_args(**at(endpoint)))
    assert len(endpoint.bodies) == 6 + 9 + 8

    endpoint = serve(faulty)
    args = make_args(**at(endpoint), flow=chain(tmp_path / "two", polite="second please"))
    main.run(args)
    asked = [body["messages"][0]["content"].split()[-1] for body in endpoint.bodies]
    # The variant's own prompt is asked; first, before it, and third, which reads the same texts, are not asked again.
    assert {name: asked.count(name) for name in asked} == {"first": 6, "second": 9, "please": 9, "third": 8}
    assert {row["candidate"] for row in rows(args.candidate_scores)} == {"chain.second-polite"}
    assert [row["exact_match"] for row in rows(args.candidate_scores)] == [1, 0, 0, 1, 0, 0]


def test_a_killed_run_goes_on(make_args, serve, tmp_path):
    stalled, go_on = threading.Event(), threading.Event()

    def reply(number, body):
        if number == 9:
            stalled.set()
            go_on.wait(30)
        return faulty(number, body)

    endpoint = serve(reply)
    args = make_args(**at(endpoint))
    command = [sys.executable, str(ROOT / "components" / "run_flow" / "main.py")]
    for name, value in vars(args).items():
        if value is not None:
            command += [f"--{name}", str(value)]
    command[command.index("--concurrency") + 1] = "1"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "components" / "_shared")}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert stalled.wait(30)
    so_far = tmp_path / "node_results.so_far.jsonl"
    for _ in range(100):
        if len(so_far.read_text().splitlines()) == 1 + 8:  # what it depends on, and q1 to q5, and three of second
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    go_on.set()
    assert not args.baseline_scores.exists()

    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Of 23, eight answers stood; a failure is not kept and was asked again.
    assert len(endpoint.bodies) == 10 + (23 - 8)
    assert [row["exact_match"] for row in rows(args.baseline_scores)] == [1, 0, 0, 1, 0, 0]
    assert not so_far.exists()


def test_too_many_failures_stop_the_step_and_lose_nothing(main, make_args, serve):
    endpoint = serve(faulty)
    args = make_args(**at(endpoint), max_error_fraction=0.01)
    with pytest.raises(UserError, match=r"1 of 23 requests got no answer.*HTTP 400: too long.*only these are asked"):
        main.run(args)
    assert not args.node_results.exists()
    with pytest.raises(UserError):
        main.run(args)
    assert len(endpoint.bodies) == 24


def test_a_node_without_gold_is_said_so_and_not_judged(main, make_args, serve, tmp_path):
    """Without gold of second, its fault on item 3 counts at third, which cannot be isolated."""
    items = chain_items(tmp_path / "partly")
    kept = [row | {"node_outputs": {"first": row["node_outputs"]["first"]}} for row in rows(items)]
    with records.write_records(items) as write:
        for row in kept:
            write(row)
    args = make_args(**at(serve(faulty)), eval_items=items)
    main.run(args)
    found = {(row["id"], row["node"]) for row in rows(args.node_results) if row["at_fault"]}
    # Item 5: first was wrong and nobody can tell that second made it good.
    assert found == {("item-2", "first"), ("item-3", "third"), ("item-5", "first"), ("item-6", "first")}
    report = report_of(args)
    _, second, third = report["candidates"][0]["nodes"]
    assert (second["num_judged"], second["end_to_end"], third["isolated"]) == (0, None, None)
    assert any(note.startswith("second: 6 of 6 items have no 'second'") for note in report["notes"])
    assert any(note.startswith("third: not isolated on 6 of 6 items") for note in report["notes"])
    assert not [row for row in rows(args.node_results) if (row["node"], row["mode"]) == ("third", "isolated")]


def test_only_the_part_that_is_read_must_be_right(main, make_args, serve, tmp_path):
    """facts gets the name wrong and the number right: what answer makes of the number is its own fault."""
    flow = tmp_path / "parts"
    flow.mkdir()
    (flow / "facts.prompty").write_text("---\nname: facts\n---\nsystem:\nfacts\nuser:\n{{text}}\n")
    (flow / "answer.prompty").write_text("---\nname: answer\n---\nsystem:\nanswer\nuser:\n{{n}}\n")
    nodes = [
        {"name": "facts", "prompty": "facts.prompty", "inputs": {"text": "${row.question}"}, "output": "json"},
        {"name": "answer", "prompty": "answer.prompty", "inputs": {"n": "${facts.output.n}"}},
    ]
    (flow / "flow.yaml").write_text(json.dumps({"nodes": nodes, "output": "${answer.output}"}))

    def reply(number, body):
        node, text = (message["content"] for message in body["messages"])
        if node == "answer":
            return completion("wrong")
        says = {"q1": '{"name": "no", "n": 1}', "q2": '```json\n{"name": "x", "n": 7}\n```', "q3": "[broken"}
        return completion(says.get(text, '{"name": "x"}'))

    items = chain_items(tmp_path / "four", range(1, 5), node_outputs={})
    gold = [
        row | {"node_outputs": {"facts": json.dumps({"name": "x", "n": int(row["id"][-1])})}} for row in rows(items)
    ]
    with records.write_records(items) as write:
        for row in gold:
            write(row)
    args = make_args(**at(serve(reply)), flow=flow, eval_items=items)
    main.run(args)
    facts = {row["id"]: row for row in rows(args.node_results) if (row["node"], row["mode"]) == ("facts", "end_to_end")}
    assert [row["score"] for row in facts.values()] == [0.5, 0.5, 0.0, 0.5]
    assert [row["at_fault"] for row in facts.values()] == [0, 1, 1, 1]
    assert facts["item-3"]["error"].startswith("the answer is no JSON")
    errors = [row.get("error") for row in rows(args.baseline_predictions)]
    assert errors[0] is errors[1] is None
    assert errors[3] == "answer: facts gave no 'n'"


def test_sample_flow_runs_on_a_model_here(make_args, main, small_model):
    """Four variants in three languages; what a barely trained model says is mostly not what was asked for."""
    args = make_args(
        flow=SAMPLES / "flow", eval_items=SAMPLES / "flow_items.jsonl", model=small_model, candidate="tiny"
    )
    main.run(args)
    report = report_of(args)
    names = ["tiny.baseline", "tiny.topic-ja", "tiny.topic-ko", "tiny.decision-steps"]
    assert [entry["name"] for entry in report["candidates"]] == names
    assert len(rows(args.baseline_scores)) == 30
    assert len(rows(args.candidate_predictions)) == 90
    assert {row["id"][:2] for row in rows(args.baseline_scores)} == {"en", "ja", "ko"}
    topic = next(row for row in report["requests"] if row["node"] == "topic")
    assert (topic["num_needed"], topic["num_distinct"], topic["num_failed"]) == (4 * 2 * 30, 3 * 30, 0)
    for entry in report["candidates"]:
        assert sum(node["num_at_fault"] for node in entry["nodes"]) == entry["num_wrong"]
    page = (args.report / "report.html").read_text(encoding="utf-8")
    assert "tiny.topic-ko" in page
    assert "<script" not in page


def test_gold_of_the_sample_follows_its_rules():
    limits = {"return": range(31), "repair": range(366), "delivery": range(7, 10000)}
    items = rows(SAMPLES / "flow_items.jsonl")
    assert len(items) == 30
    for item in items:
        details, topic = json.loads(item["node_outputs"]["details"]), item["node_outputs"]["topic"]
        question = item["messages"][0]["content"]
        assert details["product"] in question
        assert str(details["days"]) in question
        assert item["references"] == ["accept" if details["days"] in limits[topic] else "refuse"]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_faults_of_any_flow_are_those_of_the_definition(main, data):
    """Beside the definition, written as the recursion that it is."""
    import fault_attribution
    import flow_graph
    from flow_items import Item
    from flow_runs import Outcome
    from prompt_templates import Prompt

    names = [f"n{i}" for i in range(6)]
    reads = {name: data.draw(st.sets(st.sampled_from(names[:i]))) if i else set() for i, name in enumerate(names)}
    judged = {name: data.draw(st.sampled_from([True, False, None])) for name in names}
    judged["n5"] = data.draw(st.booleans())

    def blamed(name: str) -> set[str]:
        return set().union(*map(passed_on, reads[name])) or {name}

    def passed_on(name: str) -> set[str]:
        if judged[name] is None:
            return set().union(*map(passed_on, reads[name]))
        return set() if judged[name] else blamed(name)

    nodes = [
        flow_graph.Node(
            name,
            {"v": flow_graph.Variant(Prompt(Path("p"), ""), {to: flow_graph.FromNode(to) for to in reads[name]})},
            (),
        )
        for name in names
    ]
    runs = SimpleNamespace(end_to_end=lambda candidate, id: {name: Outcome("text") for name in names})
    scores = {("end_to_end", "c", name, "i"): float(right) for name, right in judged.items() if right is not None}
    found = fault_attribution.nodes_at_fault(
        *(flow_graph.Flow(nodes, "n5"), {"i": Item({}, {}, {}, [])}, "c", dict.fromkeys(names, "v"), runs, scores)
    )
    assert found == ({} if judged["n5"] else {"i": min(blamed("n5"))})


def test_neither_model_nor_endpoint_is_one_line(make_args, run_component):
    args = {name: value for name, value in vars(make_args()).items() if value is not None}
    done = run_component("run_flow", **args)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "run_flow: error: give either model or endpoint; found neither\n"


def test_texts_of_the_report_are_escaped(main, make_args, serve, tmp_path):
    items = chain_items(
        tmp_path / "hostile", messages=[{"role": "user", "content": "<script>alert(1)</script>"}], id="x"
    )
    items.write_text(items.read_text().splitlines()[0] + "\n")
    args = make_args(**at(serve(lambda n, b: completion("<img src=x>"))), eval_items=items)
    main.run(args)
    page = (args.report / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<img src=x" not in page


def test_half_a_character_in_an_answer_stops_nothing(main, make_args, serve):
    args = make_args(**at(serve(lambda n, b: json.dumps(completion("a\ud83d")))))
    main.run(args)
    assert rows(args.baseline_predictions)[0]["output"] == "a?"


def test_grid_and_one_factor(main):
    import flow_graph
    import prompt_templates

    prompt = prompt_templates.Prompt(Path("p"), "x")
    nodes = [
        flow_graph.Node(name, {v: flow_graph.Variant(prompt, {}) for v in variants}, ("nodes", 0))
        for name, variants in (("a", "xy"), ("b", "z"), ("c", "pqr"))
    ]
    one, grid = (flow_graph.Flow(nodes, "c", sweep).candidates(6) for sweep in ("one_factor", "grid"))
    assert list(one) == ["baseline", "a-y", "c-q", "c-r"]
    assert one["c-r"] == {"a": "x", "b": "z", "c": "r"}
    assert list(grid) == ["baseline", "c-q", "c-r", "a-y", "a-y.c-q", "a-y.c-r"]
    with pytest.raises(UserError, match="sweep: grid gives 6 variants of the flow, more than max_num_variants=5"):
        flow_graph.Flow(nodes, "c", "grid").candidates(5)


@pytest.mark.parametrize(
    ("value", "gold", "expected"),
    [
        ({"a": 1, "b": "Seoul."}, {"a": 1.0, "b": "seoul"}, 1.0),
        ({"a": 1}, {"a": 1, "b": 2}, 0.5),
        ({"a": 1, "b": 2, "c": 3}, {"a": 1}, 1 / 3),  # what nobody asked for counts too
        ({"a": ["x", "y"]}, {"a": ["x", "z"]}, 0.5),
        ({"a": "ソウル"}, {"a": "ソウル"}, 1.0),
        ([], {"a": 1}, 0.0),
    ],
)
def test_json_by_leaves(main, value, gold, expected):
    import output_scores

    assert output_scores.leaf_accuracy(value, gold) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Refund.", "refund"),
        ("The topic is refund, I think.", "refund"),
        ("no refund", "no refund"),
        ("It is no refund", "no refund"),
        ("답: 환불", "환불"),
        ("答えは環境です。", None),
        ("refund or 환불", None),
        ("refunding", None),
        ("", None),
    ],
)
def test_labels_in_an_answer(main, answer, expected):
    import flow_graph

    node = flow_graph.Node("n", {}, (), output="label", labels=["refund", "no refund", "환불"])
    if expected is None:
        with pytest.raises(ValueError, match="of the labels"):
            node.parse(answer)
    else:
        assert node.parse(answer) == expected


def test_intervals(main):
    import flow_intervals

    # Wilson's interval of 1 in 10 as in statistical tables.
    wilson = {"mean": 0.1, "low": 0.0179, "high": 0.4042}
    assert flow_intervals.share_interval(1, 10) == pytest.approx(wilson, abs=5e-5)
    scores = {str(n): float(n == 0) for n in range(10)}
    assert flow_intervals.score_interval(scores, {id: id for id in scores}, 0) == pytest.approx(wilson, abs=5e-5)

    # Two clusters of 1 and 3 items with the means 0 and 1: a draw gives 0, 3/4 or 1, with chances 1/4, 1/2, 1/4.
    scores = dict(zip(("a1", "b1", "b2", "b3"), (0.0, 1.0, 1.0, 1.0), strict=True))
    clusters = {id: id[0] for id in scores}
    assert flow_intervals.score_interval(scores, clusters, 0) == {"mean": 0.75, "low": 0.0, "high": 1.0}
    nothing_varies = {"mean": 1.0, "low": None, "high": None}
    assert flow_intervals.mean_interval({"a1": 1.0}, clusters, 0) == nothing_varies
    assert flow_intervals.mean_interval(dict.fromkeys(clusters, 1.0), clusters, 0) == nothing_varies


def test_the_bootstrap_agrees_with_another(main):
    """Of twelve differences, beside scipy's percentile bootstrap with other draws."""
    import flow_intervals
    import numpy as np
    from scipy import stats

    values = [0.0, 1, -1, 0.5, 0, 0, 1, 1, 0.25, 0, -0.5, 1]
    ids = [str(number) for number in range(len(values))]
    found = flow_intervals.mean_interval(dict(zip(ids, values, strict=True)), dict(zip(ids, ids, strict=True)), seed=1)
    expected = stats.bootstrap((values,), np.mean, method="percentile", rng=2).confidence_interval
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected), abs=0.04)
