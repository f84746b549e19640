"""align_model: held-out pairs are preferred the right way afterwards, measured exactly, whoever trained and resumed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from slmkit import records
from slmkit.errors import UserError

COMPONENTS = Path(__file__).parents[2] / "components"
EXACT = ("eval/preference_margin", "eval/preference_accuracy", "eval/reward_margin", "eval/reward_accuracy")


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("align_model")


@pytest.fixture
def tokenizer(main, small_model):
    return main.loading.load_tokenizer(small_model)


def pair(number: int, **changes) -> dict:
    """The untrained model prefers the digits, which it has just read; the pairs, of unlike length, do not."""
    question = f"Phone: 0{number}-{number * 37}\n\n" + "What is the phone? " * (number % 4 + 1)
    return {
        "id": f"p{number}",
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": "No idea. " * (number % 3 + 1)}],
        "rejected": [{"role": "assistant", "content": f"0{number}-{number * 37}"}],
        **changes,
    }


def write(path: Path, rows: list[dict]) -> Path:
    with records.write_records(path) as write_one:
        for row in rows:
            write_one(row)
    return path


@pytest.fixture
def make_args(main, small_model, tmp_path):
    """Args of a run of six steps with a checkpoint every second one."""
    train = write(tmp_path / "train", [pair(number) for number in range(24)])
    validation = write(tmp_path / "validation", [pair(number) for number in range(30, 37)])

    def make(name: str = "run", **changes) -> object:
        values = {
            "base_model": small_model,
            "train_preferences": train,
            "validation_preferences": validation,
            "model": tmp_path / name / "model",
            "checkpoints": tmp_path / name / "checkpoints",
            "report": tmp_path / name / "report",
            "method": "full",
            "learning_rate": 1e-3,
            "eval_steps": 4,
            "save_steps": 2,
        }
        return main.Args(**{**values, **changes})

    return make


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def reported(args) -> dict[str, float]:
    return json.loads((args.report / "report.json").read_text(encoding="utf-8"))["metrics"]


def test_token_ids_are_those_of_trl(main, tokenizer, tmp_path):
    """Ours against what DPOTrainer makes of the same rows."""
    import preference_data
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    system = {"role": "system", "content": "Be brief."}
    rows = [pair(1), pair(2), pair(3, prompt=[system, *pair(4)["prompt"], *pair(4)["chosen"], *pair(5)["prompt"]])]
    ours = preference_data.tokenize_pairs(write(tmp_path / "rows", rows), tokenizer, 1024, 10**6).rows
    config = DPOConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True)
    theirs = DPOTrainer._prepare_dataset(
        SimpleNamespace(_tokenizer=tokenizer), Dataset.from_list(rows), tokenizer, config, "train"
    )
    assert ours == [{name: row[name] for name in ours[0]} for row in theirs]
    assert tokenizer.decode(ours[0]["chosen_ids"]).startswith("No idea. No idea.")
    assert tokenizer.decode(ours[0]["prompt_ids"]).endswith("<|im_start|>assistant\n")


def test_rows_of_kto(main):
    import preference_data

    pairs = [{"prompt_ids": [n], "chosen_ids": [n, 1], "rejected_ids": [n, 0]} for n in range(10, 15)]
    rows = preference_data.unpaired(pairs, batch_size=4, seed=7)
    assert sorted((*row["prompt_ids"], row["label"], row["completion_ids"][1]) for row in rows) == [
        (n, good, good) for n in range(10, 15) for good in (False, True)
    ]
    assert [row["prompt_ids"] for row in rows] != sorted(row["prompt_ids"] for row in rows)
    said = [row["completion_ids"] for row in rows]
    others = [said[i] for i in (3, 0, 1, 2, 7, 4, 5, 6, 9, 8)]  # the one before it in a batch of four
    assert [row["KL_completion_ids"] for row in rows] == others


def by_hand(folder: Path, pairs: list[dict], tokenizer) -> list[list[tuple[float, int]]]:
    """Log-probability and length of both answers of each pair, one text at a time, from the logits of the model."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(pair: dict, name: str) -> tuple[float, int]:
        start = len(tokenizer.apply_chat_template(pair["prompt"], add_generation_prompt=True)["input_ids"])
        ids = torch.tensor([tokenizer.apply_chat_template(pair["prompt"] + pair[name])["input_ids"]])
        with torch.no_grad():
            log_probs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[start - 1 :]
        return log_probs.sum().item(), len(log_probs)

    return [[answer(pair, name) for name in ("chosen", "rejected")] for pair in pairs]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["dpo", "kto", "orpo", "simpo"])
