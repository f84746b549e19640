#!/usr/bin/env python
"""How near private synthesis comes to the private texts, against epsilon, with the embedded teacher.

The private texts are of two of six public topics, 80 to 20. Utility is the total variation distance between the
topics of the result and these (0.67 before any vote, 0 is best), and the mean similarity of a private text to the
nearest text of the result.
"""

import argparse
import contextlib
import io
import random
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "components" / "_shared"), str(ROOT / "components" / "synthesize_private_texts")]

import main as component  # noqa: E402
import public_grammar  # noqa: E402

from slmkit import records, text_embedding  # noqa: E402

MIX = {"library": 0.8, "payment": 0.2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_records", type=int, default=3000)
    parser.add_argument("--num_texts", type=int, default=50)
    parser.add_argument("--num_rounds", type=int, default=5)
    parser.add_argument("--delta", type=float, default=1e-6)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.05, 0.2, 0.5, 1, 2, 4, 8])
    parser.add_argument("--num_repeats", type=int, default=3)
    args = parser.parse_args()

    words, chooser = public_grammar.words()["en"], random.Random(0)
    topics = chooser.choices(list(MIX), list(MIX.values()), k=args.num_records)
    private = [public_grammar.random_text(topic, words, chooser) for topic in topics]
    print(
        f"{args.num_records:,} private texts -> {args.num_texts} texts, {args.num_rounds} rounds, delta={args.delta:g}"
    )
    print(
        f"{'epsilon':>8} {'sigma':>8}   " + "   ".join(f"{s:>6}: topics apart, similarity" for s in ("rank", "sample"))
    )
    for epsilon in args.epsilons:
        sigma = component.gaussian_accounting.sigma_for(epsilon, args.delta, args.num_rounds)
        cells = []
        for selection in ("rank", "sample"):
            runs = [utility(private, words, args, epsilon, selection, seed) for seed in range(args.num_repeats)]
            apart, near = (statistics.mean(column) for column in zip(*runs, strict=True))
            cells.append(f"{apart:21.2f}, {near:10.3f}")
        print(f"{epsilon:8g} {sigma:8.2f}   " + "   ".join(cells), flush=True)


def utility(private: list[str], words: dict, args: argparse.Namespace, epsilon: float, selection: str, seed: int):
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder)
        with records.write_records(path / "private") as write:
            for text in private:
                write({"text": text})
        component.run(
            component.Args(
                private_documents=path / "private",
                dataset="benchmark",
                min_num_records=10**9,  # so that what would be noise is measured as well
                delta=args.delta,
                documents=path / "documents",
                report=path / "report",
                ledger=path / "ledger",
                epsilon=epsilon,
                num_texts=args.num_texts,
                num_rounds=args.num_rounds,
                selection=selection,
                seed=seed,
            )
        )
        texts = [row["text"] for row in records.read_records(path / "documents")]
    known = words["topics"]
    found = Counter(max(known, key=lambda topic: sum(word in text for word in known[topic])) for text in texts)
    apart = sum(abs(found[topic] / len(texts) - MIX.get(topic, 0)) for topic in known) / 2
    similarities, _ = text_embedding.nearest(text_embedding.embed(private), text_embedding.embed(texts), 1)
    return apart, float(similarities.mean())


if __name__ == "__main__":
    main()
