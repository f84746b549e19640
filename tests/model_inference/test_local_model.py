"""A model in this process: where an answer ends, what is cut, refused and counted, and what it costs."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch

from model_inference import answer_sources
from model_inference.answer_sources import Prices, Request
from slmkit.chat_client import AnswerError
from slmkit.errors import UserError

NO_PRICES = Prices()


def connect(model, prices: Prices = NO_PRICES, truncate_prompt: bool = False, **changes):
    ports = {"endpoint": None, "endpoint_model": None, "auth": "none", "concurrency": 8, "bf16": False}
    ports |= {"model": model, "prompt_format": "chat", "batch_size": 4, **changes}
    return answer_sources.connect(SimpleNamespace(**ports), prices, truncate_prompt=truncate_prompt)


def chat(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def says(small_model, monkeypatch):
    """A source whose model says, after whatever prompt, what a test gives: text, or token ids."""

    def make(said, **changes):
        with connect(small_model, **changes) as source:
            forward = source.model.forward
            tokens = source.tokenizer(said, add_special_tokens=False)["input_ids"] if isinstance(said, str) else said
            num_steps = iter(range(1000))

            def scripted(*, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
                given = forward(input_ids, attention_mask, position_ids, past_key_values, use_cache=use_cache)
                logits = given.logits * 0
                step = next(num_steps)
                logits[..., tokens[step] if step < len(tokens) else source.tokenizer.pad_token_id] = 1
                return SimpleNamespace(logits=logits)

            monkeypatch.setattr(source.model, "forward", scripted)
            return source

    return make


def only(source, max_new_tokens: int):
    ((_, answer),) = source.answers([Request("q", chat("How many?"), max_new_tokens)])
    return answer


def test_an_answer_ends_at_the_end_of_turn(says):
    source = says([])
    said = [*source.tokenizer("12", add_special_tokens=False)["input_ids"], source.tokenizer.eos_token_id, 5, 6]
    answer = only(says(said), 20)
    assert (answer.text, answer.completion_tokens, answer.finish_reason) == ("12", len(said) - 2, "stop")


def test_an_answer_without_end_is_cut(says):
    answer = only(says("1 2 3 4 5 6 7 8 9"), 3)
    assert (answer.completion_tokens, answer.finish_reason) == (3, "length")


@pytest.mark.parametrize(
    ("said", "expected"),
    [(" Four.\n\nQuestion: next", "Four."), (" Four\nor five.\n\nQ", "Four\nor five."), ("네.\n\n질문", "네.")],
    ids=["blank line", "one line break stays", "Korean"],
)
def test_a_plain_answer_ends_at_a_blank_line(says, said, expected):
    answer = only(says(said, prompt_format="plain"), 40)
    assert (answer.text, answer.finish_reason) == (expected, "stop")
    tokens = says("").tokenizer(said, add_special_tokens=False)["input_ids"]
    assert answer.completion_tokens < len(tokens), "it stopped there, and was not only cut there"


def test_a_chat_answer_does_not_end_at_a_blank_line(says):
    assert only(says("Four.\n\nOr five."), 8).text.startswith("Four.\n\n")


def test_a_request_that_cannot_be_asked_fails_alone(small_model):
    wrong = [*chat("Who?"), {"role": "assistant", "content": "Me."}]
    requests = [Request("a", wrong, 4), Request("b", chat("word " * 3000), 4), Request("c", chat("Who?"), 4)]
    with connect(small_model) as source:
        found = {request.key: answer for request, answer in source.answers(requests)}
    assert isinstance(found["a"], AnswerError) and "end with the assistant's turn" in str(found["a"])
    assert isinstance(found["b"], AnswerError) and "the model takes 2044" in str(found["b"])
    assert found["c"].completion_tokens == 4 or found["c"].finish_reason == "stop"


def test_a_long_prompt_is_cut_from_the_left_where_that_is_allowed(small_model):
    """The answer is that to the end of the prompt alone."""
    with connect(small_model, truncate_prompt=True, prompt_format="plain") as source:
        long = "word " * 3000 + "Who?"
        ids = source.tokenizer(long)["input_ids"][-2044:]
        assert source.tokenizer(source.tokenizer.decode(ids))["input_ids"] == ids
        requests = [Request("long", chat(long), 4), Request("end", chat(source.tokenizer.decode(ids)), 4)]
        found = {request.key: answer for request, answer in source.answers(requests)}
        assert found["long"].text == found["end"].text
        assert found["long"].prompt_tokens == 2044
        assert source.usage["num_truncated"] == 1


def test_each_request_has_its_own_limit_and_temperature(small_model):
    with connect(small_model) as source:
        requests = [Request(str(n), chat(f"Who is {n}?"), 2 + n, temperature=float(n % 2)) for n in range(6)]
        together = {request.key: answer.text for request, answer in source.answers(requests)}
        alone = {}
        for request in requests:
            ((_, answer),) = source.answers([request])
            assert answer.completion_tokens <= request.max_new_tokens
            alone[request.key] = answer.text
    assert together == alone


def test_cost_is_the_share_of_the_machine(small_model):
    """The costs of all answers are those of the time that they took together."""
    with connect(small_model, Prices(machine_per_hour=3600.0)) as source:  # one a second
        answers = [answer for _, answer in source.answers([Request(str(n), chat(str(n)), 8) for n in range(8)])]
        seconds = sum(answer.completion_tokens for answer in answers) / source.usage["tokens_per_second"]
    assert 0.5 * seconds < sum(answer.cost for answer in answers) <= seconds
    with connect(small_model) as source:
        assert only(source, 2).cost is None


def test_too_long_an_answer_leaves_no_room(small_model):
    with connect(small_model) as source, pytest.raises(UserError, match="leaves no room for a prompt"):
        only(source, 2048)


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="is an adapter without its base"), connect(tmp_path):
        pass


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": None}, "found neither"),
        ({"endpoint": "http://127.0.0.1:1/v1"}, "found both"),
        ({"model": None, "endpoint": "http://127.0.0.1:1/v1"}, "endpoint needs endpoint_model"),
        (
            {"model": None, "endpoint": "http://127.0.0.1:1/v1", "endpoint_model": "m", "prompt_format": "plain"},
            "asked with chats",
        ),
    ],
)
def test_one_of_model_and_endpoint(small_model, changes, expected):
    with pytest.raises(UserError, match=expected), connect(**{"model": small_model, **changes}):
        pass


def change_weights(folder: Path, change) -> None:
    """Rewrite the weights without Transformers, which would mend them."""
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    change(weights)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_of_nan_has_no_answers(small_model, tmp_path, temperature):
    folder = shutil.copytree(small_model, tmp_path / "model")
    change_weights(folder, lambda weights: next(iter(weights.values())).fill_(float("nan")))
    with connect(folder) as source:
        requests = [Request(str(i), chat("Why?"), 5, temperature) for i in range(3)]
        for _, answer in source.answers(requests):
            assert isinstance(answer, AnswerError)
            assert "NaN" in str(answer)


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def fewer_weights(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop(next(name for name in weights if "mlp" in name)))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (no_tokenizer, "no tokenizer, or one without a vocabulary"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "the tokenizer cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "the model cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded .*not a valid JSON"),
        (cut_weights, "the model cannot be loaded"),
        (fewer_weights, "1 weights of the model are missing, such as .*mlp"),
    ],
)
def test_a_damaged_model_folder_is_one_line(small_model, tmp_path, damage, expected):
    folder = shutil.copytree(small_model, tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match=expected) as refused, connect(folder):
        pass
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_token_that_the_model_does_not_know_is_an_error_of_its_request(small_model):
    with connect(small_model) as source:
        source._num_embeddings = 7
        assert "the tokenizer is not the model's" in str(only(source, 5))
