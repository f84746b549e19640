#!/usr/bin/env python
"""Near-duplicate search of prepare_dataset against datasketch: CPU seconds, recall on planted edits, memory, growth.

The texts are made here: 40 words (en), 30 (ja) and 25 (ko) from vocabularies of 20,000 made-up words with a Zipf-like
distribution, a third of the texts in each language. Planted: after every nine texts comes a copy of the first of them
in which a tenth of the words, at random places, are replaced by other words of the vocabulary. The texts are longer
than what prepare_dataset takes for a short question, and have no numbers.

Both sides get the same file of texts, use the same shingles, 25 bands of 5 rows and exact verification at 0.7, and run
in processes of their own, in turns. The peer needs an interpreter of its own:

    python -m venv peers && peers/bin/pip install datasketch==2.0.0
    python tests/benchmarks/near_dedupe.py --peer_python peers/bin/python
"""

import argparse
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
THRESHOLD = 0.7
EVERY = 10
LANGUAGES = ("en", "ja", "ko")
NUM_WORDS = {"en": 40, "ja": 30, "ko": 25}


def vocabulary(language: str, rng: random.Random) -> list[str]:
    def word() -> str:
        if language == "en":
            syllables = rng.choice([1, 1, 2, 2, 3, 4])
            return "".join(rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") for _ in range(syllables)) + rng.choice(
                ["", "n", "s", "r"]
            )
        if language == "ja":
            kanji = "".join(chr(0x4E00 + rng.randrange(1500)) for _ in range(rng.choice([1, 2, 2])))
            return kanji + "".join(chr(0x3042 + rng.randrange(78)) for _ in range(rng.choice([1, 1, 2, 3])))
        return "".join(chr(0xAC00 + rng.randrange(2000)) for _ in range(rng.choice([2, 2, 3, 4])))

    return [word() for _ in range(20_000)]


def write_texts(path: Path, num_texts: int, seed: int) -> None:
    rng = random.Random(seed)
    words = {language: vocabulary(language, rng) for language in LANGUAGES}
    first: list[str] = []
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(20_000)))
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_texts):
            language = LANGUAGES[number // EVERY % 3]
            size = NUM_WORDS[language]
            if number % EVERY == EVERY - 1:
                text = first[:]
                for place in rng.sample(range(size), round(size / 10)):
                    text[place] = rng.choice(words[language])
            else:
                text = rng.choices(words[language], cum_weights=weights, k=size)
            if number % EVERY == 0:
                first = text
            file.write(("" if language == "ja" else " ").join(text) + "\n")


def ours(path: Path) -> dict[int, int]:
    sys.path[:0] = [str(ROOT / "components" / "_shared"), str(ROOT / "components" / "prepare_dataset")]
    from near_duplicates import NearDuplicates

    with tempfile.TemporaryDirectory() as folder, path.open(encoding="utf-8") as file:
        near = NearDuplicates(Path(folder), THRESHOLD)
        for line in file:
            near.add(line.rstrip("\n"), "")
        clusters = near.clusters()
        near.close()
    return {number: stays for cluster in clusters for number, stays in cluster.items() if number != stays}


def theirs(path: Path) -> dict[int, int]:
    """As its documentation shows it: one MinHash a text, query, verify, insert; with a faster hash than its SHA-1."""
    from datasketch import MinHash, MinHashLSH

    def shingles(text: str) -> set[str]:
        return {text[i : i + (2 if text[i] >= "\u2e80" else 4)] for i in range(len(text) - 1)}

    index, kept, found = MinHashLSH(num_perm=125, params=(25, 5)), {}, {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            mine = shingles(line.rstrip("\n"))
            sketch = MinHash(num_perm=125, hashfunc=zlib.crc32)
            sketch.update_batch([shingle.encode() for shingle in mine])
            for other in sorted(index.query(sketch)):
                if len(mine & kept[other]) >= THRESHOLD * len(mine | kept[other]):
                    found[number] = other
                    break
            else:
                index.insert(number, sketch)
                kept[number] = mine
    return found


def measure(side: str, path: Path) -> None:
    """In a process of its own: what it found, in which CPU seconds, and by how much it grew."""
    module = __import__("numpy")  # not counted: both sides load it
    if side == "theirs":
        __import__("datasketch")
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = (ours if side == "ours" else theirs)(path)
    seconds = time.process_time() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    with path.open(encoding="utf-8") as file:
        num_texts = sum(1 for _ in file)
    planted = {last: last - EVERY + 1 for last in range(EVERY - 1, num_texts, EVERY)}
    recall = {
        language: [
            found.get(last) == first for last, first in planted.items() if LANGUAGES[last // EVERY % 3] == language
        ]
        for language in LANGUAGES
    }
    print(
        json.dumps(
            {
                "seconds": seconds,
                "texts_per_second": num_texts / seconds,
                "grown_mb": grown / 1024,
                "recall": sum(map(sum, recall.values())) / len(planted),
                "recall_by_language": {name: round(sum(hits) / len(hits), 4) for name, hits in recall.items()},
                "others_left_out": len(found.keys() - planted.keys()),
                "numpy": module.__version__,
            }
        )
    )


def run(python: str, side: str, path: Path) -> dict:
    command = [python, __file__, "--measure", side, "--texts", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer_python", help="interpreter of a venv with datasketch 2.0.0; without it no comparison")
    parser.add_argument("--num_texts", type=int, default=100_000, help="texts of the comparison (default 100000)")
    parser.add_argument("--num_rounds", type=int, default=3, help="rounds of the comparison (default 3)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="sizes for growth")
    parser.add_argument("--measure", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.texts)
        return
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts"
        for size in args.sizes:
            write_texts(texts, size, seed=size)
            show(f"{size:>9,} texts", run(sys.executable, "ours", texts))
        if not args.peer_python:
            print("no comparison: give --peer_python, see --help")
            return
        write_texts(texts, args.num_texts, seed=1)
        rounds: list[dict[str, dict]] = []
        for number in range(args.num_rounds):
            rounds.append({})
            for side, python in (("ours", sys.executable), ("theirs", args.peer_python)):
                rounds[-1][side] = run(python, side, texts)
                show(f"round {number + 1}, {side}", rounds[-1][side])
        ratios = sorted(turn["theirs"]["seconds"] / turn["ours"]["seconds"] for turn in rounds)
        print(f"texts per CPU second, ours / datasketch: median {median(ratios):.1f}, from {ratios[0]:.1f}")


def show(what: str, result: dict) -> None:
    print(
        f"{what}: {result['seconds']:.2f} CPU s, {result['texts_per_second']:,.0f} texts/s, recall "
        f"{result['recall']:.4f} {result['recall_by_language']}, {result['others_left_out']} others left out, "
        f"+{result['grown_mb']:.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
