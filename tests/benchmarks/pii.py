#!/usr/bin/env python
"""Recall, precision and speed of pii_detection, beside Presidio's pattern recognizers where these are installed.

A peer is made by: python -m venv peer && peer/bin/pip install presidio-analyzer==2.2.366
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "components" / "_shared")]

from pii_detection import ENTITY_TYPES, Detector, context, phone_numbers  # noqa: E402
from tests.pii_detection.generated_pii import Example, generate  # noqa: E402

RESEARCH = ROOT.parent / "shared" / "data" / "pii" / "presidio-research-synth-v2.json"
MEASURED = ROOT / "components" / "_shared" / "pii_detection" / "measured_recall.json"
PEER_TYPES = [
    *("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS"),
    *("US_SSN", "KR_RRN", "KR_FRN", "KR_BRN"),
]
SEED = 20261122  # not the one that the patterns were tried on
Found = list[list[tuple[int, int, str]]]
Find = Callable[[list[str]], tuple[float, Found]]


def research_examples() -> list[Example]:
    """The sentences of presidio-research with the spans of the types that are known here."""
    rows = json.loads(RESEARCH.read_text(encoding="utf-8"))
    return [
        Example(
            row["full_text"],
            [
                (span["start_position"], span["end_position"], span["entity_type"])
                for span in row["spans"]
                if span["entity_type"] in ENTITY_TYPES
            ],
            "en",
            "plain",
        )
        for row in rows
    ]


class Scores:
    """Recall counts a value as found when findings of its type cover all of it; precision counts findings."""

    def __init__(self, examples: list[Example], found: Found) -> None:
        self.values: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.findings: Counter[str] = Counter()
        self.right: Counter[str] = Counter()
        for example, row in zip(examples, found, strict=True):
            for start, end, kind in example.spans:
                self.values[kind] += 1
                self.hits[kind] += any(k == kind and s <= start and end <= e for s, e, k in row)
            for start, end, kind in row:
                self.findings[kind] += 1
                self.right[kind] += any(k == kind and s < end and start < e for s, e, k in example.spans)

    def row(self, kind: str) -> dict[str, float]:
        return {
            "recall": round(self.hits[kind] / self.values[kind], 4),
            "precision": round(self.right[kind] / self.findings[kind], 4) if self.findings[kind] else 0.0,
            "n": self.values[kind],
        }


def ours(kinds: Iterable[str]) -> Find:
    detector = Detector(kinds)

    def find(texts: list[str]) -> tuple[float, Found]:
        for cached in (context._last_word, phone_numbers.parsed):
            cached.cache_clear()  # another detector may have seen the same texts
        started = time.process_time()
        found = [detector.find(text) for text in texts]
        seconds = time.process_time() - started
        return seconds, [[(f.start, f.end, f.entity_type) for f in row] for row in found]

    return find


def peer(python: Path) -> Find:
    process = subprocess.Popen(
        [python, Path(__file__).with_name("pii_presidio.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def find(texts: list[str]) -> tuple[float, Found]:
        process.stdin.write(json.dumps(texts) + "\n")
        process.stdin.flush()
        seconds, rows = json.loads(process.stdout.readline())
        return seconds, [[tuple(item) for item in row] for row in rows]

    return find


def table(head: list[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(['---'] + ['---:'] * (len(head) - 1))}|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def measure(examples: dict[str, list[Example]], find: Find) -> dict[str, Scores]:
    return {name: Scores(rows, find([row.text for row in rows])[1]) for name, rows in examples.items()}


def quality(examples: dict[str, list[Example]], others: Find | None) -> dict[str, dict[str, dict[str, float]]]:
    mine = measure(examples, ours(ENTITY_TYPES))
    theirs = measure(examples, others) if others else {}
    measured: dict[str, dict[str, dict[str, float]]] = {}
    rows = []
    for kind in ENTITY_TYPES:
        for name, scores in mine.items():
            if not scores.values[kind]:
                continue
            row = measured.setdefault(kind, {})[name] = scores.row(kind)
            cells = [kind, name, row["n"], f"{row['recall']:.3f}", f"{row['precision']:.3f}"]
            if theirs:
                their = theirs[name].row(kind) if kind in PEER_TYPES else None
                cells += [f"{their['recall']:.3f}", f"{their['precision']:.3f}"] if their else ["-", "-"]
            rows.append(cells)
    head = ["type", "data set", "values", "recall", "precision", *(["Presidio recall", "precision"] if theirs else [])]
    print(*table(head, rows), sep="\n", end="\n\n")
    return measured


def by_style(examples: list[Example], others: Find | None) -> None:
    """Recall by language and way of writing, over the types that both know."""
    known = [
        row._replace(spans=[span for span in row.spans if span[2] in PEER_TYPES])
        for row in examples
        if any(span[2] in PEER_TYPES for span in row.spans)
    ]
    texts = [row.text for row in known]
    finders = {"recall": ours(PEER_TYPES)} | ({"Presidio recall": others} if others else {})
    results = [find(texts)[1] for find in finders.values()]
    rows = []
    for language in ("en", "ja", "ko"):
        for style in sorted({row.style for row in known}):
            chosen = [place for place, row in enumerate(known) if (row.language, row.style) == (language, style)]
            if chosen:
                shares = []
                for found in results:
                    scores = Scores([known[place] for place in chosen], [found[place] for place in chosen])
                    shares.append(f"{scores.hits.total() / scores.values.total():.3f}")
                rows.append([f"{language}, {style}", len(chosen), *shares])
    print(*table(["language and style", "values", *finders], rows), sep="\n", end="\n\n")


def speed(examples: list[Example], others: Find | None, num_rounds: int) -> None:
    """Lines a CPU second, in turns, each in one thread; every round has lines of its own, which no cache has seen."""
    finders = {"pii_detection, same types": ours(PEER_TYPES), "pii_detection, all types": ours(ENTITY_TYPES)}
    finders |= {"Presidio's pattern recognizers": others} if others else {}
    lines: dict[str, list[float]] = {name: [] for name in finders}
    for find in finders.values():
        find([row.text for row in generate(200, SEED - 1)])  # imports and tables
    for number in range(num_rounds):
        texts = [row.text for row in [*generate(1000, SEED + 1 + number), *examples[number::num_rounds]]]
        for name, find in finders.items():
            seconds, _ = find(texts)
            lines[name].append(len(texts) / seconds)
    rows = [
        [name, f"{median(values):,.0f}", f"{min(values):,.0f} to {max(values):,.0f}"] for name, values in lines.items()
    ]
    print(*table([f"{num_rounds} rounds in turns", "lines a CPU second", "range"], rows), sep="\n")
    if others:
        same, _, his = lines.values()
        ratios = [one / other for one, other in zip(same, his, strict=True)]
        print(f"\nSame types: {median(ratios):.1f} times as fast ({min(ratios):.1f} to {max(ratios):.1f}).")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer_python", type=Path, help="an interpreter with presidio-analyzer")
    parser.add_argument("--num_examples", type=int, default=12000, help="generated examples (default 12000)")
    parser.add_argument("--num_rounds", type=int, default=5, help="rounds of the speed comparison (default 5)")
    parser.add_argument("--write", action="store_true", help=f"write {MEASURED.name}, which audit_privacy shows")
    args = parser.parse_args()
    generated = list(generate(args.num_examples, SEED))
    examples = {"generated": generated}
    if RESEARCH.exists():
        examples = {"presidio-research": research_examples()} | examples
    else:
        print(f"not measured on presidio-research: it is not at {RESEARCH}\n")
    others = peer(args.peer_python) if args.peer_python else None
    measured = quality(examples, others)
    by_style(generated, others)
    speed(examples.get("presidio-research", []), others, args.num_rounds)
    if args.write:
        MEASURED.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
