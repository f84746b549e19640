#!/usr/bin/env python
"""What the coverage of build_coverage_seed is worth: it rises with what is asked, and stays near 0 for other seeds.

For each folder of documents the component asks the embedded teacher about a tenth, a quarter, half and all of the
chunks, in one pass. Beside that: seeds made from the other folders, and the first sentence of each chunk as its seed.
The last table is the price: seconds and memory to measure sources of growing size.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = ROOT / "components" / "build_coverage_seed"
sys.path[:0] = [str(COMPONENT), str(ROOT / "components" / "_shared")]

from source_coverage import SourceCoverage  # noqa: E402

from slmkit import records, textstats  # noqa: E402
from slmkit.document_chunks import Chunk, chunks_of  # noqa: E402

FOLDERS = [ROOT / "pipelines" / "samples" / "documents", ROOT.parent / "shared" / "data" / "raw"]
SHARES = (0.1, 0.25, 0.5, 1.0)
NEIGHBORS = (1, 2, 3, 5)


def component(name: str, **flags: object) -> None:
    command = [sys.executable, str(ROOT / "components" / name / "main.py")]
    command += [part for flag, value in flags.items() for part in (f"--{flag}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "components" / "_shared")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr[-2000:])


def seeds_of(chats: Path) -> list[str]:
    """Questions and answers without their context."""
    found = []
    for chat in records.read_records(chats):
        contents = [message["content"] for message in chat["messages"]]
        found.append(" ".join([contents[0].rpartition("\n\n")[2], *contents[1:]]))
    return found


def covered(chunks: list[Chunk], seeds: list[str], num_neighbors: int) -> float:
    coverage = SourceCoverage(chunks, num_neighbors)

    async def measure() -> None:
        await coverage.prepare()
        await coverage.add([(chunks[0], seed) for seed in seeds])

    asyncio.run(measure())
    return coverage.share()


def first_sentences(chunks: list[Chunk]) -> list[str]:
    return [f"{chunk.title} {max(textstats.sentences(chunk.text)[:3], key=len)}" for chunk in chunks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", default=[folder for folder in FOLDERS if folder.is_dir()])
    parser.add_argument("--chunk-chars", type=int, default=600)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 3000, 10000], help="passages to measure")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = {folder: work_on(folder, Path(scratch) / str(i), args) for i, folder in enumerate(args.folders)}
    print(f"{'':<28}{'k':>3}" + "".join(f"{share:>8.0%}" for share in SHARES) + f"{'others':>10}{'sentences':>11}")
    for folder, (chunks, seeds) in rows.items():
        others = [seed for other, (_, made) in rows.items() if other != folder for seed in made[1.0]]
        for k in NEIGHBORS:
            shares = [covered(chunks, seeds[share], k) for share in SHARES]
            shares += [covered(chunks, others, k), covered(chunks, first_sentences(chunks), k)]
            cells = "".join(f"{share:>8.2f}" for share in shares[:-2])
            print(f"{folder.name + f', {len(chunks)} chunks':<28}{k:>3}{cells}{shares[-2]:>10.2f}{shares[-1]:>11.2f}")
    print(f"\n{'passages':>10}{'seconds':>10}{'peak MiB':>10}")
    for size in args.sizes:
        chunks = [Chunk(str(i), 0, text, "en", "", "", "") for i, text in enumerate(made_up(size))]
        started = time.perf_counter()
        covered(chunks, [chunk.text for chunk in chunks], 2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{size:>10,}{time.perf_counter() - started:>10.1f}{peak:>10,.0f}")


def work_on(folder: Path, scratch: Path, args: argparse.Namespace) -> tuple[list[Chunk], dict[float, list[str]]]:
    """The chunks of the folder, and the seeds when a share of them is asked about."""
    documents = scratch / "documents"
    component(
        "collect_documents", raw_data=folder, documents=documents, manifest=scratch / "m", quarantine=scratch / "q"
    )
    chunks = [c for document in records.read_records(documents) for c in chunks_of(document, args.chunk_chars)]
    seeds = {}
    for share in SHARES:
        chats, report = scratch / f"chats{share}", scratch / f"report{share}"
        flags = {"num_pairs_per_chunk": 4, "chunk_chars": args.chunk_chars, "num_passes": 1}
        flags |= {"max_num_chunks": round(share * len(chunks)), "documents": documents}
        component("build_coverage_seed", chats=chats, report=report, **flags)
        asked = json.loads((report / "report.json").read_text("utf-8"))["counts"]["chunks_asked"]
        assert asked == round(share * len(chunks)), asked
        seeds[share] = seeds_of(chats)
    return chunks, seeds


def made_up(size: int) -> list[str]:
    """Sentences of words that follow Zipf's law, about as long as a passage."""
    import numpy as np

    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(rng.choice(letters, length)) for length in rng.integers(2, 10, 20_000)]
    return [" ".join(words[min(i, 19_999)] for i in rng.zipf(1.3, 16)) + "." for _ in range(size)]


if __name__ == "__main__":
    main()
