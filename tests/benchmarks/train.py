"""Training against TRL and a bare loop: tokens a second and CPU-second, memory of the loss, growth, start-up.

    python tests/benchmarks/train.py speed            # the same chats, full and LoRA, interleaved rounds
    ONEDNN_MAX_CPU_ISA=AVX512_CORE python tests/benchmarks/train.py speed   # as on a CPU without AMX
    python tests/benchmarks/train.py loss_memory      # peak memory of the loss at a vocabulary of 200,000
    python tests/benchmarks/train.py growth           # cost against model size, length, vocabulary, chats
    python tests/benchmarks/train.py startup          # process start to first step, and what it consists of
    python tests/benchmarks/train.py precision        # float32 against bfloat16 on this CPU

Each measurement is a process of its own with one thread, which prints a line of JSON.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = ROOT / "components"
IGNORED = -100
# TRL at its defaults (bfloat16, gradient checkpointing, padded batches), with packing too, and packing
# with both off; ours in either precision; and a loop without any trainer.
SPEED = {
    "TRL's defaults": {"trainer": "trl_default"},
    "TRL, packing=True": {"trainer": "trl_packing_default"},
    "TRL, packing=True, float32, no checkpointing": {"trainer": "trl_packing"},
    "ours, float32": {"trainer": "ours"},
    "ours, bfloat16": {"trainer": "ours", "bf16": True},
    "bare loop, float32": {"trainer": "bare_loop"},
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One measurement. The shape of the trial: 6.45 M parameters, 80 chats of 111 tokens with a long tail."""

    trainer: str = "ours"
    method: str = "full"
    hidden_size: int = 256
    num_hidden_layers: int = 6
    vocab_size: int = 8192
    max_length: int = 512
    num_chats: int = 80
    mean_length: int = 111
    rows: int = 2
    bf16: bool = False
    seed: int = 0


