"""finetune_model: loss on the right tokens, packed chats apart, a killed run ends as an undisturbed one."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slmkit import records
from slmkit.errors import UserError

CHAT = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "a?"},
    {"role": "assistant", "content": "12"},
    {"role": "user", "content": "b?"},
    {"role": "assistant", "content": "34 no"},
]


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("finetune_model")


@pytest.fixture(scope="module")
def base_model(small_model) -> Path:
    return small_model


@pytest.fixture
def tokenizer(main, base_model):
    return main.load_tokenizer(base_model)


def chat(number: int, answer: str = "") -> dict:
    """Chats of unlike length, so that batches are padded."""
    question = f"Phone: 0{number}-{number * 37}\n\n" + "What is the phone? " * (number % 4 + 1)
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer or f"0{number}"}]
    return {"id": f"c{number}", "messages": messages}


def write(path: Path, chats: list[dict]) -> Path:
    with records.write_records(path) as write_one:
        for row in chats:
            write_one(row)
    return path


@pytest.fixture
def make_args(main, base_model, tmp_path):
    """Args of a run of six steps with a checkpoint every second one."""
    train = write(tmp_path / "train", [chat(number) for number in range(24)])
    validation = write(tmp_path / "validation", [chat(number) for number in range(30, 36)])

    def make(name: str = "run", **changes) -> object:
        values = {
            "base_model": base_model,
            "train_data": train,
            "validation_data": validation,
            "model": tmp_path / name / "model",
            "checkpoints": tmp_path / name / "checkpoints",
            "method": "full",
            "learning_rate": 1e-3,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "eval_steps": 2,
            "save_steps": 2,
        }
        return main.Args(**{**values, **changes})

    return make


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_labels_are_the_tokens_that_the_assistant_says(main, tokenizer):
    import chat_tokenization

    row = chat_tokenization.tokenizer_of_chats(tokenizer, True)(CHAT)
    shown = [tokenizer.decode([token]) for token in row["input_ids"]]
    labels = ["" if label == -100 else tokenizer.decode([label]) for label in row["labels"]]
    expected = ["" for _ in shown]
    starts = [i + 3 for i, token in enumerate(shown) if token == "<|im_start|>" and shown[i + 1] == "assistant"]
    for start, said in zip(starts, (["12", "<|im_end|>"], ["34", " ", "no", "<|im_end|>"]), strict=True):
        expected[start : start + len(said)] = said
    assert labels == expected
    assert "".join(shown).startswith("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na?<|im_end|>\n")


def test_without_assistant_only_loss_every_token_is_a_label(main, tokenizer):
    import chat_tokenization

    row = chat_tokenization.tokenizer_of_chats(tokenizer, False)(CHAT)
    assert row["labels"] == row["input_ids"]


PHI_4_MINI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)


@pytest.fixture(scope="module")
def word_tokenizer():
    """A token a word, and the special tokens of Phi-4-mini."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]
    words = ["s", "a", "b", "?", "12", "34", "no"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words + special)}, unk_token="s"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", extra_special_tokens=special[:-1]
    )


def test_labels_under_a_template_without_markers(main, word_tokenizer):
    """Phi-4-mini's template, which TRL does not know and which ends every chat with a second stop token."""
    import chat_tokenization

    word_tokenizer.chat_template = PHI_4_MINI
    row = chat_tokenization.tokenizer_of_chats(word_tokenizer, True)(CHAT)
    shown = word_tokenizer.convert_ids_to_tokens(row["input_ids"])
    labels = ["" if label == -100 else word_tokenizer.convert_ids_to_tokens(label) for label in row["labels"]]
    expected = [
        *[("<|system|>", ""), ("s", ""), ("<|end|>", "")],
        *[("<|user|>", ""), ("a", ""), ("?", ""), ("<|end|>", "")],
        *[("<|assistant|>", ""), ("12", "12"), ("<|end|>", "<|end|>")],
        *[("<|user|>", ""), ("b", ""), ("?", ""), ("<|end|>", "")],
        *[("<|assistant|>", ""), ("34", "34"), ("no", "no"), ("<|end|>", "<|end|>")],
        ("<|endoftext|>", "<|endoftext|>"),
    ]
    assert list(zip(shown, labels, strict=True)) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",  # no prompt for the assistant
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",  # the start changes
    ],
)
def test_a_template_that_hides_the_assistant_is_refused(main, word_tokenizer, template):
    import chat_tokenization

    word_tokenizer.chat_template = template
    with pytest.raises(UserError, match="assistant_only_loss=false"):
        chat_tokenization.tokenizer_of_chats(word_tokenizer, True)(CHAT)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_loss_and_gradients_are_those_of_trl(main, make_args, tokenizer, method):
    """The CPU's own way of computing the loss against SFTTrainer's, on a padded batch."""
    from trl import SFTTrainer

    args = make_args(method=method, lora_dropout=0)
    trainer = main.make_trainer(args, tokenizer, *main.read_data(args, tokenizer))
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["attention_mask"] == 0).any()
    found = {}
    for kind in (type(trainer), SFTTrainer):
        trainer.model.zero_grad()
        loss = kind.compute_loss(trainer, trainer.model, dict(batch))
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
        found[kind] = (loss.item(), gradients)
    (ours, our_gradients), (theirs, their_gradients) = found.values()
    assert len(found) == 2
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        assert gradient.allclose(their_gradients[name], atol=1e-4), name


