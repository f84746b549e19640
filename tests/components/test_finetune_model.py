"""finetune_model: every method gives a model, a killed run ends as an undisturbed one, bad input is one line."""

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


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("finetune_model")


@pytest.fixture(scope="module")
def base_model(small_model) -> Path:
    return small_model


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
            "report": tmp_path / name / "report",
            "method": "full",
            "learning_rate": 1e-3,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "packing": False,
            "eval_steps": 2,
            "save_steps": 2,
        }
        return main.Args(**{**values, **changes})

    return make


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


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
    page = (args.report / "report.html").read_text(encoding="utf-8")
    assert "train/num_steps" in page
    assert (args.report / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    assert AutoTokenizer.from_pretrained(args.model).chat_template
    assert json.loads((args.model / "lineage.json").read_text())["parameters"]["method"] == method
    assert metrics["train/num_steps"] == 6
    measured = {step: values["eval/loss"] for step, values in logged if "eval/loss" in values}
    assert list(measured) == [2, 4, 6]
    assert measured[6] < measured[2]


def start(args, **options) -> subprocess.Popen:
    folder = Path(__file__).parents[2] / "components"
    flags = [item for name, value in vars(args).items() if value is not None for item in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, str(folder / "finetune_model/main.py"), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder / "_shared")},
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_run_ends_with_the_weights_of_an_undisturbed_one(main, make_args, capsys, method):
    changes = {"method": method, "num_train_epochs": 8}  # long enough that the kill falls within
    undisturbed, killed = make_args("undisturbed", **changes), make_args("killed", **changes)
    main.run(undisturbed)
    process = start(killed)
    deadline = time.monotonic() + 300
    # Not one checkpoint in particular: only the last two are kept, and this process may be late to look.
    while not list(killed.checkpoints.glob("checkpoint-*/complete.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.model.exists()

    main.run(killed)
    assert "goes on from checkpoint-" in capsys.readouterr().out
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
    measured = [values["eval/loss"] for _, values in logged if "eval/loss" in values and "train/loss" not in values]
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
    with pytest.raises(UserError, match="but eval_loss is measured on some"):
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


def logits(folder: Path):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return model(torch.arange(5, 25)[None]).logits


def test_an_adapter_alone_is_trained_further_and_merged(main, make_args, base_model):
    """merge_adapter=false gives the adapter; going on from it and merging changes the weights from there."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    first = make_args("first", method="lora", merge_adapter=False, use_rslora=True, num_train_epochs=1)
    main.run(first)
    assert not (first.model / "model.safetensors").exists()
    assert (first.model / "tokenizer.json").is_file()
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_model), first.model)
    with torch.no_grad():
        expected = tuned(torch.arange(5, 25)[None]).logits
    # A learning rate of next to nothing: what is merged is the first adapter.
    second = make_args("second", method="lora", adapter=first.model, learning_rate=1e-8, num_train_epochs=1)
    metrics = main.run(second)
    assert logits(second.model).allclose(expected, atol=1e-3)
    assert not logits(base_model).allclose(expected, atol=1e-1)
    assert metrics["eval/loss"] < 4


def test_an_adapter_of_another_base_is_refused(main, make_args, base_model, tmp_path):
    adapter = make_args("first", method="lora", merge_adapter=False, num_train_epochs=0.4)
    main.run(adapter)
    other = shutil.copytree(base_model, tmp_path / "other")
    config = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps({**config, "temperature": 0.5}))
    with pytest.raises(UserError, match="trained on another base than"):
        main.run(make_args("second", method="lora", adapter=adapter.model, base_model=other))
    with pytest.raises(UserError, match=r"no adapter_config\.json"):
        main.run(make_args("third", method="lora", adapter=other))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(main, make_args, monkeypatch):
    import packed_sft_trainer

    args = make_args()
    compute = packed_sft_trainer.PackedSFTTrainer.compute_loss

    def poisoned(trainer, *given, **named):
        return compute(trainer, *given, **named) * (float("nan") if trainer.state.global_step == 4 else 1)

    monkeypatch.setattr(packed_sft_trainer.PackedSFTTrainer, "compute_loss", poisoned)
    with pytest.raises(UserError, match="the loss is nan at step 5, so the training stops; checkpoint-4 is kept"):
        main.run(args)
    assert not args.model.exists()
    monkeypatch.undo()
    assert main.run(args)["train/num_steps"] == 6
    main.run(undisturbed := make_args("undisturbed"))
    assert weights(args.model) == weights(undisturbed.model)


def test_a_gradient_that_is_no_number_never_reaches_the_weights(main, make_args, monkeypatch):
    import packed_sft_trainer

    step = packed_sft_trainer.PackedSFTTrainer.training_step

    def poisoned(trainer, model, *given, **named):
        loss = step(trainer, model, *given, **named)
        if trainer.state.global_step == 2:
            next(model.parameters()).grad.fill_(float("inf"))
        return loss

    monkeypatch.setattr(packed_sft_trainer.PackedSFTTrainer, "training_step", poisoned)
    with pytest.raises(UserError, match=r"the norm of the gradient is (nan|inf) at step 3.*checkpoint-2 is kept"):
        main.run(make_args())


def test_out_of_memory_says_what_helps(main, make_args, monkeypatch):
    import packed_sft_trainer
    import torch

    monkeypatch.setattr(packed_sft_trainer.PackedSFTTrainer, "compute_loss", lambda *given, **named: torch.empty(2**60))
    expected = r"per_device_train_batch_size=4 with gradient_accumulation_steps=2 \(about .* GB instead of .* GB\)"
    with pytest.raises(UserError, match=expected):
        main.run(make_args())


def test_memory_found_by_smaller_batches(main, make_args, tmp_path, monkeypatch, capsys):
    """Eight rows are too many, seven are not: auto_find_batch_size tries nine tenths."""
    import packed_sft_trainer
    import torch

    compute = packed_sft_trainer.PackedSFTTrainer.compute_loss

    def limited(trainer, model, inputs, *given, **named):
        if len(inputs["cu_seq_lens_q"]) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute(trainer, model, inputs, *given, **named)

    monkeypatch.setattr(packed_sft_trainer.PackedSFTTrainer, "compute_loss", limited)
    none = write(tmp_path / "none", [])
    metrics = main.run(make_args(auto_find_batch_size=True, validation_data=none))
    assert metrics["train/num_steps"] == 8  # 24 chats in sevens, twice
    assert "per_device_train_batch_size=7" in capsys.readouterr().out


def full_disk() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.slow
def test_no_space_for_a_checkpoint_is_one_line(make_args):
    args = make_args()
    process = start(args, preexec_fn=full_disk)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert "no space left for a checkpoint; free some or raise save_steps; no checkpoint was written yet" in out
    assert "Traceback" not in out
    assert not args.model.exists()


def test_cut_chats_are_counted(main, make_args, tmp_path, capsys):
    """A long answer is cut at max_length and trains; a long question leaves no answer to train on."""
    cut, hopeless = chat(0, answer="very " * 300), chat(0)
    hopeless["messages"][0]["content"] *= 30
    train = write(tmp_path / "long", [chat(number) for number in range(1, 21)] + [cut, {**hopeless, "id": "h"}])
    changes = {"train_data": train, "max_length": 128, "truncation_mode": "keep_start", "num_train_epochs": 1}
    metrics = main.run(make_args(**changes))
    assert (metrics["train/num_chats"], metrics["train/num_truncated"], metrics["train/num_left_out"]) == (21, 1, 1)
    assert "train_data: 1 of 22 chats cut at max_length=128" in capsys.readouterr().out


def test_early_stopping_on_a_task_metric_keeps_its_best(main, make_args, monkeypatch):
    logged = []
    monkeypatch.setattr(main.tracking, "log_metrics", lambda values, step=None: logged.append((step, values)))
    changes = {"early_stopping_patience": 2, "metric_for_best_model": "eval_exact_match", "num_train_epochs": 20}
    metrics = main.run(make_args(**changes))
    measured = [v["eval/exact_match"] for _, v in logged if "eval/exact_match" in v and "train/loss" not in v]
    assert metrics["train/num_steps"] < 60
    assert metrics["eval/exact_match"] == max(measured) > measured[0]


def test_what_a_run_logs(main, make_args, monkeypatch):
    metrics, params = [], []
    monkeypatch.setattr(main.tracking, "log_metrics", lambda values, step=None: metrics.append((step, values)))
    monkeypatch.setattr(main.tracking, "log_params", params.append)
    main.run(make_args(num_train_epochs=4, packing=True, max_length=128, per_device_train_batch_size=1))
    assert len(params) == 1
    assert params[0]["learning_rate"] == 1e-3
    logged = {name for _, values in metrics for name in values}
    assert logged >= {
        *("train/loss", "train/grad_norm", "train/learning_rate", "eval/loss", "eval/exact_match"),
        *("perf/tokens_per_second", "perf/model_flops_utilization", "perf/max_memory_bytes"),
    }
    shares = [
        values["perf/model_flops_utilization"] for _, values in metrics if "perf/model_flops_utilization" in values
    ]
    assert all(0 < share < 1 for share in shares)
    assert all(isinstance(value, float | int) for _, values in metrics for value in values.values())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "qlora"}, "method=qlora needs a GPU, and there is none; use method=lora"),
        ({"use_liger_kernel": True}, "use_liger_kernel=true needs a GPU"),
        ({"method": "full", "use_dora": True}, "method=full trains no adapter"),
        ({"method": "lora", "target_modules": "q_proj,w_pack"}, "'w_pack' is no layer of Qwen3ForCausalLM"),
        ({"deepspeed": "zero2", "fsdp": True}, "exclude each other"),
        ({"fsdp": True}, "fsdp=true shares weights among processes, and there is one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_refused_before_training(main, make_args, changes, expected):
    args = make_args(**changes)
    with pytest.raises(UserError, match=expected):
        main.run(args)
    assert not args.model.exists()


def test_a_tokenizer_of_another_model_is_refused(main, make_args, base_model, tmp_path):
    other = shutil.copytree(base_model, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    with pytest.raises(UserError, match="100"):
        main.run(make_args(base_model=other))


@pytest.mark.parametrize("neftune_noise_alpha", [None, 5])
@pytest.mark.parametrize("lr_scheduler_type", ["linear", "cosine_with_restarts", "inverse_sqrt"])
def test_schedules_and_noise(main, make_args, neftune_noise_alpha, lr_scheduler_type):
    args = make_args(neftune_noise_alpha=neftune_noise_alpha, lr_scheduler_type=lr_scheduler_type, num_train_epochs=1)
    assert main.run(args)["eval/loss"] < 4
