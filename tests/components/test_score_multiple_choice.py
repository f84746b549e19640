"""score_multiple_choice: log-likelihoods whatever the batch, a row for every item, endpoints, failures counted."""

import json
import math
from pathlib import Path

import pytest

from slmkit import lineage, records
from slmkit.errors import UserError
from tests.chat_endpoint import completion

LABELS = ["A", "B", "C"]
CHOICES = [["海", "高い山", "川"], ["apple pie", "tea", "a cup of coffee"], ["서울", "부산", "대구"]]


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("score_multiple_choice")


def item(number: int, *, shots: int = 0, lettered: bool = True, **changes) -> dict:
    """Questions of unlike length in three languages; with ``shots`` all begin with the same examples."""
    choices = CHOICES[number % 3]
    listed = "".join(f"\n{label}. {choice}" for label, choice in zip(LABELS, choices, strict=True)) if lettered else ""
    messages = []
    for shot in range(shots):
        messages += [{"role": "user", "content": f"Which one is number {shot}?{listed and chr(10) + 'A. x'}"}]
        messages += [{"role": "assistant", "content": "A"}]
    messages += [{"role": "user", "content": f"質問 {number} " + "電話 phone 전화 " * (number % 4) + listed}]
    labels = {"labels": LABELS} if lettered else {}
    return {"id": f"q{number}", "messages": messages, "choices": choices, "gold": number % 3, **labels, **changes}


@pytest.fixture
def make_args(main, small_model, tmp_path):
    def make(items: list[dict], **changes) -> object:
        with records.write_records(tmp_path / "items") as write:
            for row in items:
                write(row)
        values = {
            "model": small_model,
            "eval_items": tmp_path / "items",
            "candidate": "base",
            "scores": tmp_path / "scores",
            "predictions": tmp_path / "predictions",
        }
        return main.Args(**{**values, **changes})

    return make


@pytest.fixture
def run(main, make_args):
    def run(items: list[dict], **changes) -> tuple[list[dict], list[dict]]:
        args = make_args(items, **changes)
        main.run(args)
        return list(records.read_records(args.predictions)), list(records.read_records(args.scores))

    return run


