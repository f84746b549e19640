"""What batch_score costs beside the model: memory and time by the rows of a shard, and what its chunks cost the batch.

    python tests/benchmarks/batch_score.py                     # shards of 10,000, 100,000 and a million rows
    python tests/benchmarks/batch_score.py --model FOLDER      # and tokens a second with a model, by batch size

The first table is of a source that answers at once, each size in a process of its own, fresh and as a start after a
kill that finds every answer kept. The second is of LocalModel given all rows at once, in chunks, and one by one, in
interleaved rounds on one thread; the answers must be the same.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
COMPONENTS = Path(__file__).resolve().parents[2] / "components"
sys.path[:0] = [str(COMPONENTS / "batch_score"), str(COMPONENTS / "_shared")]


class Echo:
    """Answers each question at once with its text."""

    identity = "echo"

    def answers(self, requests):
        from slmkit.answers import Answer

        for request in requests:
            yield request, Answer(request.messages[-1]["content"], 10, 20, "stop", latency_ms=5.0)


def rows(number: int):
    for n in range(number):
        text = f"Question {n}: what is the telephone number of office {n * 7919 % 1000}? 電話番号 전화번호"
        yield {"id": f"row-{n}", "messages": [{"role": "user", "content": text}], "source": {"page": n}}


def write_shard(path: Path, number: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows(number):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def score(shard: Path, folder: Path, source: object, **asking: object) -> tuple[float, object]:
    from record_scoring import Asking, RecordScorer

    from slmkit import records

    scorer, started = RecordScorer(source, Asking(**{"endpoint": "https://here/v1", **asking})), time.perf_counter()
    with records.write_records(folder / "out.jsonl") as write:
        tally = scorer.score("shard", shard, write, folder / "so_far")
    return time.perf_counter() - started, tally


def one_size(number: int) -> None:
    """In a process of its own: the memory that was the most in use is of a process."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_shard(folder / "shard.jsonl", number)
        fresh, tally = score(folder / "shard.jsonl", folder, Echo())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        again, known = score(folder / "shard.jsonl", folder, Echo())
        both = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        assert (tally.num_rows, known.num_known) == (number, number)
        size = (folder / "shard.jsonl").stat().st_size / 2**20
    fresh, again = (seconds / number * 1e6 for seconds in (fresh, again))
    print(f"{number:>10,} {size:>8.0f} {peak:>10.0f} {fresh:>10.0f} {both:>12.0f} {again:>10.0f}")


def with_model(model: Path, number: int, batch_sizes: list[int], num_rounds: int) -> None:
    from record_scoring import CHUNK_ROWS, Asking

    from model_inference import answer_sources

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_shard(folder / "shard.jsonl", number)
        sources = {}
        for size in batch_sizes:
            asking = Asking(model=model, batch_size=size)
            sources[size] = answer_sources.connect(asking).__enter__()
        speeds: dict[str, list[float]] = {}
        outputs = set()
        for turn in range(num_rounds):
            for size, source in sources.items():
                seconds, tally = score(folder / "shard.jsonl", folder / f"{turn}-{size}", source, max_new_tokens=32)
                speeds.setdefault(f"batch_score, batch of {size}", []).append(tally.completion_tokens / seconds)
                lines = (folder / f"{turn}-{size}" / "out.jsonl").read_text(encoding="utf-8").splitlines()
                outputs.add("\n".join(json.loads(line)["output"] for line in lines))
                if size > 1:
                    requests = [answer_sources.Request(row["id"], row["messages"], 32) for row in rows(number)]
                    started = time.perf_counter()
                    tokens = sum(answer.completion_tokens for _, answer in source.answers(requests))
                    speeds.setdefault(f"the model alone, batch of {size}", []).append(
                        tokens / (time.perf_counter() - started)
                    )
        assert len(outputs) == 1, "the answers depend on the batch size"
    print(f"\n{number:,} rows in chunks of {CHUNK_ROWS:,}; median tokens/s of {num_rounds} rounds")
    for name, found in sorted(speeds.items()):
        print(f"{name:<32} {statistics.median(found):>10,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--num_model_rows", type=int, default=2048)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--num_rounds", type=int, default=3)
    parser.add_argument("--one_size", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one_size:
        return one_size(args.one_size)
    print("      rows      MiB   peak MiB  us a row   goes on MiB  us a row", flush=True)
    for number in args.num_rows:
        subprocess.run([sys.executable, __file__, "--one_size", str(number)], check=True)
    if args.model:
        with_model(args.model, args.num_model_rows, args.batch_sizes, args.num_rounds)


if __name__ == "__main__":
    main()