def test_packed_chats_do_not_see_each_other(main, make_args, tokenizer):
    """The hidden state of each chat in a packed row is the one that it has alone."""
    import torch

    args = make_args(packing=True, max_length=256)
    train, validation = main.read_data(args, tokenizer)
    trainer = main.make_trainer(args, tokenizer, train, validation)
    batch = next(iter(trainer.get_train_dataloader()))
    position_ids = batch["position_ids"][0]
    starts = [*(position_ids == 0).nonzero().flatten().tolist(), len(position_ids)]
    assert len(starts) > 3
    assert (batch["labels"][0, starts[:-1]] == -100).all()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        packed = trainer.model.model(**inputs, use_cache=False).last_hidden_state[0]
        for start, end in itertools.pairwise(starts):
            alone = trainer.model.model(input_ids=batch["input_ids"][:, start:end]).last_hidden_state[0]
            assert packed[start:end].allclose(alone, atol=1e-3)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_gives_whole_tuned_weights(main, make_args, base_model, method, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logged = []
    monkeypatch.setattr(main.tracking, "log_metrics", lambda values, step=None: logged.append((step, values)))
    args = make_args(method=method)
    metrics = main.run(args)
    model = AutoModelForCausalLM.from_pretrained(args.model)
    before = AutoModelForCausalLM.from_pretrained(base_model).state_dict()
    after = model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in after if not after[name].equal(before[name])}
    assert "model.layers.1.mlp.up_proj.weight" in changed
    assert ("model.norm.weight" in changed) == (method == "full")
    assert not list(args.model.glob("adapter*"))
    assert AutoTokenizer.from_pretrained(args.model).chat_template
    assert json.loads((args.model / "lineage.json").read_text())["parameters"]["method"] == method
    assert metrics["train/num_steps"] == 6
    measured = {step: values["eval/loss"] for step, values in logged if "eval/loss" in values}
    assert list(measured) == [2, 4, 6]
    assert measured[6] < measured[2]


def start(args) -> subprocess.Popen:
    folder = Path(__file__).parents[2] / "components"
    flags = [item for name, value in vars(args).items() if value is not None for item in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, str(folder / "finetune_model/main.py"), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder / "_shared")},
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_run_ends_with_the_weights_of_an_undisturbed_one(main, make_args, method):
    changes = {"method": method, "num_train_epochs": 8}  # long enough that the kill falls within
    undisturbed, killed = make_args("undisturbed", **changes), make_args("killed", **changes)
    process = start(undisturbed)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out

    process = start(killed)
    deadline = time.monotonic() + 300
    # Not one checkpoint in particular: only the last two are kept, and this process may be late to look.
    while not list(killed.checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.model.exists()

    process = start(killed)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out
    assert "goes on from checkpoint-" in out
    assert weights(killed.model) == weights(undisturbed.model)


def test_damaged_checkpoint_falls_back_to_the_one_before(main, make_args, capsys):
    args = make_args()
    main.run(args)
    expected = weights(args.model)
    shutil.rmtree(args.model)
    assert {path.name for path in args.checkpoints.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
    last = args.checkpoints / "checkpoint-6/model.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    capsys.readouterr()
    main.run(args)
    printed = capsys.readouterr()
    assert "checkpoint-6 is not used" in printed.err
    assert "goes on from checkpoint-4" in printed.out
    assert weights(args.model) == expected


@pytest.mark.parametrize("name", ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-20])])
def test_incomplete_checkpoint_is_seen(main, tmp_path, name, spoil):
    import checkpoint_recovery
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(3)}, tmp_path / "model.safetensors")
    for pickled in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.ones(100)}, tmp_path / pickled)
    (tmp_path / "trainer_state.json").write_text('{"global_step": 4, "log_history": []}')
    assert checkpoint_recovery.damage(tmp_path) is None
    spoil(tmp_path / name)
    assert checkpoint_recovery.damage(tmp_path)


