"""generate_answers: greedy answers that do not depend on the batch, a row for every item, failures counted."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from slmkit import lineage, records
from slmkit.errors import UserError
from tests import lora_adapters


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("generate_answers")


@pytest.fixture(scope="module")
def model_folder(small_model) -> Path:
    return small_model


def item(number: int, content: str = "") -> dict:
    """Questions of unlike length, the longest first, in three languages."""
    text = content or "Phone: 02-5678\n電話番号: 03-1234\n전화번호: 051\n" * (5 - number % 5) + f"\nPhone {number}?"
    return {"id": f"item-{number}", "messages": [{"role": "user", "content": text}], "references": ["-"]}


@pytest.fixture
def make_args(main, model_folder, tmp_path):
    def make(items: list[dict], **changes) -> object:
        with records.write_records(tmp_path / "items") as write:
            for row in items:
                write(row)
        values = {
            "model": model_folder,
            "eval_items": tmp_path / "items",
            "candidate": "base",
            "predictions": tmp_path / "predictions",
            "max_new_tokens": 12,
        }
        return main.Args(**{**values, **changes})

    return make


@pytest.fixture
def answers(main, make_args):
    def run(items: list[dict], **changes) -> list[dict]:
        args = make_args(items, **changes)
        main.run(args)
        return list(records.read_records(args.predictions))

    return run


def greedy_by_hand(folder: Path, messages: list[dict], max_new_tokens: int) -> tuple[list[int], str]:
    """The definition of greedy decoding: the likeliest next token, one by one, without cache, batch or padding."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    new = []
    while len(new) < max_new_tokens and (not new or new[-1] != tokenizer.eos_token_id):
        with torch.no_grad():
            new.append(model(torch.tensor([ids + new])).logits[0, -1].argmax().item())
    return new, tokenizer.decode(new, skip_special_tokens=True).strip()


def test_answers_are_greedy_and_whole(answers, model_folder):
    items = [item(0), item(3), item(4)]
    for row, asked in zip(answers(items), items, strict=True):
        tokens, text = greedy_by_hand(model_folder, asked["messages"], 12)
        assert row["output"] == text
        assert row["completion_tokens"] == len(tokens)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_batch_size_does_not_change_the_answers(answers, batch_size):
    items = [item(number) for number in range(11)]
    expected = answers(items, batch_size=4)
    found = answers(items, batch_size=batch_size)
    assert [row["id"] for row in found] == [row["id"] for row in items]
    assert [row["output"] for row in found] == [row["output"] for row in expected]
    assert any(row["output"] for row in found)


def test_row_holds_what_a_prediction_must(answers, model_folder):
    from transformers import AutoTokenizer

    asked = item(1)
    (row,) = answers([asked], candidate="tuned")
    assert list(row) == [
        *(
            "id",
            "candidate",
            "model_sha256",
            "output",
            "latency_ms",
            "prompt_tokens",
            "completion_tokens",
            "cost",
            "cached",
        ),
        *("finish_reason", "request_sha256"),
    ]
    prompt = f"<|im_start|>user\n{asked['messages'][0]['content']}<|im_end|>\n<|im_start|>assistant\n"
    assert row["prompt_tokens"] == len(AutoTokenizer.from_pretrained(model_folder)(prompt)["input_ids"])
    assert (row["candidate"], row["cached"]) == ("tuned", False)
    assert row["model_sha256"] == lineage.sha256(model_folder)
    assert row["latency_ms"] > 0
    assert 0 < row["completion_tokens"] <= 12


def test_items_that_cannot_be_asked_are_rows_with_their_error(answers, make_args, main):
    ends_wrong = item(2)
    ends_wrong["messages"].append({"role": "assistant", "content": "no"})
    items = [item(0), item(1, "word " * 2000), ends_wrong, {"id": "item-9", "messages": []}]
    rows = answers(items, max_error_fraction=0.75)
    assert [bool(row.get("error")) for row in rows] == [False, True, True, True]
    assert "tokens, the model takes 2036" in rows[1]["error"]
    assert "end with the assistant's turn" in rows[2]["error"]
    assert [row["output"] for row in rows[1:]] == ["", "", ""]
    assert main.run(make_args(items, max_error_fraction=0.75))["generate/num_failed"] == 3