@pytest.fixture(scope="module")
def by_hand(small_model):
    """Log P(choice | prompt) in float64, one sequence at a time, tokens split as lm-eval splits them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_model)
    model = AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float64)

    def log_likelihood(messages: list[dict], choice: str, *, plain: bool = False) -> tuple[float, int]:
        if plain:
            prompt, choice = messages[-1]["content"].strip(), f" {choice}"
        else:
            prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        start = len(tokenizer(prompt)["input_ids"])
        ids = tokenizer(prompt + choice)["input_ids"]
        with torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(log_probs[i - 1, ids[i]].item() for i in range(start, len(ids))), len(ids) - start

    return log_likelihood


@pytest.mark.parametrize("shots", [0, 4])
@pytest.mark.parametrize("max_batch_tokens", [1, 150, 100_000])
def test_letters_are_the_log_likelihoods_of_the_labels(run, by_hand, shots, max_batch_tokens):
    items = [item(number, shots=shots) for number in range(9)]
    predictions, scores = run(items, max_batch_tokens=max_batch_tokens)
    for asked, row, score in zip(items, predictions, scores, strict=True):
        expected = [by_hand(asked["messages"], label)[0] for label in LABELS]
        assert row["log_likelihoods"] == pytest.approx(expected, abs=1e-4)
        assert row["choice"] == expected.index(max(expected))
        assert row["output"] == LABELS[row["choice"]]
        assert score["accuracy"] == int(row["choice"] == asked["gold"])
        total = sum(map(math.exp, expected))
        assert score["gold_probability"] == pytest.approx(math.exp(expected[asked["gold"]]) / total, abs=1e-4)


@pytest.mark.parametrize("method", ["text", "text_per_byte", "text_per_token"])
@pytest.mark.parametrize("plain", [False, True], ids=["chat", "plain"])
def test_texts_are_normalized_as_they_say(run, by_hand, method, plain):
    items = [item(number, lettered=False) for number in range(6)]
    predictions, _ = run(items, method=method, prompt_format="plain" if plain else "chat")
    for asked, row in zip(items, predictions, strict=True):
        expected = []
        for choice in asked["choices"]:
            value, num_tokens = by_hand(asked["messages"], choice, plain=plain)
            size = {"text": 1, "text_per_byte": len(choice.encode()), "text_per_token": num_tokens}[method]
            expected.append(value / size)
        assert row["log_likelihoods"] == pytest.approx(expected, abs=1e-4)
        assert row["output"] == asked["choices"][expected.index(max(expected))]


def test_rows_hold_what_they_must(run, small_model):
    predictions, scores = run([item(1)], candidate="tuned")
    names = ["id", "candidate", "output", "choice", "log_likelihoods", "latency_ms", "prompt_tokens"]
    assert list(predictions[0]) == [*names, "completion_tokens", "cached", "model_sha256"]
    assert list(scores[0]) == ["id", "candidate", "model_sha256", "accuracy", "gold_probability", "failed"]
    assert scores[0]["model_sha256"] == predictions[0]["model_sha256"] == lineage.sha256(small_model)
    assert predictions[0]["latency_ms"] is None


def test_items_that_cannot_be_asked_are_counted_failures(run, make_args, main):
    ends_wrong = item(1)
    ends_wrong["messages"].append({"role": "assistant", "content": "no"})
    long = item(2, messages=[{"role": "user", "content": "word " * 2500}])
    items = [item(0), ends_wrong, long, item(3, messages=[])]
    predictions, scores = run(items, max_error_fraction=0.75)
    assert [bool(row.get("error")) for row in predictions] == [False, True, True, True]
    assert [row["failed"] for row in scores] == [0, 1, 1, 1]
    assert [row["accuracy"] for row in scores[1:]] == [0, 0, 0]
    assert [row["gold_probability"] for row in scores[1:]] == [0, 0, 0]
    assert "tokens more than the 2048 that the model takes" in predictions[2]["error"]
    with pytest.raises(UserError, match="3 of 4 eval items"):
        main.run(make_args(items))


def test_a_long_prompt_is_cut_from_the_left_where_allowed(run, main, make_args, by_hand, small_model):
    from transformers import AutoTokenizer

    long = item(2, messages=[{"role": "user", "content": "word " * 2500 + "Which?"}])
    (row,), _ = run([long], truncate_prompt=True)
    assert row["prompt_tokens"] == 2048
    assert main.run(make_args([long, item(0)], truncate_prompt=True))["choices/num_truncated"] == 1
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    ids = tokenizer.apply_chat_template(long["messages"], add_generation_prompt=True, return_dict=True)["input_ids"]
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(small_model)(torch.tensor([ids[-2048:]])).logits[0, -1]
    expected = [logits.log_softmax(-1)[tokenizer.convert_tokens_to_ids(label)].item() for label in LABELS]
    assert row["log_likelihoods"] == pytest.approx(expected, abs=1e-4)


BAD_ITEMS = [
    ([], "no eval items"),
    ([item(1), item(1)], "items:2: 'id' is missing, empty or not unique"),
    ([item(1, choices=[])], "items:1: item 'q1' needs 'choices'"),
    ([item(1, choices=["a", "a ", "b"])], "that differ"),
    ([item(0), item(1, gold=3)], "items:2: item 'q1' needs 'gold', the index of the right choice from 0 to 2, not 3"),
    ([item(1, gold=True)], "needs 'gold'"),
    ([item(1, gold="B")], "needs 'gold'"),
    ([item(1, labels=["A", "B"])], "as many 'labels'"),
    ([item(1, lettered=False)], "prepare the benchmark with answer_style=letter"),
]


@pytest.mark.parametrize(("items", "expected"), BAD_ITEMS)
def test_bad_items_are_one_clear_line(main, make_args, items, expected):
    with pytest.raises(UserError, match=expected):
        main.run(make_args(items))


def test_a_broken_model_is_a_failure_and_no_number(run, small_model, tmp_path):
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "broken"
    shutil.copytree(small_model, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(math.nan)
    model.save_pretrained(folder)
    (row, _), scores = run([item(0), item(1)], model=folder, max_error_fraction=1)
    assert "not finite" in row["error"]
    assert [score["accuracy"] for score in scores] == [0, 0]


def test_exactly_one_of_model_and_endpoint(main, make_args):
    with pytest.raises(UserError, match="give either model or endpoint; found neither"):
        main.run(make_args([item(0)], model=None))


def first_token(**logprobs) -> dict:
    reply = completion("A", tokens=(9, 1))
    top = [{"token": token, "logprob": value, "bytes": None} for token, value in logprobs.items()]
    reply["choices"][0]["logprobs"] = {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": top}]}
    return reply


@pytest.fixture
def ask(run, serve):
    def ask(reply, items, **changes):
        endpoint = serve(reply)
        at = {"model": None, "endpoint": endpoint.url, "endpoint_model": "m", "auth": "none"}
        return endpoint, *run(items, **{**at, **changes})

    return ask


def test_letters_of_an_endpoint_take_one_token(ask):
    reply = first_token(**{"B": -1.0, " A": -1.5, "A": -2.0, "The": -0.5})
    endpoint, (row,), (score,) = ask(reply, [item(0)])
    (body,) = endpoint.bodies
    assert row["endpoint"] == score["endpoint"] == endpoint.url
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"], body["temperature"]) == (1, True, 20, 0)
    both = math.log(math.exp(-1.5) + math.exp(-2.0))
    assert row["log_likelihoods"] == [pytest.approx(both), -1.0, None]
    assert (row["choice"], row["output"], row["prompt_tokens"]) == (1, "B", 9) if both < -1 else (0, "A", 9)
    assert score["gold_probability"] == pytest.approx(math.exp(both) / (math.exp(both) + math.exp(-1)))
    assert row["latency_ms"] > 0


def test_an_endpoint_that_names_no_label_or_no_probabilities_is_a_failure(ask):
    replies = [first_token(The=-0.1), completion("A"), first_token(A=-0.1)]
    _, rows, scores = ask(
        lambda number, body: replies[int(body["messages"][-1]["content"].split()[1])],
        [item(number) for number in range(3)],
        max_error_fraction=0.9,
    )
    assert "none of the labels A, B, C is among the 20" in rows[0]["error"]
    assert "gives no log-probabilities" in rows[1]["error"]
    assert [row["failed"] for row in scores] == [1, 1, 0]


MALFORMED = [[], {}, [1], [{"top_logprobs": 3}], [{"top_logprobs": [{"token": "A"}]}], "text", [{"top_logprobs": None}]]


@pytest.mark.parametrize("content", MALFORMED, ids=str)
def test_malformed_probabilities_are_a_failure_of_the_item(ask, content):
    reply = first_token(A=-0.1)
    reply["choices"][0]["logprobs"]["content"] = content
    _, (row,), (score,) = ask(reply, [item(0)], max_error_fraction=1)
    assert "log-probabilities" in row["error"]
    assert (score["accuracy"], score["failed"]) == (0, 1)


def test_texts_cannot_be_scored_at_an_endpoint(ask):
    with pytest.raises(UserError, match="method=text needs a model; an endpoint can be asked with method=letter"):
        ask(completion("A"), [item(0)], method="text")


def test_generated_answers_are_read_leniently_and_strictly(ask, main, make_args):
    said = ["The answer is (A).", "B", "I do not know.", "A"]
    _, rows, scores = ask(
        lambda number, body: completion(said[int(body["messages"][-1]["content"].split()[1])]),
        [item(number) for number in range(4)],
        method="generate",
    )
    assert [row["choice"] for row in rows] == [0, 1, None, 0]
    assert [row["output"] for row in rows] == said
    assert [score["accuracy"] for score in scores] == [1, 1, 0, 1]
    assert [score["accuracy_strict"] for score in scores] == [0, 1, 0, 1]
    assert [score["failed"] for score in scores] == [0, 0, 0, 0]


def test_the_gap_and_unread_answers_are_counted(main, make_args, serve):
    said = ["The answer is (A).", "hm"]
    endpoint = serve(lambda number, body: completion(said[int(body["messages"][-1]["content"].split()[1])]))
    at = {"model": None, "endpoint": endpoint.url, "endpoint_model": "m", "auth": "none", "method": "generate"}
    metrics = main.run(make_args([item(0), item(1)], **at))
    assert (metrics["eval/accuracy"], metrics["eval/accuracy_strict"], metrics["choices/strict_gap"]) == (0.5, 0, 0.5)
    assert metrics["choices/num_unparsed"] == 1


def test_a_model_generates_too(run):
    predictions, scores = run([item(0), item(1)], method="generate", max_new_tokens=3)
    assert all(row["completion_tokens"] > 0 for row in predictions)
    assert list(scores[0]) == ["id", "candidate", "model_sha256", "accuracy", "accuracy_strict", "failed"]


def test_a_killed_step_goes_on_where_it_was(main, make_args, monkeypatch):
    args = make_args([item(number) for number in range(6)], max_batch_tokens=1)
    import choice_likelihoods

    asked = []
    whole = choice_likelihoods.ChoiceScorer.score

    def killed(self, questions):
        for number, pair in enumerate(whole(self, questions)):
            asked.append(pair[0].id)
            yield pair
            if number == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(choice_likelihoods.ChoiceScorer, "score", killed)
    with pytest.raises(KeyboardInterrupt):
        main.run(args)
    assert not args.predictions.exists()
    monkeypatch.setattr(choice_likelihoods.ChoiceScorer, "score", whole)
    assert main.run(args)["choices/num_resumed"] == 3
    resumed = list(records.read_records(args.predictions))
    monkeypatch.undo()
    main.run(args)
    again = list(records.read_records(args.predictions))
    for a, b in zip(resumed, again, strict=True):
        assert a["log_likelihoods"] == pytest.approx(b["log_likelihoods"], abs=1e-4)


def test_as_a_process_with_lineage(run_component, make_args):
    args = {name: value for name, value in vars(make_args([item(0), item(1)])).items() if value is not None}
    done = run_component("score_multiple_choice", **args)
    assert done.returncode == 0, done.stderr
    written = json.loads(Path(f"{args['scores']}.lineage.json").read_text())
    assert written["parameters"]["method"] == "letter"


def test_jcommonsenseqa_in_three_methods(run, root):
    """Real questions; the choices with lowest log-likelihood per byte are not always those with the lowest sum."""
    path = root.parent / "shared" / "data" / "benchmarks" / "jcommonsenseqa-valid.jsonl"
    if not path.is_file():
        pytest.skip(f"the real data for development is not at {path}")
    items = []
    for row in list(records.read_records(path))[:20]:
        choices = [row[f"choice{i}"] for i in range(5)]
        messages = [{"role": "user", "content": row["question"]}]
        items.append({"id": str(row["q_id"]), "messages": messages, "choices": choices, "gold": row["label"]})
    chosen = {method: [row["choice"] for row in run(items, method=method)[0]] for method in ("text", "text_per_byte")}
    assert chosen["text"] != chosen["text_per_byte"]


def test_a_tokenizer_of_another_model_is_an_error(run_component, small_model, tmp_path):
    """A model with fewer embeddings than the tokenizer has tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(small_model), AutoTokenizer.from_pretrained(small_model)
    known = tokenizer.pad_token_id + 1  # but not the marks of the turns, which come after
    model.resize_token_embeddings(known)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    item = {"id": "a", "messages": [{"role": "user", "content": "Which? A or B?"}], "choices": ["x", "y"], "gold": 0}
    (tmp_path / "items").write_text(json.dumps(item | {"labels": ["A", "B"]}))
    flags = {"eval_items": tmp_path / "items", "scores": tmp_path / "scores", "predictions": tmp_path / "predictions"}
    done = run_component("score_multiple_choice", model=tmp_path / "model", candidate="m", **flags)
    assert done.returncode == 1
    assert f"the tokenizer is not the model's, which knows {known:,} tokens" in done.stderr
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize("name", [" ", "a\nb"])
def test_a_candidate_needs_a_name(run_component, small_model, tmp_path, name):
    (tmp_path / "items").write_text("{}")
    flags = {"eval_items": tmp_path / "items", "scores": tmp_path / "scores", "predictions": tmp_path / "predictions"}
    done = run_component("score_multiple_choice", model=small_model, candidate=name, **flags)
    assert done.returncode == 1 and "is blank or has line breaks" in done.stderr