def chats(setting: Setting) -> list[dict[str, list[int]]]:
    """Token ids and labels of chats with lengths of a long tail (log-normal), the second half of each an answer."""
    draw = random.Random(setting.seed)
    rows = []
    for _ in range(setting.num_chats):
        length = min(setting.max_length, max(12, round(setting.mean_length * 0.75 * draw.lognormvariate(0, 0.75))))
        ids = [draw.randrange(3, setting.vocab_size) for _ in range(length)]
        rows.append({"input_ids": ids, "labels": [IGNORED] * (length // 2) + ids[length // 2 :]})
    return rows


def make_model(setting: Setting, **options: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(setting.seed)
    config = LlamaConfig(
        vocab_size=setting.vocab_size,
        hidden_size=setting.hidden_size,
        intermediate_size=round(setting.hidden_size * 8 / 3 / 32) * 32,
        num_hidden_layers=setting.num_hidden_layers,
        num_attention_heads=max(1, setting.hidden_size // 64),
        tie_word_embeddings=True,
        max_position_embeddings=max(2048, setting.max_length),
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **options,
    )
    return LlamaForCausalLM(config)


def tokenizer_of(setting: Setting) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(setting.vocab_size)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w1")), pad_token="w0", eos_token="w2"
    )


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")


class Clock:
    """Wall and CPU time of every optimizer step but the first, as a Trainer callback would see them."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def spans(self) -> tuple[float, float]:
        (wall, cpu), (last_wall, last_cpu) = self.marks[1], self.marks[-1]
        return last_wall - wall, last_cpu - cpu


def trainer_callback(clock: Clock, tokens: list[int]) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.mark()
            tokens.append(0)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.mark()

    return Watch()


def measure(setting: Setting) -> dict[str, float]:
    """Train one epoch and return non-padding tokens a second and CPU-second, the first step left out."""
    sys.path[:0] = [str(COMPONENTS / "_shared"), str(COMPONENTS / "finetune_model")]
    data, clock, tokens = chats(setting), Clock(), []
    if setting.trainer == "bare_loop":
        losses = bare_loop(setting, data, clock, tokens)
    else:
        losses = with_trainer(setting, data, clock, tokens)
    wall, cpu = clock.spans()
    counted = sum(tokens[1:])
    return {"tokens_per_second": counted / wall, "tokens_per_cpu_second": counted / cpu, "loss": losses}


def with_trainer(setting: Setting, data: list[dict[str, list[int]]], clock: Clock, tokens: list[int]) -> float:
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer, pack_dataset

    ours = setting.trainer == "ours"
    packed = setting.trainer != "trl_default"
    options: dict[str, Any] = {"max_length": setting.max_length, "per_device_train_batch_size": setting.rows}
    if setting.trainer == "trl_default":
        options["per_device_train_batch_size"] = 8
    if setting.trainer.startswith("trl_packing"):
        options["packing"] = True
    if setting.trainer in ("ours", "trl_packing"):
        options |= {"bf16": setting.bf16, "gradient_checkpointing": False}
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            num_train_epochs=1,
            learning_rate=1e-3,
            save_strategy="no",
            report_to="none",
            logging_steps=1,
            disable_tqdm=True,
            use_cpu=True,
            seed=setting.seed,
            **({**options, "max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}} if ours else options),
        )
        dataset = Dataset.from_list(data)
        common = {
            "args": config,
            "processing_class": tokenizer_of(setting),
            "peft_config": lora() if setting.method == "lora" else None,
        }
        if ours:
            from document_attention import NAME
            from packed_sft_trainer import PackedSFTTrainer

            from model_training.training_log import TrainingLog

            dtype = torch.bfloat16 if setting.bf16 and setting.method == "lora" else torch.float32
            trainer = PackedSFTTrainer(
                model=make_model(setting, attn_implementation=NAME).to(dtype),
                train_dataset=pack_dataset(dataset, setting.max_length, strategy="bfd"),
                training_log=TrainingLog(peak_flops=1e11),
                **common,
            )
        else:
            trainer = SFTTrainer(model=make_model(setting), train_dataset=dataset, **common)
        count_tokens(trainer, tokens, padded=not packed)
        trainer.add_callback(trainer_callback(clock, tokens))
        return trainer.train().training_loss


def count_tokens(trainer: Any, tokens: list[int], *, padded: bool) -> None:
    """Add the tokens of each batch that are no padding to the step under way."""
    step = trainer.training_step

    def counted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        tokens[-1] += int(inputs["attention_mask"].sum()) if padded else inputs["input_ids"].numel()
        return step(model, inputs, *args, **kwargs)

    trainer.training_step = counted


def bare_loop(setting: Setting, data: list[dict[str, list[int]]], clock: Clock, tokens: list[int]) -> float:
    """What is left without any trainer: the same packed rows, attention and loss by hand, AdamW, clipping."""
    import torch
    from datasets import Dataset
    from document_attention import NAME
    from label_loss import LinearCrossEntropy
    from trl import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model = make_model(setting, attn_implementation=NAME).train()
    if setting.method == "lora":
        from peft import get_peft_model

        get_peft_model(model, lora())
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    rows = list(pack_dataset(Dataset.from_list(data), setting.max_length, strategy="bfd"))
    random.Random(setting.seed).shuffle(rows)
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    total = 0.0
    batches = [collate(rows[start : start + setting.rows]) for start in range(0, len(rows), setting.rows)]
    for batch in batches:
        clock.mark()
        tokens.append(batch["input_ids"].numel())
        labels = batch.pop("labels")[:, 1:]
        counted = labels != IGNORED
        hidden = model.model(**batch, use_cache=False).last_hidden_state[:, :-1]
        loss = LinearCrossEntropy.apply(hidden[counted], model.lm_head.weight, None, labels[counted]) / counted.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
    clock.mark()
    return total / len(batches)


def in_process(setting: Setting, part: str = "measure") -> dict[str, float]:
    """Run one measurement in a process with one thread."""
    command = [sys.executable, __file__, "one", part, json.dumps(dataclasses.asdict(setting))]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def speed(rounds: int) -> None:
    has_amx = "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8") and "ONEDNN_MAX_CPU_ISA" not in os.environ
    compared = {name: changes for name, changes in SPEED.items() if has_amx or "bf16" not in changes}
    for method in ("full", "lora"):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in compared}
        for _ in range(rounds):
            for name, changes in compared.items():
                found[name].append(in_process(Setting(**changes, method=method)))
        base = statistics.median(row["tokens_per_second"] for row in found["TRL's defaults"])
        print(f"\n{method}: {rounds} rounds, interleaved; median (lowest to highest)")
        for name, rows in found.items():
            wall = sorted(row["tokens_per_second"] for row in rows)
            cpu = statistics.median(row["tokens_per_cpu_second"] for row in rows)
            print(
                f"| {name} | {statistics.median(wall):,.0f} ({wall[0]:,.0f} to {wall[-1]:,.0f}) | {cpu:,.0f} | "
                f"{statistics.median(wall) / base:.1f} | loss {rows[0]['loss']:.3f} |",
                flush=True,
            )


def loss_memory(rounds: int) -> None:
    """Peak resident memory of loss and backward beyond what hidden states, weights and their gradients take."""
    print("| loss at vocabulary 200,000, 4,096 tokens, half of them labels, width 256 | peak MiB | seconds |")
    for head in ("trainable", "frozen"):
        for name in ("plain", "trl_default", "ours"):
            rows = [in_process(Setting(trainer=name, method=head), "loss") for _ in range(rounds)]
            peak = statistics.median(row["mib"] for row in rows)
            print(f"| {head} head, {name} | {peak:,.0f} | {statistics.median(row['seconds'] for row in rows):.2f} |")


def measure_loss(setting: Setting) -> dict[str, float]:
    import threading

    import psutil
    import torch
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE, _ChunkedLogProbFunction

    sys.path[:0] = [str(COMPONENTS / "_shared"), str(COMPONENTS / "finetune_model")]
    from label_loss import LinearCrossEntropy

    torch.manual_seed(0)
    hidden = torch.randn(4096, 256, requires_grad=True)
    weight = torch.randn(200_000, 256).mul_(0.02).requires_grad_(setting.method == "trainable")
    labels = torch.randint(0, 200_000, (4096,))
    labels[:2048] = IGNORED
    counted = labels != IGNORED
    hidden.grad = torch.zeros_like(hidden)
    if weight.requires_grad:
        weight.grad = torch.zeros_like(weight)
    process, peak, done = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss)

    before = process.memory_info().rss
    threading.Thread(target=watch, daemon=True).start()
    started = time.perf_counter()
    if setting.trainer == "ours":
        loss = LinearCrossEntropy.apply(hidden[counted], weight, None, labels[counted])
    elif setting.trainer == "plain":
        loss = torch.nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    else:  # what SFTTrainer's model does without Triton: every position, tile by tile
        outputs = ("log_probs", "entropy", "is_top1")
        scores = _ChunkedLogProbFunction.apply(
            hidden, weight, None, labels.clamp(min=0), 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, outputs
        )[0]
        loss = -scores.masked_fill(~counted, 0).sum()
    loss.backward()
    seconds = time.perf_counter() - started
    done.set()
    return {"mib": (peak[0] - before) / 2**20, "seconds": seconds, "loss": loss.item()}


def growth(rounds: int) -> None:
    tables = {
        "hidden_size": [{"hidden_size": size} for size in (128, 256, 512)],
        "max_length": [
            {"max_length": n, "mean_length": n // 5, "num_chats": 40960 // n} for n in (256, 512, 1024, 2048)
        ],
        "vocab_size": [{"vocab_size": size} for size in (2_000, 8_192, 32_000, 128_000)],
        "num_chats": [{"num_chats": count} for count in (80, 320, 1280)],
    }
    for name, changes in tables.items():
        print(f"\n| {name} | tokens a CPU-second |")
        for change in changes:
            rows = [in_process(Setting(**change)) for _ in range(rounds)]
            print(
                f"| {change[name]:,} | {statistics.median(r['tokens_per_cpu_second'] for r in rows):,.0f} |", flush=True
            )


def precision(rounds: int) -> None:
    for method in ("full", "lora"):
        for bf16 in (False, True):
            rows = [in_process(Setting(method=method, bf16=bf16)) for _ in range(rounds)]
            found = statistics.median(row["tokens_per_second"] for row in rows)
            print(f"| {method} | {'bfloat16' if bf16 else 'float32'} | {found:,.0f} tokens/s |", flush=True)


def startup(rounds: int) -> None:
    """From the start of the process to the end of the first optimizer step, phase by phase."""
    tiny = Setting(hidden_size=128, num_hidden_layers=3, vocab_size=4096)
    rows = [in_process(tiny, "startup") for _ in range(rounds)]
    for phase in rows[0]:
        print(f"| {phase} | {statistics.median(row[phase] for row in rows):.1f} s |")


def measure_startup(setting: Setting) -> dict[str, float]:
    """A model folder and chats are made first, by another process, so that this one starts as the component does."""
    with tempfile.TemporaryDirectory() as folder:
        made = [sys.executable, __file__, "one", "material", json.dumps(dataclasses.asdict(setting)), folder]
        subprocess.run(made, check=True, capture_output=True)
        command = [sys.executable, __file__, "one", "phases", json.dumps(dataclasses.asdict(setting)), folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def make_material(setting: Setting, folder: Path) -> dict[str, float]:
    tokenizer = tokenizer_of(setting)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}w2{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    make_model(setting).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    with (folder / "data").open("w", encoding="utf-8") as file:
        for number in range(setting.num_chats):
            turns = (("user", "w1 " * setting.mean_length), ("assistant", "w1 " * setting.mean_length))
            messages = [{"role": role, "content": text} for role, text in turns]
            file.write(json.dumps({"id": str(number), "messages": messages}) + "\n")
    return {}


def measure_phases(folder: Path) -> dict[str, float]:
    import psutil

    marks = {"": psutil.Process().create_time(), "interpreter": time.time()}
    sys.path[:0] = [str(COMPONENTS / "_shared"), str(COMPONENTS / "finetune_model")]
    import main as component
    import sft_setup

    from model_training import checkpoints, loading
    from model_training.steady_trainer import SteadyTrainer

    marks["torch, transformers, trl"] = time.time()
    paths = {port: folder / port for port in ("model", "checkpoints", "report")}
    data = {"base_model": folder / "base", "train_data": folder / "data", "validation_data": folder / "data"}
    args = component.Args(**data, **paths, method="full", max_length=512)
    tokenizer = loading.load_tokenizer(args.base_model)
    train, validation = component.read_data(args, tokenizer)
    marks["tokenizer and chats"] = time.time()
    checkpoints.prepare(args.checkpoints, component.identity(args))
    trainer = sft_setup.make_trainer(args, tokenizer, train, validation)
    marks["model and trainer"] = time.time()
    step = SteadyTrainer._get_grad_norm

    def first_step(self: Any, *given: Any, **named: Any) -> Any:
        step(self, *given, **named)
        marks["first step"] = time.time()
        raise KeyboardInterrupt

    SteadyTrainer._get_grad_norm = first_step
    with contextlib.suppress(KeyboardInterrupt):
        trainer.train()
    names = list(marks)
    spans = {name: marks[name] - marks[before] for before, name in itertools.pairwise(names)}
    return {**spans, "all": marks["first step"] - marks[""]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "loss_memory", "growth", "startup", "precision", "one"])
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.what == "one":
        part, text, *folder = args.rest
        setting = Setting(**json.loads(text))
        parts = {
            "measure": lambda: measure(setting),
            "loss": lambda: measure_loss(setting),
            "startup": lambda: measure_startup(setting),
            "material": lambda: make_material(setting, Path(*folder)),
            "phases": lambda: measure_phases(Path(*folder)),
        }
        print(json.dumps(parts[part]()))
    else:
        tables = {"speed": speed, "loss_memory": loss_memory, "growth": growth, "startup": startup}
        {**tables, "precision": precision}[args.what](args.rounds)


if __name__ == "__main__":
    main()
