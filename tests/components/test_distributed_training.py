"""finetune_model on two processes: every way to share the work gives the model that one process gives."""

import json
import multiprocessing
import shutil
import socket
from pathlib import Path

import pytest

from slmkit import records
from tests.components import one_rank

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "components" / "finetune_model" / "main.py"
SHIM = Path(__file__).with_name("fsdp_on_cpu.py")


def chats(numbers):
    for number in numbers:
        question = f"Phone: 0{number}-{number * 37}\n\n" + "What is the phone? " * (number % 4 + 1)
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": f"0{number}"}]
        yield {"id": f"c{number}", "messages": messages}


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("finetune_model")


@pytest.fixture(scope="module")
def make_args(main, small_model, tmp_path_factory):
    """Eight steps of two rows each, a checkpoint every third."""
    folder = tmp_path_factory.mktemp("distributed")
    for name, numbers in (("train", range(32)), ("validation", range(40, 47))):
        with records.write_records(folder / name) as write:
            for chat in chats(numbers):
                write(chat)

    def make(name, **changes):
        outputs = {port: folder / name / port for port in ("model", "checkpoints", "report")}
        values = {
            "base_model": small_model,
            "train_data": folder / "train",
            "validation_data": folder / "validation",
            "method": "full",
            "learning_rate": 1e-3,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 1,
            "max_length": 128,
            "lora_dropout": 0,
            "eval_steps": 3,
            "save_steps": 3,
        }
        return main.Args(**outputs, **{**values, **changes})

    return make


@pytest.fixture(scope="module")
def run(main):
    """Run as many processes as Azure ML starts for `distribution: pytorch`; returns what the first one printed.

    They are forked from one that has loaded what takes seconds to load; those of align_model start from nothing.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["sft_setup", "model_training.adapters"])

    def train(args, num_processes, launcher=None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        flags = [item for name, value in vars(args).items() if value is not None for item in (f"--{name}", str(value))]
        processes, logs = [], []
        for rank in range(num_processes):
            env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
            logs.append(args.report.with_name(f"log{rank}"))
            command = [str(MAIN), *flags] if launcher is None else [str(launcher), str(MAIN), *flags]
            arguments = ({name: str(value) for name, value in env.items()}, command, logs[-1])
            processes.append(server.Process(target=one_rank.run, args=arguments))
            processes[-1].start()
        try:
            for process in processes:
                process.join(timeout=300)
        finally:
            for process in processes:
                process.kill()
        printed = [log.read_text() for log in logs]
        assert [process.exitcode for process in processes] == [0] * num_processes, "\n".join(printed)
        return printed[0]

    return train


def weights(args, name="model.safetensors"):
    from safetensors.torch import load_file

    return load_file(args.model / name)


def largest_difference(found, expected):
    assert found.keys() >= expected.keys()  # DeepSpeed also writes the output layer that is tied to the embeddings
    return max((found[name] - expected[name]).abs().max().item() for name in expected)


@pytest.fixture(scope="module")
def alone(main, make_args):
    """One process that takes two rows a step, one after the other."""
    args = make_args("alone", gradient_accumulation_steps=2)
    main.run(args)
    return args


WAYS = {
    "ddp": ({}, None),
    "zero2": ({"deepspeed": "zero2"}, None),
    "zero3": ({"deepspeed": "zero3"}, None),
    "fsdp": ({"fsdp": True}, SHIM),
}


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_what_one_trains_and_either_goes_on_from_the_other(run, make_args, alone, way):
    changes, launcher = WAYS[way]
    args = make_args(way, **changes)
    printed = run(args, 2, launcher)
    expected, found = weights(alone), weights(args)
    steps = json.loads((args.report / "report.json").read_text())["metrics"]["train/num_steps"]
    assert steps > 4
    assert f"train/num_steps {steps}" in printed
    assert largest_difference(found, expected) < 1e-4
    # Each label of the validation data counts once, whatever filled up the last batch.
    losses = [json.loads((run.report / "report.json").read_text())["metrics"]["eval/loss"] for run in (args, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

    if way == "fsdp":
        return
    last = max(args.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    shutil.rmtree(last)
    shutil.rmtree(args.model)
    assert "goes on from checkpoint-" in run(args, 1)
    assert largest_difference(weights(args), found) < 1e-5


def test_lora_under_zero3_gives_a_whole_adapter_and_a_whole_model(run, main, make_args):
    lora = {"method": "lora", "target_modules": "q_proj,v_proj"}
    one = make_args("lora_one", gradient_accumulation_steps=2, **lora)
    two = make_args("lora_two", deepspeed="zero3", merge_adapter=False, **lora)
    main.run(one)
    run(two, 2)
    adapter = weights(two, "adapter_model.safetensors")
    assert len(adapter) == 3 * 2 * 2  # layers, modules, A and B
    assert all(tensor.numel() for tensor in adapter.values())
    assert json.loads((two.model / "adapter_config.json").read_text())["base_model_name_or_path"] is None

    shutil.rmtree(two.model)
    merged = make_args("lora_two", deepspeed="zero3", **lora)
    assert "goes on from checkpoint-" in run(merged, 2)
    assert largest_difference(weights(merged), weights(one)) < 1e-4
