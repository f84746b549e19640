"""What `precompute_ref_log_probs` of align_model costs and saves: time and memory, full and LoRA, by epochs.

    python tests/benchmarks/align.py [--pairs 24] [--rounds 2]

Each run is a process of its own on one thread: a Llama shape of 6.5M weights, pairs of about 2 x 100 tokens.
"""

import argparse
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMPONENTS = Path(__file__).parents[2] / "components"
sys.path[:0] = [str(COMPONENTS / "_shared"), str(COMPONENTS / "import_model")]


def make_model(folder: Path) -> None:
    import tiny_model
    from transformers import LlamaConfig, LlamaForCausalLM

    _, tokenizer = tiny_model.make(seed=1, num_steps=1)
    shape = LlamaConfig(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=4,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_pairs(path: Path, number: int) -> None:
    draw = random.Random(1)

    def said(role: str, low: int, high: int) -> list[dict]:
        words = [str(draw.randrange(1000)) for _ in range(draw.randrange(low, high))]
        return [{"role": role, "content": " ".join(words)}]

    rows = [
        {"prompt": said("user", 10, 30), "chosen": said("assistant", 5, 30), "rejected": said("assistant", 5, 30)}
        for _ in range(number)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def measure(work: Path, **flags: object) -> tuple[float, float]:
    """Wall seconds of a run and its peak resident memory in MB, by a process that has no other child."""
    out = work / "out"
    ports = {"base_model": work / "model", "train_preferences": work / "pairs", "validation_preferences": work / "none"}
    ports |= {name: out / name for name in ("model", "checkpoints", "report")}
    words = [word for name, value in {**ports, **flags}.items() for word in (f"--{name}", str(value))]
    subprocess.run(["rm", "-rf", str(out)], check=True)
    started = time.perf_counter()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, str(COMPONENTS / "align_model/main.py"), *words],
        {**os.environ, "PYTHONPATH": str(COMPONENTS / "_shared"), "OMP_NUM_THREADS": "1"},
        file_actions=[(os.POSIX_SPAWN_OPEN, fd, str(work / "log"), os.O_WRONLY | os.O_CREAT, 0o600) for fd in (1, 2)],
    )
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, (work / "log").read_text()
    assert isinstance(usage, resource.struct_rusage)
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    kinds = list(itertools.product(("full", "lora"), (1, 3), ("false", "true")))
    found: dict[tuple, list] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make_model(work / "model")
        write_pairs(work / "pairs", options.pairs)
        (work / "none").touch()
        for _, (method, epochs, early) in itertools.product(range(options.rounds), kinds):
            flags = {"method": method, "num_train_epochs": epochs, "precompute_ref_log_probs": early}
            found[method, epochs, early].append(measure(work, **flags, save_steps=10**6))
    print("| method | epochs | precomputed | seconds | peak MB |\n|---|---|---|---|---|")
    for (method, epochs, early), runs in found.items():
        seconds, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {method} | {epochs} | {early} | {seconds:.1f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