def test_too_many_failures_stop_the_step(main, make_args):
    args = make_args([item(0), {"id": "x", "messages": []}], max_error_fraction=0.4)
    with pytest.raises(UserError, match="1 of 2 eval items failed"):
        main.run(args)
    assert not args.predictions.exists()


BAD_ITEMS = [
    ([], "no eval items"),
    ([item(1), item(1)], "items:2: 'id' is missing, empty or not unique"),
    ([{"messages": item(1)["messages"]}], "items:1: 'id' is missing"),
]


@pytest.mark.parametrize(("items", "expected"), BAD_ITEMS, ids=["empty", "twice", "no id"])
def test_bad_items_are_one_clear_line(main, make_args, items, expected):
    with pytest.raises(UserError, match=expected):
        main.run(make_args(items))


def test_a_killed_step_goes_on(main, make_args, monkeypatch):
    """Killed after five answers, it asks for the other six, and the rows are those of a run that was not killed."""
    from model_inference.local_model import LocalModel

    args = make_args([item(number) for number in range(11)])
    main.run(args)
    whole = [row | {"latency_ms": 0} for row in records.read_records(args.predictions)]
    args.predictions.unlink()
    asked, answers = [], LocalModel.answers

    def killed(self, requests):
        for number, pair in enumerate(answers(self, requests)):
            if number == 5 and not asked:
                asked.append(len(requests))
                raise KeyboardInterrupt
            yield pair
        asked.append(len(requests))

    monkeypatch.setattr(LocalModel, "answers", killed)
    with pytest.raises(KeyboardInterrupt):
        main.run(args)
    assert not args.predictions.exists()
    main.run(args)
    assert asked == [11, 6]
    assert [row | {"latency_ms": 0} for row in records.read_records(args.predictions)] == whole


def test_earlier_answers_are_taken_over(main, make_args, tmp_path):
    """Those to the same question, by the same weights, in the same form; their latency is not one of this run."""
    args = make_args([item(0), item(1), item(2)])
    main.run(args)
    earlier = {row["id"]: row for row in records.read_records(args.predictions)}
    renamed = {**item(1), "id": "another name"}
    asked_otherwise = {**item(2), "messages": [{"role": "user", "content": "Else?"}]}
    changes = {"earlier_predictions": args.predictions.rename(tmp_path / "earlier"), "candidate": "again"}
    args = make_args([item(0), renamed, asked_otherwise], **changes)
    metrics = main.run(args)
    first, second, third = records.read_records(args.predictions)
    assert first == earlier["item-0"] | {"candidate": "again", "cached": True, "latency_ms": None}
    assert (second["id"], second["output"], second["cached"]) == ("another name", earlier["item-1"]["output"], True)
    assert (third["cached"], third["latency_ms"] > 0) == (False, True)
    assert metrics["generate/num_cached"] == 2
    assert metrics["perf/latency_p95_ms"] == third["latency_ms"]

    for otherwise in ({"max_new_tokens": 5}, {"prompt_format": "plain"}):
        args = make_args([item(0)], earlier_predictions=tmp_path / "earlier", **otherwise)
        assert main.run(args)["generate/num_cached"] == 0


def test_an_earlier_row_that_lacks_something_is_asked_again(main, make_args, tmp_path):
    args = make_args([item(0)])
    main.run(args)
    row = next(iter(records.read_records(args.predictions)))
    del row["cost"]
    (tmp_path / "earlier").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert main.run(make_args([item(0)], earlier_predictions=tmp_path / "earlier"))["generate/num_cached"] == 0


@pytest.mark.parametrize(
    ("said", "num_cached"), [({"model_sha256": "e" * 64}, 0), ({"endpoint": "https://h"}, 0), ({}, 1)]
)
def test_an_earlier_row_of_another_model_is_asked_again(main, make_args, model_folder, tmp_path, said, num_cached):
    """Whatever its request's hash; a row that does not say it was made before rows did."""
    args = make_args([item(0)])
    main.run(args)
    row = next(iter(records.read_records(args.predictions)))
    del row["model_sha256"]
    (tmp_path / "earlier").write_text(json.dumps(row | said) + "\n", encoding="utf-8")
    args = make_args([item(0)], earlier_predictions=tmp_path / "earlier")
    assert main.run(args)["generate/num_cached"] == num_cached
    (row,) = records.read_records(args.predictions)
    assert row["model_sha256"] == lineage.sha256(model_folder)