def test_held_out_pairs_are_preferred_the_right_way(main, make_args, tokenizer, algorithm, monkeypatch, capsys):
    logged = []
    monkeypatch.setattr(main.tracking, "log_metrics", lambda values, step=None: logged.append((step, values)))
    args = make_args(algorithm=algorithm)
    metrics = main.run(args)
    assert metrics["eval/preference_accuracy_before"] < 0.5
    assert metrics["eval/preference_accuracy"] == 1
    assert metrics["eval/preference_margin_before"] < 0 < metrics["eval/preference_margin"]
    assert "prefers the better answer in 100% of 7 held-out pairs, 0% before" in capsys.readouterr().out

    # What it says of itself is what the weights before and after say.
    pairs = list(records.read_records(args.validation_preferences))
    before, after = (by_hand(folder, pairs, tokenizer) for folder in (args.base_model, args.model))
    for said, found in (("_before", before), ("", after)):
        margins = [chosen / length - rejected / other for (chosen, length), (rejected, other) in found]
        assert metrics[f"eval/preference_margin{said}"] == pytest.approx(sum(margins) / 7, rel=1e-3)
    gains = [[now[0] - then[0] for now, then in zip(*both, strict=True)] for both in zip(after, before, strict=True)]
    if algorithm in ("dpo", "kto"):
        expected = 0.1 * sum(chosen - rejected for chosen, rejected in gains) / 7
        assert metrics["eval/reward_margin"] == pytest.approx(expected, rel=1e-3)
        assert metrics["eval/reward_accuracy"] == 1
    else:
        assert "eval/reward_margin" not in metrics

    measured = {step: values["eval/preference_margin"] for step, values in logged if "eval/preference_margin" in values}
    assert list(measured)[:2] == [0, 4]
    assert measured[0] == metrics["eval/preference_margin_before"]
    known = {"eval/loss", *EXACT, "train/loss", "train/learning_rate", "train/grad_norm", "perf/tokens_per_second"}
    assert {name for _, values in logged[:-1] for name in values if not name.startswith("perf/")} <= known
    assert not list(args.model.glob("adapter*"))
    assert json.loads((args.model / "lineage.json").read_text())["parameters"]["algorithm"] == algorithm
    assert "eval/preference_accuracy_before" in (args.report / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_lora_trains_the_adapters_alone_and_merges_them(main, make_args):
    args = make_args(method="lora", learning_rate=0.01)
    metrics = main.run(args)
    assert metrics["eval/preference_margin"] > metrics["eval/preference_margin_before"] + 1
    before, after = weights(args.base_model), weights(args.model)
    assert after.keys() == before.keys()
    changed = {name for name in after if not after[name].equal(before[name])}
    assert "model.layers.1.mlp.up_proj.weight" in changed
    assert "model.norm.weight" not in changed


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_reference_says_the_same_before_training_and_within(main, make_args, method):
    runs = [
        make_args(str(early), method=method, precompute_ref_log_probs=early, num_train_epochs=0.3)
        for early in (True, False)
    ]
    early, late = (main.run(args) for args in runs)
    assert early["train/loss"] == pytest.approx(late["train/loss"], rel=1e-4)
    assert early["eval/reward_margin"] == pytest.approx(late["eval/reward_margin"], rel=1e-3)


@pytest.mark.slow
def test_every_loss_type_is_one_of_trl(main, make_args, tokenizer, tmp_path):
    """Each name that the component takes gives a loss on a batch, and no algorithm lacks its default."""
    import preference_trainers

    spec = yaml.safe_load(main.SPEC.read_text(encoding="utf-8"))
    assert set(spec["inputs"]["loss_type"]["enum"]) == {name for names in main.LOSS_TYPES.values() for name in names}
    assert set(spec["inputs"]["algorithm"]["enum"]) == set(main.LOSS_TYPES)
    train = main.read_pairs(make_args(), tokenizer)[0].rows[:2]
    for algorithm, names in main.LOSS_TYPES.items():
        for name in names or (None,):
            smoothing = 0.1 if name in main.SMOOTHED else 0
            args = make_args(algorithm=algorithm, loss_type=name, label_smoothing=smoothing)
            main.check(args)
            trainer = preference_trainers.make_trainer(args, tokenizer, train, [])
            loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
            assert loss.isfinite(), name
            if name == "sigmoid":  # the model is its own reference: -log(sigmoid(0))
                assert loss.item() == pytest.approx(0.693147, abs=1e-5)


def start(args, **env: str) -> subprocess.Popen:
    flags = [item for name, value in vars(args).items() if value is not None for item in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, str(COMPONENTS / "align_model/main.py"), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(COMPONENTS / "_shared"), "OMP_NUM_THREADS": "1", **env},
    )


