"""serving/engines: what is served is what Transformers says, by both engines, with no character broken."""

import functools
import os
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import inference_server, test_environments

if str(inference_server.SERVING) not in sys.path:
    sys.path.append(str(inference_server.SERVING))

import engines
import token_text

CHATS = [
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "It's 12345 days!\n\n  Isn't it?"}],
    [{"role": "user", "content": "東京の天気は？😀👩‍👩‍👧"}],
    [
        {"role": "user", "content": "한국어"},
        {"role": "assistant", "content": "네"},
        {"role": "user", "content": "더"},
    ],
    [{"role": "user", "content": "cafe\u0301 Å が　全角 "}],
    [{"role": "user", "content": "Where is 荷物? " * 40}],
]
BUILD = """
import sys
from onnxruntime_genai.models.builder import create_model, parse_extra_options
where = ["", *sys.argv[1:3], "fp32", "cpu", sys.argv[3]]
create_model(*where, **parse_extra_options(*where, []))
"""


@pytest.fixture(scope="module")
def onnx_model(small_model, tmp_path_factory) -> Path:
    """The small model in float32, so that its answers are those of Transformers."""
    target, cache = tmp_path_factory.mktemp("onnx"), tmp_path_factory.mktemp("cache")
    command = [sys.executable, "-c", BUILD, str(small_model), str(target), str(cache)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return target


@pytest.fixture(scope="module", params=["transformers", "onnx"])
def engine(request, small_model) -> engines.Engine:
    folder = small_model if request.param == "transformers" else request.getfixturevalue("onnx_model")
    loaded = engines.load(folder, num_threads=1)
    assert type(loaded).__name__ == {"transformers": "TransformersEngine", "onnx": "OnnxEngine"}[request.param]
    return loaded


@pytest.fixture(scope="module")
def reference(small_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(small_model).eval(), AutoTokenizer.from_pretrained(small_model)


@functools.cache
def tokenizer_of(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("chat", CHATS)
def test_prompt_is_the_chat_template_s(engine, reference, chat):
    text = reference[1].apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert engine.encode_chat(chat) == reference[1](text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("chat", CHATS)
def test_greedy_tokens_are_those_of_generate(engine, reference, chat):
    import torch

    model, tokenizer = reference
    prompt = engine.encode_chat(chat)
    with torch.inference_mode():
        whole = model.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )[0].tolist()
    expected = [token for token in whole[len(prompt) :] if token != tokenizer.eos_token_id]
    assert list(engine.stream(prompt, 24)) == expected


def test_a_long_prompt_is_read_in_parts(onnx_model, monkeypatch):
    """As a whole, a thousand tokens of it take half a gigabyte with a large vocabulary."""
    engine, sizes = engines.load(onnx_model, num_threads=1), []
    genai = engine._genai

    class Watched:
        def __init__(self, *where):
            self.generator = genai.Generator(*where)

        def append_tokens(self, token_ids):
            sizes.append(len(token_ids))
            self.generator.append_tokens(token_ids)

        def __getattr__(self, name):
            return getattr(self.generator, name)

    watched = types.SimpleNamespace(Generator=Watched, GeneratorParams=genai.GeneratorParams)
    monkeypatch.setattr(engine, "_genai", watched)
    prompt = engine.encode_chat(CHATS[-1])
    assert len(list(engine.stream(prompt, 3))) <= 3
    assert len(sizes) >= 3
    assert (sum(sizes), max(sizes)) == (len(prompt), 128)


def test_a_seed_draws_the_same_tokens_again(engine):
    prompt = engine.encode_chat(CHATS[0])
    drawn = [tuple(engine.stream(prompt, 12, temperature=1.5, seed=seed)) for seed in (1, 1, 2, 3, -1, 2**62)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) >= 3
    unseeded = {tuple(engine.stream(prompt, 12, temperature=2.0)) for _ in range(3)}
    assert len(unseeded) > 1


def test_cold_or_narrow_sampling_is_greedy(engine):
    prompt = engine.encode_chat(CHATS[1])
    greedy = list(engine.stream(prompt, 10))
    assert list(engine.stream(prompt, 10, temperature=1e-4, seed=5)) == greedy
    assert list(engine.stream(prompt, 10, temperature=2.0, top_p=1e-6, seed=5)) == greedy


def test_tokens_go_to_where_the_model_is(small_model, monkeypatch):
    """A device without a machine behind it stands for a GPU."""
    import torch

    loaded = engines.load(small_model, num_threads=1)
    devices = []

    class Elsewhere:
        device = torch.device("meta")

        def __call__(self, token_ids, **_):
            devices.append(token_ids.device.type)
            logits = torch.nn.functional.one_hot(torch.tensor([[5]]), 10).float()
            return types.SimpleNamespace(logits=logits, past_key_values=None)

    monkeypatch.setattr(loaded, "_model", Elsewhere())
    assert list(loaded.stream([1, 2], 3)) == [5, 5, 5]
    assert devices == ["meta"] * 3


def test_threads_do_not_disturb_each_other(engine):
    prompts = [engine.encode_chat(chat) for chat in CHATS]
    alone = [list(engine.stream(prompt, 20)) for prompt in prompts]
    together: list[list[int] | None] = [None] * len(prompts)

    def ask(number: int) -> None:
        together[number] = list(engine.stream(prompts[number], 20))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert together == alone


def test_answers_advance_in_turn(engine):
    """An abandoned answer holds nobody up, and of two unfinished ones both go on."""
    prompt = engine.encode_chat(CHATS[0])
    first, second = engine.stream(prompt, 20, 1.0, 1.0, 1), engine.stream(prompt, 20, 1.0, 1.0, 1)
    together = [(next(first), next(second)) for _ in range(3)]
    first.close()
    assert all(one == other for one, other in together)
    assert next(second) is not None


TEXTS = st.text(st.sampled_from("abc 東京都の天気は한국어로감사합니다😀🌊👩‍👩‍👧éÅ\n�"), max_size=30)


@given(text=TEXTS)
def test_pieces_make_the_whole_and_none_is_broken(small_model, text):
    tokenizer = tokenizer_of(small_model)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    decoder = token_text.TokenDecoder(tokenizer)
    pieces = [decoder.put(token) for token in tokens]
    last = decoder.end()
    assert "".join([*pieces, last]) == text.rstrip("�") or "�" in text
    if "�" not in text:
        assert "�" not in "".join(pieces)
        assert last == ""


def test_a_character_comes_with_its_last_token(small_model):
    """These tokens each hold one byte of a character that the tokenizer has not learned."""
    tokenizer = tokenizer_of(small_model)
    tokens = tokenizer("🫠", add_special_tokens=False)["input_ids"]
    assert len(tokens) > 1, "the character must be one of several tokens for this test"
    decoder = token_text.TokenDecoder(tokenizer)
    assert [decoder.put(token) for token in tokens] == [""] * (len(tokens) - 1) + ["🫠"]
    for token in tokens[:-1]:
        assert decoder.put(token) == ""
    assert decoder.end() == ""


class Letters:
    """A decoder whose tokens are the texts themselves."""

    def put(self, piece: str) -> str:
        return piece

    def end(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("pieces", "stop", "shown", "stopped"),
    [
        (["one ", "EN", "D two"], ["END"], ["one ", "", ""], True),
        (["one EN", "TRY"], ["END"], ["one ", "ENTRY"], False),
        (["aa", "ab"], ["aab"], ["", "a"], True),
        (["x\n", "\nUser:"], ["\n\nUser", "\n\n"], ["x", ""], True),
        (["終わり", "です"], ["わりで"], ["終", ""], True),
        (["abc"], [], ["abc"], False),
    ],
)
def test_stop_strings_across_tokens(pieces, stop, shown, stopped):
    text = token_text.AnswerText(Letters(), stop)
    assert [text.put(piece) for piece in pieces] == shown
    assert text.stopped is stopped
    assert text.end() == ""


def test_what_looked_like_a_stop_string_is_shown_at_the_end():
    text = token_text.AnswerText(Letters(), ["END"])
    assert (text.put("the EN"), text.end()) == ("the ", "EN")


def test_a_template_s_refusal_is_the_client_s_mistake(small_model, tmp_path):
    folder = shutil.copytree(small_model, tmp_path / "model")
    template = "{{ raise_exception('roles must alternate') }}"
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(engines.UnusableChatError, match="roles must alternate"):
        engines.load(folder).encode_chat(CHATS[0])


@pytest.mark.parametrize(
    ("remove", "said"),
    [
        ("config.json", "neither genai_config.json nor config.json"),
        ("tokenizer.json", "tokenizer"),
        ("chat_template.jinja", "no chat template"),
        ("model.safetensors", "the model cannot be loaded"),
    ],
)
def test_an_incomplete_folder_is_refused(small_model, tmp_path, remove, said):
    folder = shutil.copytree(small_model, tmp_path / "model")
    (folder / remove).unlink()
    with pytest.raises(engines.UnusableModelError, match=said):
        engines.load(folder)


def test_a_tokenizer_of_another_model_is_refused(small_model, tmp_path):
    folder = shutil.copytree(small_model, tmp_path / "model")
    tokenizer = tokenizer_of(small_model)
    grown = type(tokenizer).from_pretrained(folder)
    grown.add_tokens(["<one_more>"])
    grown.save_pretrained(folder)
    with pytest.raises(engines.UnusableModelError, match="are both of the same model"):
        engines.load(folder)


def test_a_broken_onnx_folder_is_refused(tmp_path):
    (tmp_path / "genai_config.json").write_text('{"model": {"type": "qwen3"}}')
    with pytest.raises(engines.UnusableModelError, match="no model of ONNX Runtime GenAI"):
        engines.load(tmp_path)


def test_the_environment_pins_what_is_imported():
    pins = test_environments.pins_of(inference_server.ROOT / "environments" / "serve" / "conda.yml")
    files = list(inference_server.SERVING.glob("*.py"))
    known = {file.stem for file in files} | set(sys.stdlib_module_names)
    imported = {name.partition(".")[0] for file in files for name in test_environments.imports_of(file)} - known
    assert {"torch", "flask", "onnxruntime_genai"} <= imported
    assert {test_environments.normalized(name) for name in imported} <= set(pins)
