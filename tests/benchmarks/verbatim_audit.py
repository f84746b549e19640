#!/usr/bin/env python
"""How many synthetic documents a second the verbatim audit holds against real ones, the index of these included.

Documents are made of public word lists by a seed; a part of the synthetic ones copies a passage of a real one, so that
spans have to be followed. What was copied is known, and the spans found must be at least that.
"""

import argparse
import random
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "components" / "_shared"), str(ROOT / "components" / "audit_privacy")]

from text_windows import Texts  # noqa: E402
from verbatim_overlap import SourceIndex, min_common  # noqa: E402

HEADER = "Name of the center and address of the office: "  # boilerplate of every fifth real document


def document(chooser: random.Random, words: list[str], num_chars: int) -> str:
    text = " ".join(chooser.choices(words, k=num_chars // 6 + 2))
    return text[:num_chars]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_real", type=int, default=50_000)
    parser.add_argument("--num_synthetic", type=int, default=20_000)
    parser.add_argument("--num_chars", type=int, default=300)
    parser.add_argument("--copied_fraction", type=float, default=0.1)
    parser.add_argument("--num_turns", type=int, default=3)
    args = parser.parse_args()

    chooser = random.Random(0)
    words = ["".join(chooser.choices("abcdefghijklmnopqrstuvwxyz", k=chooser.randint(2, 9))) for _ in range(20_000)]
    real = [document(chooser, words, args.num_chars) for _ in range(args.num_real)]
    real = [HEADER + text if number % 5 == 0 else text for number, text in enumerate(real)]
    synthetic, copied = [], []
    for number in range(args.num_synthetic):
        text = document(chooser, words, args.num_chars)
        if chooser.random() < args.copied_fraction:
            half = args.num_chars // 2
            text = text[:half] + chooser.choice(real)[-half:]
            copied.append(number)
        synthetic.append(text)

    print(
        f"{args.num_synthetic:,} synthetic documents against {args.num_real:,} real ones of {args.num_chars} characters"
    )
    for turn in range(args.num_turns):
        started = time.perf_counter()
        sources = Texts(real)
        index = SourceIndex(sources, 24, min_common(len(sources), 0.01, 5))
        indexed = time.perf_counter()
        found = index.overlap(Texts(synthetic))
        ended = time.perf_counter()
        assert all(found.longest[number] >= args.num_chars // 2 - 1 for number in copied), "a copy was missed"
        print(
            f"turn {turn + 1}: index {indexed - started:.1f} s, look-up {ended - indexed:.1f} s: "
            f"{args.num_synthetic / (ended - started):,.0f} documents/s with the index, "
            f"{args.num_synthetic / (ended - indexed):,.0f} without"
        )
    print(f"peak of memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