@pytest.mark.slow
def test_killed_run_ends_as_an_undisturbed_one(main, make_args, capsys):
    changes = {"num_train_epochs": 4}  # long enough that the kill falls within
    undisturbed, killed = make_args("undisturbed", **changes), make_args("killed", **changes)
    main.run(undisturbed)

    process = start(killed)
    deadline = time.monotonic() + 300
    while not list(killed.checkpoints.glob("checkpoint-*/complete.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.model.exists()

    main.run(killed)
    assert re.search(r"goes on from checkpoint-\d", capsys.readouterr().out)
    ours, theirs = weights(killed.model), weights(undisturbed.model)
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    # What was measured before training is known to the resumed run, which has never seen the model of then.
    for name in ("eval/preference_margin_before", *EXACT):
        assert reported(killed)[name] == reported(undisturbed)[name]


@pytest.mark.slow
def test_two_processes_train_the_same_model(main, make_args):
    """Two processes with half the batch each see the same batches, and say the same figures."""
    alone, both = make_args("alone"), make_args("both", per_device_train_batch_size=2, deepspeed="zero3")
    main.run(alone)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [start(both, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in (0, 1)]
    outs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs[0] + outs[1]
    assert not (both.checkpoints / "pairs").exists()
    ours, theirs = weights(both.model), weights(alone.model)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].allclose(theirs[name], atol=1e-3) for name in theirs)
    for name in ("eval/preference_margin_before", *EXACT):
        assert reported(both)[name] == pytest.approx(reported(alone)[name], rel=1e-3)


def test_pairs_that_cannot_be_used_are_counted(main, make_args, tokenizer, tmp_path, capsys):
    long = [pair(number, rejected=[{"role": "assistant", "content": "very " * 300}]) for number in range(3)]
    same = [pair(7, rejected=pair(7)["chosen"])]
    train = write(tmp_path / "mixed", [*(pair(number) for number in range(16)), *long, *same])
    both = main.read_pairs(make_args(train_preferences=train, max_length=128, max_error_fraction=0.2), tokenizer)
    assert len(both[0].rows) == 16
    assert (
        "train_preferences: 4 of 20 pairs left out: longer than max_length 3, chosen and rejected are the same 1"
        in capsys.readouterr().out
    )
    with pytest.raises(UserError, match=r"4 of 20 pairs of train_preferences .longer than max_length 3"):
        main.run(make_args(train_preferences=train, max_length=128))


ASSISTANT = {"role": "assistant", "content": "12"}
BAD_PAIRS = [
    ([], "no pair to train on"),
    ([pair(1), pair(2, prompt=[])], "bad:2: 'prompt': a chat needs a non-empty list"),
    ([pair(1, prompt="What?")], "bad:1: 'prompt': a chat needs a non-empty list"),
    ([pair(1, prompt=[*pair(1)["prompt"], ASSISTANT])], "bad:1: 'prompt' ends with the assistant's turn"),
    ([{"prompt": pair(1)["prompt"], "rejected": [ASSISTANT]}], "bad:1: 'chosen': a chat needs a non-empty list"),
    (
        [pair(1, rejected=[{"role": "assistant", "content": " "}])],
        "bad:1: 'rejected': message 1 .* has no text",
    ),
    ([pair(1, chosen=[ASSISTANT, ASSISTANT])], "bad:1: 'chosen' must be one message of the assistant"),
    ([pair(1, chosen=pair(1)["rejected"])], "1 of 1 pairs of train_preferences .chosen and rejected are the same 1"),
]


@pytest.mark.parametrize(("rows", "expected"), BAD_PAIRS, ids=[expected[:30] for _, expected in BAD_PAIRS])
def test_bad_pairs_are_one_clear_line(main, make_args, tmp_path, rows, expected):
    args = make_args(train_preferences=write(tmp_path / "bad", rows))
    with pytest.raises(UserError, match=expected):
        main.run(args)
    assert not args.model.exists()


BAD_SETTINGS = [
    ({"algorithm": "orpo", "loss_type": "sigmoid"}, "sigmoid is no loss of algorithm=orpo; it has: none, leave it out"),
    ({"algorithm": "kto", "loss_type": "ipo"}, "it has: kto, apo_zero_unpaired"),
    ({"loss_type": "exo_pair"}, "exo_pair needs label_smoothing"),
    ({"label_smoothing": 0.1}, "label_smoothing is only used by loss_type=robust"),
    ({"algorithm": "kto", "per_device_train_batch_size": 1}, "set per_device_train_batch_size to 2 or more"),
]


@pytest.mark.parametrize(("changes", "expected"), BAD_SETTINGS, ids=[expected[:30] for _, expected in BAD_SETTINGS])
def test_settings_that_do_not_go_together(main, make_args, changes, expected):
    with pytest.raises(UserError, match=expected):
        main.run(make_args(**changes))


def test_a_loss_that_is_no_number_stops_before_the_weights(main, make_args, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(make_args().base_model, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    args = make_args(base_model=broken)
    with pytest.raises(UserError, match="the loss is nan at step 1, so the training stops; no checkpoint"):
        main.run(args)
    assert not args.model.exists()


def test_no_held_out_pairs(main, make_args, tmp_path):
    args = make_args(validation_preferences=write(tmp_path / "empty", []), num_train_epochs=0.3)
    metrics = main.run(args)
    assert metrics["train/num_steps"] == 2
    assert not [name for name in metrics if name.startswith("eval/")]
    assert (args.model / "model.safetensors").is_file()


def test_negative_beta_exits_2(run_component, make_args):
    args = vars(make_args(beta=-1))
    done = run_component("align_model", **{name: value for name, value in args.items() if value is not None})
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == ["align_model: error: argument --beta: -1 is below the minimum 0.0001"]