def test_checkpoints_of_another_run_are_not_continued(main, make_args, capsys):
    main.run(make_args())
    capsys.readouterr()
    changed = make_args(learning_rate=2e-3)
    main.run(changed)
    printed = capsys.readouterr()
    assert "checkpoint-6 belongs to another run and is removed" in printed.err
    assert "goes on" not in printed.out
    fresh = make_args("fresh", learning_rate=2e-3)
    main.run(fresh)
    assert weights(changed.model) == weights(fresh.model)


def test_early_stopping_keeps_the_weights_of_the_lowest_loss(main, make_args, monkeypatch):
    logged = []
    monkeypatch.setattr(main.tracking, "log_metrics", lambda values, step=None: logged.append((step, values)))
    # Other answers in the validation data: what is learned makes their loss rise.
    other = write(make_args().train_data.with_name("other"), [chat(n, answer="zz top") for n in range(6)])
    args = make_args(early_stopping_patience=2, validation_data=other, learning_rate=0.01, num_train_epochs=20)
    metrics = main.run(args)
    measured = [values["eval/loss"] for _, values in logged if set(values) == {"eval/loss"}]
    assert metrics["train/num_steps"] < 60
    assert metrics["eval/loss"] == pytest.approx(min(measured), rel=1e-4)
    assert metrics["eval/loss"] < measured[-2]


def test_chats_that_do_not_fit_are_counted(main, make_args, tmp_path, capsys):
    long = [chat(number, answer="very " * 300) for number in range(3)]
    train = write(tmp_path / "long", [chat(number) for number in range(21)] + long)
    metrics = main.run(make_args(train_data=train, max_length=128, max_error_fraction=0.2, num_train_epochs=1))
    assert metrics["train/num_chats"] == 21
    assert metrics["train/num_left_out"] == 3
    assert "train_data: 3 of 24 chats left out: longer than max_length" in capsys.readouterr().out
    with pytest.raises(UserError, match="3 of 24 chats of train_data"):
        main.run(make_args(train_data=train, max_length=128, max_error_fraction=0.1))


QUESTION = {"role": "user", "content": "a?"}
BAD_DATA = [
    ([], "no chat to train on"),
    ([chat(1), {"id": "x", "messages": []}], "bad:2: a chat needs a non-empty list 'messages'"),
    ([{"id": "x", "messages": [{"role": "bot", "content": "a"}]}], "bad:1: message 1 has the unknown role 'bot'"),
    ([{"id": "x", "messages": [QUESTION]}], "1 of 1 chats of train_data .without an assistant turn"),
]


@pytest.mark.parametrize(("chats", "expected"), BAD_DATA, ids=[expected[:30] for _, expected in BAD_DATA])
def test_bad_training_data_is_one_clear_line(main, make_args, tmp_path, chats, expected):
    args = make_args(train_data=write(tmp_path / "bad", chats))
    with pytest.raises(UserError, match=expected):
        main.run(args)
    assert not args.model.exists()


def test_no_validation_data(main, make_args, tmp_path):
    empty = write(tmp_path / "empty", [])
    assert "eval/loss" not in main.run(make_args(validation_data=empty, num_train_epochs=1))
    with pytest.raises(UserError, match="needs a validation loss"):
        main.run(make_args(validation_data=empty, early_stopping_patience=1))


def test_save_steps_must_fit_early_stopping(main, make_args):
    with pytest.raises(UserError, match="not a multiple of eval_steps"):
        main.run(make_args(early_stopping_patience=1, eval_steps=2, save_steps=3))


def test_negative_learning_rate_exits_2(run_component, make_args):
    args = vars(make_args(learning_rate=-1))
    done = run_component("finetune_model", **{name: value for name, value in args.items() if value is not None})
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "finetune_model: error: argument --learning_rate: -1 is below the minimum 1e-08"
    ]


def test_folder_that_is_no_model(main, make_args, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        main.run(make_args(base_model=tmp_path))