@pytest.mark.parametrize("candidate", ["", " ", "a\nb"])
def test_a_candidate_has_a_name_of_one_line(main, make_args, candidate):
    with pytest.raises(UserError, match="is blank or has line breaks"):
        main.run(make_args([item(0)], candidate=candidate))


def test_max_new_tokens_must_leave_room(main, make_args):
    with pytest.raises(UserError, match="leaves no room for a prompt"):
        main.run(make_args([item(0)], max_new_tokens=2048))


def given(args) -> dict[str, object]:
    return {name: value for name, value in vars(args).items() if value is not None}


@pytest.fixture(scope="module")
def adapter(model_folder, tmp_path_factory) -> Path:
    return lora_adapters.write(model_folder, tmp_path_factory.mktemp("lora") / "adapter")


def test_an_adapter_answers_on_its_base_as_the_merged_model(answers, adapter, model_folder, tmp_path):
    import peft
    from transformers import AutoModelForCausalLM

    merged = tmp_path / "merged"
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    peft.PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(merged)
    for file in model_folder.glob("*token*"):
        shutil.copy(file, merged)
    shutil.copy(model_folder / "chat_template.jinja", merged)
    items = [item(number) for number in range(4)]
    adapted = answers(items, model=adapter, base_model=model_folder)
    whole = answers(items, model=merged)
    assert [row["output"] for row in adapted] == [row["output"] for row in whole]
    assert [row["output"] for row in adapted] != [row["output"] for row in answers(items)]


def test_the_hash_of_an_adapter_covers_its_base(answers, adapter, model_folder, tmp_path):
    """Worked out by hand, since a decision binds it."""
    (row,) = answers([item(0)], model=adapter, base_model=model_folder, max_new_tokens=1)
    both = f"adapter {lineage.sha256(adapter)} on {lineage.sha256(model_folder)}\n"
    assert row["model_sha256"] == hashlib.sha256(both.encode()).hexdigest()
    other = shutil.copytree(model_folder, tmp_path / "other")
    (other / "README.md").write_text("another base")
    (again,) = answers([item(0)], model=adapter, base_model=other, max_new_tokens=1)
    assert again["model_sha256"] != row["model_sha256"] and again["request_sha256"] != row["request_sha256"]
    written = json.loads((tmp_path / "predictions.lineage.json").read_text())
    assert written["inputs"]["base_model"]["sha256"] == lineage.sha256(other)


def test_an_adapter_and_its_base_are_given_together(main, make_args, adapter, model_folder):
    for changes, said in (
        ({"model": adapter}, "an adapter without its base"),
        ({"base_model": model_folder}, "no adapter_config.json, so no adapter"),
        ({"model": adapter, "base_model": adapter}, "an adapter without its base"),
        ({"model": None, "endpoint": "http://127.0.0.1:9", "endpoint_model": "m"}, "an endpoint has a base of its own"),
    ):
        if changes.get("model", 0) is None:
            changes |= {"base_model": model_folder, "auth": "none"}
        with pytest.raises(UserError, match=said):
            main.run(make_args([item(0)], **changes))


def test_as_a_process_with_lineage(run_component, make_args):
    args = make_args([item(0), item(1)], max_new_tokens=4)
    done = run_component("generate_answers", **given(args))
    assert done.returncode == 0, done.stderr
    assert "base: 2 items in" in done.stdout
    assert not args.predictions.with_name("predictions.so_far.jsonl").exists()
    written = json.loads(args.predictions.with_name("predictions.lineage.json").read_text())
    assert written["parameters"]["candidate"] == "base"


def test_folder_that_is_no_model_is_one_line(run_component, make_args, tmp_path):
    done = run_component("generate_answers", **given(make_args([item(0)], model=tmp_path)))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "no config.json" in done.stderr
