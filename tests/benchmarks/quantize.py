"""Speed and size of int4 against float32: Transformers, ONNX in float32 and in 4 bits, on models with random weights.

    python tests/benchmarks/quantize.py --sizes small,medium,untied --num_threads 1

Random weights cost what trained ones cost. Prompts and new tokens are counted by the code that quantize_model measures
with; the engines take turns in each round, and medians and their ratios to Transformers are printed.
"""

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("_shared", "import_model", "quantize_model", "deploy_endpoint/serving")
sys.path[:0] = [str(ROOT / "components" / folder) for folder in FOLDERS]

SIZES = {  # hidden size, layers, vocabulary, whether input and output embeddings are one matrix
    "small": (256, 4, 8_000, True),
    "medium": (1024, 8, 32_000, True),
    "untied": (1024, 8, 32_000, False),
    "large": (1024, 28, 151_936, True),
}
GOAL_SPEED, GOAL_SIZE = 3.0, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="small,medium,untied", help=f"of {','.join(SIZES)}; large takes 12 GB")
    parser.add_argument("--group_sizes", default="32,128")
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--num_rounds", type=int, default=5)
    parser.add_argument("--num_prompt_tokens", type=int, default=128)
    parser.add_argument("--num_new_tokens", type=int, default=24)
    args = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    print(f"{'model':<8} {'engine':<14} {'MiB':>7} {'of fp32':>8}", end=" ")
    print(f"{'decode/s':>9} {'ratio':>6} {'prefill/s':>10} {'ratio':>6}")
    for size in args.sizes.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            measure(size, Path(scratch), args)


def measure(size: str, scratch: Path, args: argparse.Namespace) -> None:
    import engines
    import onnx_int4
    import quantizer_log
    import source_model
    from quantized_quality import timed

    source = scratch / "float32"
    make_model(size, source)
    builds = {"onnx fp32": partial(onnx_int4.quantize, group_size=32, precision="fp32")}
    for group_size in map(int, args.group_sizes.split(",")):
        builds[f"onnx int4 g{group_size}"] = partial(onnx_int4.quantize, group_size=group_size)
    folders = {"transformers": source} | {name: scratch / name for name in builds}
    for name, build in builds.items():
        with quantizer_log.captured(scratch / "log"):
            build(source, folders[name])
    loaded = {name: engines.load(folder, args.num_threads) for name, folder in folders.items()}
    prompt = [100 + i for i in range(args.num_prompt_tokens)]
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in loaded}
    for number in range(args.num_rounds + 1):
        for name, engine in loaded.items():
            answer = timed(engine, prompt, args.num_new_tokens)
            if number and answer.decode:  # the first round is to warm up
                rounds[name].append((answer.decode, answer.prefill))
    bytes_before = source_model.weight_bytes(source)
    for name, values in rounds.items():
        decode, prefill = (median(column) for column in zip(*values, strict=True))
        was_decode, was_prefill = (median(column) for column in zip(*rounds["transformers"], strict=True))
        num_bytes = source_model.weight_bytes(folders[name])
        ratios = num_bytes / bytes_before, decode / was_decode, prefill / was_prefill
        reached = ratios[1] >= GOAL_SPEED and ratios[0] <= GOAL_SIZE
        print(
            f"{size:<8} {name:<14} {num_bytes / 2**20:>7,.0f} {ratios[0]:>7.3f}x {decode:>9,.1f} {ratios[1]:>5.2f}x "
            f"{prefill:>10,.0f} {ratios[2]:>5.2f}x{'  goal reached' * reached}",
            flush=True,
        )


def make_model(size: str, folder: Path) -> None:
    """A Qwen3 with random weights and the tokenizer of the tiny model, whose tokens are fewer than its own."""
    import tiny_model
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    hidden_size, num_layers, vocab_size, tied = SIZES[size]
    tokenizer = tiny_model.make_tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 128,
        head_dim=64,
        vocab_size=vocab_size,
        max_position_embeddings=4096,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
