#!/usr/bin/env python
"""Contamination of a benchmark: time and memory, beside the same definition with sets of tuples in plain Python.

Items and chats are made of word lists by a seed; one item in twenty is copied into a chat. Half of both is like
English, half like Japanese. Each side runs in a process of its own, in turns; both must find the same items.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "components" / "_shared"), str(ROOT / "components" / "prepare_benchmark")]
WORDS, CHARACTERS, MIN_OVERLAP = 8, 13, 0.7
KANA = "".join(map(chr, range(0x3042, 0x3094)))


def texts(number: int, num_words: int, rng: random.Random, words: list[str], kana: list[str]) -> list[str]:
    return [
        " ".join(rng.choices(words, k=num_words)) if n % 2 else "".join(rng.choices(kana, k=num_words))
        for n in range(number)
    ]


def make(folder: Path, num_items: int, num_chats: int) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    kana = ["".join(rng.choices(KANA, k=rng.randint(1, 3))) for _ in range(20_000)]
    items = texts(num_items, 30, rng, words, kana)
    chats = texts(num_chats, 200, rng, words, kana)
    for n in range(0, num_items, 20):
        at = rng.randrange(num_chats)
        chats[at] += " " + items[n]
    (folder / "items.json").write_text(json.dumps([(text, words[0]) for text in items]))
    with (folder / "train").open("w") as file:
        for text in chats:
            file.write(json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n")


def plain(asked: list[tuple[str, str]], train: Path) -> list[bool]:
    """The share of n-grams found, with sets of tuples of the items' n-grams."""
    from slmkit import ngrams, records

    def grams(units: list[str], size: int) -> list[tuple[str, ...]]:
        return [tuple(units[at : at + size]) for at in range(len(units) - size + 1)]

    sizes = {ngrams.WORD: WORDS, ngrams.CHARACTER: CHARACTERS}
    of_item = []
    for question in (ngrams.normalize(question) for question, _ in asked):
        unit = ngrams.unit_of(question)
        of_item.append(grams(unit.findall(question), sizes[unit]))
    wanted = {gram for found in of_item for gram in found}
    seen = set()
    for chat in records.read_records(train):
        text = ngrams.normalize(chat["messages"][0]["content"])
        for unit, size in sizes.items():
            seen.update(gram for gram in grams(unit.findall(text), size) if gram in wanted)
    return [sum(gram in seen for gram in found) >= MIN_OVERLAP * len(found) for found in of_item]


def _peak_mib() -> float:
    """Of this process alone; ru_maxrss begins with what its parent held."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def one_side(side: str, folder: Path) -> None:
    asked = json.loads((folder / "items.json").read_text())
    import contamination

    before, started = _peak_mib(), time.process_time()
    if side == "plain":
        found = plain(asked, folder / "train")
    else:
        overlaps, _ = contamination.overlaps(asked, folder / "train", WORDS, CHARACTERS)
        found = [overlap.question >= MIN_OVERLAP for overlap in overlaps]
    used = _peak_mib() - before
    print(json.dumps({"seconds": time.process_time() - started, "mib": used, "found": sum(found)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_items", type=int, default=10_000)
    parser.add_argument("--num_chats", type=int, default=100_000)
    parser.add_argument("--num_turns", type=int, default=3)
    parser.add_argument("--side", choices=["prepare_benchmark", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return one_side(args.side, args.folder)

    with tempfile.TemporaryDirectory() as name:
        make(Path(name), args.num_items, args.num_chats)
        runs = {"prepare_benchmark": [], "plain": []}
        for _ in range(args.num_turns):
            for side, results in runs.items():
                command = [sys.executable, __file__, "--side", side, "--folder", name]
                results.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    print(f"{args.num_items:,} items against {args.num_chats:,} chats, CPU seconds, median of {args.num_turns}")
    print(f"{'side':<18} {'seconds':>8} {'MiB':>6} {'found':>6}")
    for side, results in runs.items():
        row = {key: median(result[key] for result in results) for key in results[0]}
        print(f"{side:<18} {row['seconds']:>8.1f} {row['mib']:>6.0f} {row['found']:>6,.0f}")
    ratio = median(
        slow["seconds"] / fast["seconds"] for slow, fast in zip(runs["plain"], runs["prepare_benchmark"], strict=True)
    )
    print(f"ratio of the seconds, turn by turn: {ratio:.2f}")


if __name__ == "__main__":
    main()
