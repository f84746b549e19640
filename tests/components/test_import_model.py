"""import_model: the built-in tiny model is a real, repeatable model; its sources are in test_import_model_sources."""

import pytest


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("import_model")


def test_same_seed_gives_the_same_bytes(small_model, tmp_path):
    import tiny_model

    model, tokenizer = tiny_model.make(seed=1, num_steps=4)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / name).read_bytes() == (small_model / name).read_bytes(), name


@pytest.mark.parametrize(
    "text",
    ["Phone Number: 02-5678-1234", "電話番号: 〒100-0001 東京都", "전화번호: 서울특별시 중구", "絕 🎉 é\t\r\n  x ー々"],
)
def test_tokenizer_returns_any_text_unchanged(small_model, text):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_model)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_common_characters_and_pairs_of_digits_are_one_token(small_model):
    from transformers import AutoTokenizer

    tokens = [AutoTokenizer.from_pretrained(small_model).decode([i]) for i in _ids(small_model, "電話02-56은행の")]
    assert tokens == ["電", "話", "02", "-", "56", "은", "행", "の"]


def _ids(folder, text):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)(text)["input_ids"]


def test_template_marks_what_the_assistant_says(small_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_model)
    messages = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "12"},
        {"role": "user", "content": "b?"},
        {"role": "assistant", "content": "34"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>user\na?<|im_end|>\n<|im_start|>assistant\n12<|im_end|>\n"
        "<|im_start|>user\nb?<|im_end|>\n<|im_start|>assistant\n34<|im_end|>\n"
    )
    marked = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    said = [
        tokenizer.decode([token])
        for token, is_said in zip(marked["input_ids"], marked["assistant_masks"], strict=True)
        if is_said
    ]
    assert said == ["12", "<|im_end|>", "34", "<|im_end|>"]


def test_the_start_already_copies_what_followed_before(main):
    """Without any training, random tokens that come again are continued by what followed them at first.

    By chance 1 of 7,600 tokens would be right; so the heads do what tiny_attention says of them.
    """
    import tiny_model
    import torch

    torch.manual_seed(0)
    model = tiny_model.make_model(tiny_model.make_tokenizer())
    spans = torch.randint(300, 7000, (16, 24))
    other = torch.randint(300, 7000, (16, 10))
    ids = torch.cat([spans, other, spans], dim=1)
    with torch.no_grad():
        predicted = model(ids).logits.argmax(-1)
    right = (predicted[:, 37:-1] == ids[:, 38:]).float().mean().item()
    assert right > 0.2


def test_training_lowers_the_loss(main):
    import tiny_model
    import torch

    torch.manual_seed(0)
    tokenizer = tiny_model.make_tokenizer()
    model = tiny_model.make_model(tokenizer)
    held_out = next(iter(tiny_model.batches(tokenizer, seed=99, num_steps=1)))
    with torch.no_grad():
        before = tiny_model.prose_loss(model, *held_out).item()
    tiny_model.train(model, tokenizer, seed=0, num_steps=20)
    with torch.no_grad():
        after = tiny_model.prose_loss(model, *held_out).item()
    assert after < before - 0.5


def test_listings_are_restated_word_for_word(main):
    import tiny_corpus

    for number in range(50):
        listing = tiny_corpus.Writer(number).listing(6)
        lines = [line.partition(": ")[2] for line in listing.lines.splitlines() if line]
        values = [text for text, is_value in listing.prose if is_value]
        assert len(lines) == 6
        assert sorted(values) == sorted(lines)
