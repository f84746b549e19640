"""Decoding in a running batch: the tokens of `generate` for one prompt at a time, whatever shares the batch."""

import collections
import random

import pytest
import torch
import transformers

from model_inference import batch_cache, decoding
from model_inference.decoding import Decoder, Row
from tests.model_training.model_families import SIZES, tiny_model

NUM_TOKENS = SIZES["vocab_size"]


def is_end(tokens: list[int]) -> bool:
    """Ends answers at all lengths, also those of a model that repeats itself."""
    return sum(tokens) % 11 == 0


def prompts(count: int, *, shared: int = 0, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    begin = [draw.randrange(3, NUM_TOKENS) for _ in range(shared)]
    return [begin + [draw.randrange(3, NUM_TOKENS) for _ in range(draw.randrange(1, 40))] for _ in range(count)]


def make_rows(asked: list[list[int]], **options) -> list[Row]:
    """Every third answer is cut off early by its own limit."""
    return [Row(prompt, 4 if i % 3 == 0 else 24, **options) for i, prompt in enumerate(asked)]


def one_by_one(model, rows: list[Row]) -> list[list[int]]:
    """The reference: Transformers' own greedy search, one prompt in a batch, nothing padded; cut at its end."""
    found = []
    for row in rows:
        config = transformers.GenerationConfig(do_sample=False, max_new_tokens=row.max_new_tokens)
        inputs = torch.tensor([row.prompt])
        with torch.no_grad():
            out = model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
        tokens = out[0, len(row.prompt) :].tolist()
        end = next((i for i in range(1, len(tokens)) if is_end(tokens[:i])), len(tokens))
        found.append(tokens[:end])
    return found


def decoded(model, rows: list[Row], batch_size: int) -> list[list[int]]:
    done = list(Decoder(model, batch_size=batch_size, is_end=is_end).decode(rows))
    assert sorted(map(id, done)) == sorted(map(id, rows))
    return [row.tokens for row in rows]


def build(config_name: str, **changes):
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(**{**SIZES, "tie_word_embeddings": False, **changes})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


OTHERS = {
    "gpt2": lambda: build("GPT2Config", n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "gpt_neox": lambda: build("GPTNeoXConfig"),
    "longrope": lambda: build(
        "Phi3Config",
        original_max_position_embeddings=48,
        rope_parameters={"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4},
    ),
    "alibi": lambda: build("BloomConfig", n_layer=2, n_head=4),
    "state space": lambda: build("MambaConfig", state_size=8),
    "state space and attention": lambda: build(
        "Qwen3NextConfig",
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi", "phi3", "qwen3_moe", *OTHERS)


def model_of(family: str):
    model = OTHERS[family]() if family in OTHERS else tiny_model(family, tie_word_embeddings=False)
    model.generation_config = transformers.GenerationConfig()  # without a stop token
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [0, 40], ids=["unlike", "shared beginning"])
def test_tokens_are_those_of_one_prompt_at_a_time(family, shared):
    model = model_of(family)
    rows = make_rows(prompts(9, shared=shared))
    expected = one_by_one(model, rows)
    assert len(set(map(len, expected))) > 3, "answers of several lengths, or leaving the batch is not tested"
    assert len({token for tokens in expected for token in tokens}) > 5, "several tokens, or a wrong mask does not show"
    assert decoded(model, rows, batch_size=4) == expected


@pytest.mark.parametrize(("family", "joint"), [("llama", True), ("gemma3", True), ("gpt2", True), ("alibi", False)])
def test_what_shares_a_batch(family, joint):
    assert (decoding._longest_in_a_batch(model_of(family)) > 0) == joint


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_batch_size_changes_nothing(batch_size):
    model = model_of("gemma3")
    rows = make_rows(prompts(12, seed=3) + prompts(8, shared=50, seed=4))
    assert decoded(model, rows, batch_size) == one_by_one(model, rows)


def test_a_long_answer_outgrows_what_was_reserved():
    model = model_of("llama")
    rows = [Row(prompt, 150) for prompt in prompts(3)]
    found = list(Decoder(model, batch_size=2, is_end=lambda tokens: False).decode(rows))
    assert [len(row.tokens) for row in found] == [150] * 3
    config = transformers.GenerationConfig(do_sample=False, max_new_tokens=150)
    for row in rows:
        out = model.generate(torch.tensor([row.prompt]), generation_config=config)
        assert row.tokens == out[0, len(row.prompt) :].tolist()


@pytest.mark.parametrize("family", ["llama", "state space"])
def test_draws_depend_on_the_seed_and_not_on_the_batch(family):
    model = model_of(family)
    asked = prompts(8)

    def draw(seeds: list[str], batch_size: int) -> list[list[int]]:
        rows = [Row(prompt, 12, temperature=1.5, seed=seed) for prompt, seed in zip(asked, seeds, strict=True)]
        return decoded(model, rows, batch_size)

    seeds = [f"1 {number}" for number in range(8)]
    expected = draw(seeds, 1)
    assert draw(seeds, 8) == expected
    assert draw([f"2 {number}" for number in range(8)], 8) != expected
    assert expected != decoded(model, [Row(prompt, 12) for prompt in asked], 8)


@pytest.mark.parametrize("family", ["llama", "alibi"])
def test_nan_ends_a_row_with_an_error(family):
    model = model_of(family)
    model.get_output_embeddings().weight.data[5] = float("nan")
    for row in Decoder(model, batch_size=4, is_end=is_end).decode(make_rows(prompts(3))):
        assert "NaN" in row.error
        assert len(row.tokens) == 1


def test_draws_follow_the_softmax():
    """Of 4,000 draws from known probabilities, no count is off by more than 4 standard deviations."""
    shares = torch.tensor([0.5, 0.25, 0.2, 0.05])
    row = Row([1], 1, temperature=2.0)
    counts = collections.Counter(row.choose(shares.log() * 2.0) for _ in range(4000))
    for token, share in enumerate(shares.tolist()):
        assert abs(counts[token] - 4000 * share) <= 4 * (4000 * share * (1 - share)) ** 0.5


def test_what_prompts_share_is_read_once():
    """Counted in tokens that the model is given: the beginning once, then what is left of each prompt."""
    model = model_of("llama")
    given = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    begin = prompts(1, shared=100)[0][:100]
    rows = [Row([*begin, 10 + i], 1) for i in range(6)]
    list(Decoder(model, batch_size=3, is_end=is_end).decode(rows))
    assert given == [100, 3, 3]


def test_a_place_is_free_as_soon_as_a_row_ends():
    """Two places: one row of 20 tokens, and beside it four rows of 5, one after the other."""
    model = model_of("llama")
    widths = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    rows = [Row([5] * 8, 20), *(Row([6 + i] * 7, 5) for i in range(4))]
    list(Decoder(model, batch_size=2, is_end=lambda tokens: False).decode(rows))
    steps = [shape[0] for shape in widths if shape[1] == 1]
    assert steps == [2] * 16 + [1] * 3
    assert len(widths) - len(steps) == 4


class Memory:
    """A model that takes at most so many tokens, rows times columns, as a small accelerator does."""

    def __init__(self, model, most: int):
        self.most, self.refused = most, 0
        model.register_forward_pre_hook(self.check, with_kwargs=True)

    def check(self, module, args, kwargs):
        seen = kwargs.get("attention_mask")
        if (kwargs["input_ids"] if seen is None else seen).numel() > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("out of memory")


@pytest.mark.parametrize("family", ["llama", "state space and attention"])
def test_too_little_memory_halves_the_batch_and_costs_one_row_at_most(family):
    model = model_of(family)
    asked = [[7] * 100, *prompts(8), *([8, number] * 15 for number in range(8))]
    rows = make_rows(asked)
    expected = one_by_one(model, rows[1:])
    memory = Memory(model, most=90)
    done = list(Decoder(model, batch_size=8, is_end=is_end).decode(rows))
    assert sorted(map(id, done)) == sorted(map(id, rows))
    assert "out of memory with a prompt of 100 tokens" in rows[0].error
    assert [row.error for row in rows[1:]] == [None] * 16
    assert [row.tokens for row in rows[1:]] == expected
    assert memory.refused >= 2


def test_the_cache_itself_is_smaller_after_too_little_memory(monkeypatch):
    """Not only the rows in use: what is reserved for all places must fit as well."""
    reserved = []

    def zeros(self, like):
        reserved.append(self._batch.max_rows)
        if self._batch.max_rows > 3:
            raise torch.OutOfMemoryError("out of memory")
        return like.new_zeros(self._batch.max_rows, like.shape[1], self._batch.capacity, like.shape[3])

    monkeypatch.setattr(batch_cache._Layer, "_zeros", zeros)
    rows = [Row([5 + number] * 9, 6) for number in range(9)]
    expected = one_by_one(model := model_of("llama"), rows)
    assert decoded(model, rows, batch_size=8) == expected
    assert list(dict.fromkeys(reserved)) == [8, 4, 2]


def test_times_add_up():
    """Each row's share of the machine adds up to the time of the whole, and none took longer than that."""
    import time

    model = model_of("llama")
    rows = make_rows(prompts(9))
    started = time.perf_counter()
    list(Decoder(model, batch_size=4, is_end=is_end).decode(rows))
    whole = time.perf_counter() - started
    assert 0.5 * whole < sum(row.machine_seconds for row in rows) <= whole
    assert all(row.machine_seconds < row.seconds <= whole for row in rows)
