"""import_model: the tiny model is a real, repeatable model; anything that is not a whole model is refused in a line."""

import json
import shutil
from pathlib import Path

import pytest

from slmkit.errors import UserError


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("import_model")


@pytest.fixture
def model_folder(small_model, tmp_path) -> Path:
    return shutil.copytree(small_model, tmp_path / "given")


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


def test_folder_is_copied_whole_with_its_lineage(run_component, model_folder, tmp_path):
    (model_folder / "pytorch_model.bin").write_bytes(b"pickle")
    (model_folder / "modeling_own.py").write_text("raise SystemExit")
    done = run_component("import_model", model_folder=model_folder, base_model=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "lineage.json"} <= names
    assert not names & {"pytorch_model.bin", "modeling_own.py", ".partial"}
    assert (tmp_path / "out/model.safetensors").read_bytes() == (model_folder / "model.safetensors").read_bytes()
    assert "1,486,976 parameters" in done.stdout


def test_asset_with_model_and_tokenizer_in_folders_below(main, model_folder, tmp_path):
    """The layout of MLflow's transformers flavor, in which Azure's registries keep many models."""
    asset = tmp_path / "asset"
    (asset / "data/model").mkdir(parents=True)
    (asset / "data/tokenizer").mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.move(model_folder / name, asset / "data/model")
    for path in model_folder.iterdir():
        shutil.move(path, asset / "data/tokenizer")
    metrics = main.run(main.Args(base_model=tmp_path / "out", model_folder=asset))
    assert metrics["model/num_parameters"] > 1e6
    assert (tmp_path / "out/tokenizer.json").is_file()


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def lose_a_shard(folder: Path) -> None:
    weight_map = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def make_unknown(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no_such_model"}')


BROKEN = [
    (lambda folder: (folder / "config.json").unlink(), "no folders with config.json"),
    (cut, "model.safetensors is damaged or cut short"),
    (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "no safetensors weights"),
    (lose_a_shard, "model-00002-of-00002.safetensors of its index is missing"),
    (lambda folder: (folder / "chat_template.jinja").unlink(), "has no chat template"),
    (make_unknown, "cannot read the model"),
    (lambda folder: (folder / "config.json").write_text("{"), "cannot read the model"),
]


@pytest.mark.parametrize(("spoil", "expected"), BROKEN, ids=[expected for _, expected in BROKEN])
def test_what_is_no_whole_model_is_refused_and_leaves_nothing(main, model_folder, tmp_path, spoil, expected):
    spoil(model_folder)
    with pytest.raises(UserError, match=expected):
        main.run(main.Args(base_model=tmp_path / "out", model_folder=model_folder))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "not an id"])
def test_unknown_hub_id_offline_is_one_line(run_component, tmp_path, name):
    done = run_component(
        "import_model", model_name=name, base_model=tmp_path / "out", env={"HF_HUB_OFFLINE": "1", "HF_HOME": tmp_path}
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert name in done.stderr
    assert "model_folder" in done.stderr or "tiny" in done.stderr
