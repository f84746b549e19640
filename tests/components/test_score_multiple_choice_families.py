"""score_multiple_choice: packed rows give what each family's own forward pass gives, or are not used for it."""

import random

import pytest

from tests.model_training import model_families

MORE_FAMILIES = {
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "opt": ("OPTConfig", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "cohere": ("CohereConfig", {}),
    "cohere2": ("Cohere2Config", {"sliding_window": 6}),
    "granite": ("GraniteConfig", {"logits_scaling": 3.0}),
    "falcon": ("FalconConfig", {}),
    "gpt_oss": (
        "GptOssConfig",
        {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6, "rope_parameters": None},
    ),
    "mamba": ("MambaConfig", {"state_size": 4}),
    "qwen3_next": (  # a layer of linear attention, then one of full attention
        "Qwen3NextConfig",
        {
            **{"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
            **{"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
            **{"shared_expert_intermediate_size": 16, "linear_num_value_heads": 4, "linear_num_key_heads": 2},
            **{"linear_key_head_dim": 8, "linear_value_head_dim": 8},
        },
    ),
}
# What packed rows cannot say: capped or sunk attention, windows in the mask alone, states instead of attention.
PLAIN = ("gemma2", "phimoe", "falcon", "gpt_oss", "mamba", "qwen3_next")
ONLY_EAGER = ("gemma2", "gpt_oss", "mamba")
FAMILIES = [
    *((family, way) for family in ("llama", "mistral", "qwen2", "gemma3", "gpt2") for way in ("sdpa", "eager")),
    *((family, "sdpa") for family in ("qwen3", "phi", "phi3", "mixtral", "qwen3_moe", "gpt_neox", "opt", "cohere")),
    *((family, "sdpa") for family in ("cohere2", "granite")),
    *((family, "eager" if family in ONLY_EAGER else "sdpa") for family in PLAIN),
]


@pytest.fixture(scope="module")
def engine(load_main):
    load_main("score_multiple_choice")
    import choice_likelihoods

    return choice_likelihoods


@pytest.fixture(scope="module", autouse=True)
def more_families():
    with pytest.MonkeyPatch.context() as patch:
        for name, config in MORE_FAMILIES.items():
            patch.setitem(model_families.CONFIGS, name, config)
        yield


def make_questions(*, prefix: int, most_tokens: int, num: int = 9) -> list:
    """Choices that begin alike, that are as short as a letter, and that are longer than a window of 6 tokens."""
    from prefix_groups import Question

    draw = random.Random(7)
    tokens = lambda least, most: [draw.randrange(3, 64) for _ in range(draw.randint(least, most))]  # noqa: E731
    shared = tokens(prefix, prefix)
    questions = []
    for number in range(num):
        choices = [tokens(1, most_tokens) for _ in range(3)]
        choices += [[*choices[0], 9], choices[1][:1]]
        questions.append(Question(f"q{number}", shared + tokens(2, 14), choices, shots="the same"))
    return questions


def by_hand(model, question) -> list[float]:
    """The definition, each choice alone, in float64 from the logits on."""
    import torch

    values = []
    for choice in question.choices:
        with torch.no_grad():
            logits = model(torch.tensor([question.prompt + choice])).logits[0].double().log_softmax(-1)
        start = len(question.prompt) - 1
        values.append(sum(logits[start + i, token].item() for i, token in enumerate(choice)))
    return values


def largest_change(engine, model, questions, expected, max_batch_tokens) -> tuple[float, str | None]:
    scorer = engine.ChoiceScorer(model, max_batch_tokens)
    found = {question.id: values for question, values in scorer.score(questions)}
    assert found.keys() == expected.keys()
    change = max(abs(a - b) for id, values in expected.items() for a, b in zip(found[id], values, strict=True))
    return change, scorer.why_not_packed


@pytest.mark.parametrize(("family", "attention"), FAMILIES)
def test_families(engine, family, attention):
    for prefix, most_tokens in ((0, 9), (40, 9), (40, 1)):
        model = model_families.tiny_model(family, attn_implementation=attention)
        questions = make_questions(prefix=prefix, most_tokens=most_tokens)
        expected = {question.id: by_hand(model, question) for question in questions}
        for max_batch_tokens in (1, 70, 10_000):
            change, why_not = largest_change(engine, model, questions, expected, max_batch_tokens)
            assert change < 1e-4
            assert (why_not is not None) == (family in PLAIN), why_not


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_way_of_accelerators(engine, family, monkeypatch):
    import choice_attention

    monkeypatch.setattr(choice_attention, "_has_cpu_kernel", lambda query: False)
    for prefix in (0, 40):
        model = model_families.tiny_model(family)
        questions = make_questions(prefix=prefix, most_tokens=5)
        expected = {question.id: by_hand(model, question) for question in questions}
        assert largest_change(engine, model, questions, expected, 100)[1] is None
        assert largest_change(engine, model, questions, expected, 100)[0] < 1e-4


def test_a_shared_prefix_is_computed_once(engine):
    model = model_families.tiny_model("llama")
    questions = make_questions(prefix=60, most_tokens=1)
    scorer = engine.ChoiceScorer(model, 50)
    list(scorer.score(questions))
    own = {question.id: len(question.prompt) - 60 + sum(map(len, question.branches)) for question in questions}
    by_length = sorted(questions, key=lambda question: question.num_tokens)
    checked = 60 + own[by_length[0].id] + own[by_length[-1].id]
    assert scorer.num_computed_tokens == checked + 60 + sum(own.values())


def test_questions_with_other_examples_do_not_meet(engine):
    """Two groups, one of a single question, and examples that are not the same although the ids are alike."""
    import dataclasses

    model = model_families.tiny_model("llama")
    questions = [
        *make_questions(prefix=30, most_tokens=4),
        *(
            dataclasses.replace(question, id=f"other {question.id}", prompt=question.prompt[::-1], shots=number // 2)
            for number, question in enumerate(make_questions(prefix=30, most_tokens=4, num=5))
        ),
    ]
    expected = {question.id: by_hand(model, question) for question in questions}
    assert largest_change(engine, model, questions, expected, 200) == (pytest.approx(0, abs=1e-4), None)


@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_out_of_memory_halves_the_budget(engine, family, monkeypatch):
    import torch

    model = model_families.tiny_model(family)
    questions = make_questions(prefix=0, most_tokens=3)
    expected = {question.id: by_hand(model, question) for question in questions}
    decoder = model.get_decoder()
    forward, refused = decoder.forward, []

    def small(input_ids, **kwargs):
        if input_ids.numel() > 90:
            refused.append(input_ids.numel())
            raise torch.OutOfMemoryError("out of memory")
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(decoder, "forward", small)
    scorer = engine.ChoiceScorer(model, 4096)
    found = {question.id: values for question, values in scorer.score(questions)}
    assert refused and scorer.max_batch_tokens < 4096
    for id, values in found.items():
        assert values is None or values == pytest.approx(expected[id], abs=1e-4)
    assert sum(values is None for values in found.values()) < len(found) / 2


def test_a_model_that_lets_choices_see_each_other_is_not_packed(engine, monkeypatch):
    """A mask that is lost on the way is found out by the check on the first questions."""
    import choice_attention

    monkeypatch.setattr(choice_attention.PackedRow, "own_mask", lambda *args, **kwargs: None)
    model = model_families.tiny_model("llama")
    questions = make_questions(prefix=0, most_tokens=5)
    expected = {question.id: by_hand(model, question) for question in questions}
    change, why_not = largest_change(engine, model, questions, expected, 100)
    assert change < 1e-4
    assert "log-likelihoods would change by" in why_not


ENDINGS = [
    *("Answer:", "x\n\nQuestion: which one of all these is the most fitting?\nAnswer:"),
    *("質問\n答え:", "a  b\n", "ends in a space "),
]


@pytest.mark.parametrize("prompt_format", ["chat", "plain"])
def test_choices_are_tokenized_as_with_the_whole_prompt(engine, small_model, prompt_format):
    from choice_tokens import Asked, ChoiceTokens
    from transformers import AutoTokenizer

    from model_inference.prompts import plain_text

    tokenizer = AutoTokenizer.from_pretrained(small_model)
    choices = ["A", "an apple", "りんご", "1,000", "\u200b", "사과 두 개"]
    asked = [Asked(str(i), [{"role": "user", "content": text}], choices) for i, text in enumerate(ENDINGS)]
    questions, errors = ChoiceTokens(tokenizer, prompt_format, max_tokens=2048, truncate=False).encode(asked)
    assert not errors
    for question, one in zip(questions, asked, strict=True):
        if prompt_format == "chat":
            prompt = tokenizer.apply_chat_template(one.messages, tokenize=False, add_generation_prompt=True)
        else:
            prompt = plain_text(one.messages)
        space = " " if prompt_format == "plain" else ""
        assert question.prompt == tokenizer(prompt)["input_ids"]
        whole = [tokenizer(prompt + space + choice)["input_ids"] for choice in choices]
        assert question.choices == [ids[len(question.prompt) :] for ids in whole]
