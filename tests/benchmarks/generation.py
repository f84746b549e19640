"""Greedy answers against lm-eval's `generate_until` and Transformers' `generate`: useful tokens per CPU-second.

    python tests/benchmarks/generation.py                       # 64 questions of GSM8K, hidden size 256
    python tests/benchmarks/generation.py --shots 5             # with five solved examples before each question
    python tests/benchmarks/generation.py --hidden_size 512

Needs lm-eval (0.4.13) beside the evaluate environment, and GSM8K as JSON Lines with question and answer. All answer
with the same weights in this process, on one thread, in interleaved rounds, each at the batch size that is its best;
all answers must be the same. The weights are random: the head is made to end answers at lengths as spread as real ones.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "components" / "_shared"))
GSM8K = ROOT.parent / "shared" / "data" / "benchmarks" / "gsm8k-test.jsonl"
END_SCALE = 1.6  # of the head's row for the end, so that about one step in 100 ends an answer

Answers = dict[str, tuple[str, int]]  # text and number of tokens by question


def make_model(folder: Path, texts: list[str], args: argparse.Namespace) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=args.vocab_size, special_tokens=["<pad>", "<end>"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocab_size,
        hidden_size=args.hidden_size,
        intermediate_size=args.hidden_size * 8 // 3,
        num_hidden_layers=args.num_hidden_layers,
        num_attention_heads=args.hidden_size // 64,
        num_key_value_heads=max(1, args.hidden_size // 128),
        max_position_embeddings=4096,
        initializer_range=0.1,  # so that answers do not run in circles
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data[1] *= END_SCALE
    model.save_pretrained(folder)


def questions(args: argparse.Namespace) -> list[list[dict[str, str]]]:
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    shown, asked = rows[-args.shots :] if args.shots else [], rows[: args.num_items]

    def turns(row: dict[str, str]) -> list[dict[str, str]]:
        question = f"Question: {row['question']}\nAnswer:"
        return [{"role": "user", "content": question}, {"role": "assistant", "content": row["answer"]}]

    examples = list(itertools.chain.from_iterable(map(turns, shown)))
    return [[*examples, turns(row)[0]] for row in asked]


def ours(folder: Path, asked: list[list[dict[str, str]]], max_new_tokens: int) -> tuple[Any, Callable[[int], Answers]]:
    from model_inference import answer_sources
    from model_inference.decoding import Decoder

    ports = {"model": folder, "endpoint": None, "prompt_format": "plain", "batch_size": 1, "bf16": False}
    with answer_sources.connect(SimpleNamespace(**ports)) as source:
        requests = [answer_sources.Request(str(i), chat, max_new_tokens) for i, chat in enumerate(asked)]

    def answer(batch_size: int) -> Answers:
        source._decoder = Decoder(source.model, batch_size=batch_size, is_end=source._is_end)
        found = source.answers(requests)
        return {request.key: (answer.text, answer.completion_tokens) for request, answer in found}

    return source, answer


def lm_eval(source: Any, texts: list[str], max_new_tokens: int) -> Callable[[int], Answers]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    settings = {"until": ["\n\n"], "do_sample": False, "max_gen_toks": max_new_tokens}

    def answer(batch_size: int) -> Answers:
        harness = HFLM(pretrained=source.model, tokenizer=source.tokenizer, batch_size=batch_size, max_length=4096)
        asked = [Instance("generate_until", {}, (text, settings), i) for i, text in enumerate(texts)]
        found = harness.generate_until(asked, disable_tqdm=True)
        return {str(i): (text.strip(), 0) for i, text in enumerate(found)}

    return answer


def generate(source: Any, texts: list[str], max_new_tokens: int) -> Callable[[int], Answers]:
    """In batches of like length, as a careful user of Transformers writes it."""
    import torch
    from transformers import GenerationConfig

    def answer(batch_size: int) -> Answers:
        prompts = sorted(enumerate(source.tokenizer(texts)["input_ids"]), key=lambda pair: len(pair[1]))
        found: Answers = {}
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            inputs = source.tokenizer.pad({"input_ids": [ids for _, ids in batch]}, return_tensors="pt")
            config = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, stop_strings=["\n\n"])
            with torch.inference_mode():
                out = source.model.generate(**inputs, generation_config=config, tokenizer=source.tokenizer)
            rows = source.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            found |= {str(i): (text.split("\n\n")[0].strip(), 0) for (i, _), text in zip(batch, rows, strict=True)}
        return found

    return answer


def timed(answer: Callable[[int], Answers], batch_size: int) -> tuple[Answers, float]:
    started = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        found = answer(batch_size)
    return found, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num_items", type=int, default=64)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--num_hidden_layers", type=int, default=6)
    parser.add_argument("--vocab_size", type=int, default=4096)
    parser.add_argument("--max_new_tokens", type=int, default=256)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[16, 32])
    args = parser.parse_args()
    if not GSM8K.is_file():
        sys.exit(f"GSM8K is not at {GSM8K}")

    from model_inference.prompts import plain_text

    asked = questions(args)
    texts = [plain_text(chat) for chat in asked]
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), texts, args)
        source, ours_answers = ours(Path(folder), asked, args.max_new_tokens)
    ways = {
        "generate_answers": ours_answers,
        "lm-eval generate_until": lm_eval(source, texts, args.max_new_tokens),
        "Transformers generate": generate(source, texts, args.max_new_tokens),
    }
    first: dict[tuple[str, int], float] = {}
    expected, _ = timed(ours_answers, 1)
    lengths = sorted(length for _, length in expected.values())
    num_tokens = sum(lengths)
    print(f"{len(asked)} answers of {num_tokens / len(asked):.0f} tokens: from {lengths[0]} to {lengths[-1]}, ", end="")
    print(f"median {statistics.median(lengths):.0f}, {lengths.count(args.max_new_tokens)} cut; {args}")
    for (name, answer), batch_size in itertools.product(ways.items(), args.batch_sizes):
        found, first[name, batch_size] = timed(answer, batch_size)
        same = sum(found[key][0] == expected[key][0] for key in expected)
        print(
            f"{name}, batch size {batch_size}: {num_tokens / first[name, batch_size]:,.0f}, {same} the same", flush=True
        )
    best = {name: min(args.batch_sizes, key=lambda size: first[name, size]) for name in ways}
    seconds = {name: [first[name, best[name]]] for name in ways}
    for _ in range(args.rounds - 1):
        for name, answer in ways.items():
            seconds[name].append(timed(answer, best[name])[1])
    print("| | batch size | useful tokens per CPU-second | ours is faster by |\n| --- | --- | --- | --- |")
    for name, rows in seconds.items():
        speeds = sorted(num_tokens / row for row in rows)
        ratio = statistics.median(row / own for row, own in zip(rows, seconds["generate_answers"], strict=True))
        print(
            f"| {name} | {best[name]} | {statistics.median(speeds):,.0f} ({speeds[0]:,.0f} to {speeds[-1]:,.0f}) "
            f"| {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
