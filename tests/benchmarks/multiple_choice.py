"""score_multiple_choice against lm-eval on the same questions and the same model: CPU seconds, log-likelihoods, memory.

    python tests/benchmarks/multiple_choice.py --benchmarks FOLDER [--num_items 200] [--rounds 3]

FOLDER holds jcommonsenseqa-{train,valid}.jsonl and gsm8k-{train,test}.jsonl. Needs lm-eval beside this repository's
environment. Both sides get messages as plain text and tokenize them; lm-eval gets the best of several batch sizes for
each kind of question. The weights are random, as what is timed does not depend on them.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "components" / "_shared"), str(ROOT / "components" / "score_multiple_choice")]
os.environ["TOKENIZERS_PARALLELISM"] = "false"
LETTERS = "ABCDE"
BATCH_SIZES = (1, 8, 32)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def japanese(folder: Path, split: str) -> list[tuple[str, list[str], int]]:
    found = rows(folder / f"jcommonsenseqa-{split}.jsonl")
    return [(f"質問: {row['question']}", [row[f"choice{i}"] for i in range(5)], row["label"]) for row in found]


def english(folder: Path, split: str) -> list[tuple[str, list[str], int]]:
    """The last step of the solution, among those of the three questions that follow."""
    found = rows(folder / f"gsm8k-{'test' if split == 'valid' else split}.jsonl")
    steps = [row["answer"].split("\n#### ")[0].splitlines()[-1] for row in found]
    return [(f"Question: {row['question']}", steps[i : i + 4], 0) for i, row in enumerate(found[:-3])]


def questions(folder: Path, source, *, letters: bool, shots: int, num_items: int):
    from choice_tokens import Asked

    def turn(text: str, choices: list[str]) -> dict:
        listed = "".join(f"\n{LETTERS[i]}. {choice}" for i, choice in enumerate(choices)) if letters else ""
        return {"role": "user", "content": f"{text}{listed}\nAnswer:"}

    before = []
    for text, choices, gold in source(folder, "train")[:shots]:
        answer = LETTERS[gold] if letters else choices[gold]
        before += [turn(text, choices), {"role": "assistant", "content": answer}]
    return [
        Asked(str(i), [*before, turn(text, choices)], list(LETTERS[: len(choices)]) if letters else choices)
        for i, (text, choices, _) in enumerate(source(folder, "valid")[:num_items])
    ]


def make_tokenizer(folder: Path, vocab_size: int):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [
        text for source in (japanese, english) for t, choices, _ in source(folder, "train") for text in (t, *choices)
    ]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=["<s>"], initial_alphabet=alphabet)
    trainer.show_progress = False
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", pad_token="<s>")


def make_model(args: argparse.Namespace):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocab_size,
        hidden_size=args.hidden_size,
        intermediate_size=3 * args.hidden_size,
        num_hidden_layers=args.num_layers,
        num_attention_heads=args.hidden_size // 64,
        num_key_value_heads=args.hidden_size // 128,
        max_position_embeddings=4096,
        initializer_range=0.06,  # so that choices differ
    )
    return LlamaForCausalLM(config).eval()


class Ours:
    def __init__(self, model, tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def __call__(self, asked, max_batch_tokens: int) -> dict[str, list[float]]:
        from choice_likelihoods import ChoiceScorer
        from choice_tokens import ChoiceTokens

        tokens = ChoiceTokens(self.tokenizer, "plain", max_tokens=4096, truncate=False)
        scorer = ChoiceScorer(self.model, max_batch_tokens)
        found = {question.id: values for question, values in scorer.score(tokens.encode(asked)[0])}
        assert scorer.why_not_packed is None, scorer.why_not_packed
        return found


class LmEval:
    def __init__(self, model, tokenizer) -> None:
        from lm_eval.models.huggingface import HFLM

        logging.disable(logging.WARNING)
        self.model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu")

    def __call__(self, asked, batch_size: int) -> dict[str, list[float]]:
        from lm_eval.api.instance import Instance

        from model_inference.prompts import plain_text

        self.model.batch_size_per_gpu = batch_size
        pairs = [(plain_text(one.messages), f" {choice}") for one in asked for choice in one.choices]
        requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        values = iter(self.model.loglikelihood(requests, disable_tqdm=True))
        return {one.id: [next(values)[0] for _ in one.choices] for one in asked}


def cpu_seconds(call, *args) -> tuple[float, dict[str, list[float]]]:
    started = time.process_time()
    found = call(*args)
    return time.process_time() - started, found


def peak_mib(call, *args) -> float:
    """The growth of the resident memory, in a process of its own."""
    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        with os.fdopen(read) as file:
            text = file.read()
        os.waitpid(pid, 0)
        return float(text)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status_mib("VmRSS")
    call(*args)
    os.write(write, f"{status_mib('VmHWM') - before}".encode())
    os._exit(0)


def status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def compare(name: str, asked, ours: Ours, peer: LmEval, args: argparse.Namespace) -> None:
    import numpy as np

    few = asked[:: max(1, len(asked) // 16)]
    best = min(BATCH_SIZES, key=lambda size: cpu_seconds(peer, few, size)[0])
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(args.rounds):
        for of_side, (side, setting) in zip(seconds, ((ours, args.max_batch_tokens), (peer, best)), strict=True):
            spent, found = cpu_seconds(side, asked, setting)
            of_side.append(spent)
            if side is ours:
                mine = found
    ratios = [b / a for a, b in zip(*seconds, strict=True)]
    change = max(abs(a - b) for id in mine for a, b in zip(mine[id], found[id], strict=True))
    other = sum(np.argmax(mine[id]) != np.argmax(found[id]) for id in mine)
    memory = [peak_mib(side, few, size) for side, size in ((ours, args.max_batch_tokens), (peer, best))]
    print(
        f"| {name} | {statistics.median(seconds[0]):.2f} | {statistics.median(seconds[1]):.2f} ({best}) | "
        f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) | {change:.0e} | {other} | "
        f"{memory[0]:.0f} | {memory[1]:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--num_items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--num_layers", type=int, default=6)
    parser.add_argument("--vocab_size", type=int, default=32_000)
    parser.add_argument("--max_batch_tokens", type=int, default=4096)
    parser.add_argument("--sources", default="japanese,english")
    parser.add_argument("--shots", default="0,5")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    model, tokenizer = make_model(args), make_tokenizer(args.benchmarks, min(args.vocab_size, 16_000))
    ours, peer = Ours(model, tokenizer), LmEval(model, tokenizer)
    print(
        f"hidden {args.hidden_size}, {args.num_layers} layers, vocabulary {args.vocab_size}, {args.num_items} questions"
    )
    print("| questions | s | lm-eval, s (batch size) | times as fast | largest change | other choice | MiB | lm-eval |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for source in args.sources.split(","):
        for shots in map(int, args.shots.split(",")):
            for letters in (True, False):
                of_source = globals()[source]
                asked = questions(args.benchmarks, of_source, letters=letters, shots=shots, num_items=args.num_items)
                name = f"{source}, {'letters' if letters else 'texts'}, {shots} shots"
                compare(name, asked, ours, peer, args)


if __name__ == "__main__":
    main()
