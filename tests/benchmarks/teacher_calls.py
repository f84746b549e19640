#!/usr/bin/env python
"""Thousands of teacher calls through build_coverage_seed's own process, to an endpoint that fails as endpoints do.

Of the requests 10 % get a 429 with Retry-After, 2 % a 500 and 1 % malformed JSON, by chance; 1 % of the chunks are
refused by a content filter whenever they are asked about. Half-way the process is killed (SIGKILL) and started again.
Every good answer must end up in a chat, and nothing may be asked again once its answer was kept. What the endpoint
had answered but the process had not yet kept when it was killed is asked again, and counted apart.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "components" / "_shared")]

from slmkit import records  # noqa: E402
from tests.chat_endpoint import Endpoint, completion  # noqa: E402

SHARES = {"429": 0.10, "500": 0.02, "malformed": 0.01}


class FaultyTeacher:
    """Answers about locker N with one question, or fails; remembers what became of each request."""

    def __init__(self, retry_after_seconds: float, latency_seconds: float) -> None:
        self.outcomes: Counter[str] = Counter()
        self.answered: set[int] = set()  # well
        self.asked_again: set[int] = set()  # although answered well
        self.retry_after_seconds, self.latency_seconds = retry_after_seconds, latency_seconds
        self._random, self._lock = random.Random(0), threading.Lock()
        self.endpoint = Endpoint(self.reply)
        self.endpoint.server.handle_error = lambda *_: None  # the killed process hangs up

    def reply(self, number: int, body: dict) -> object:
        locker = int(re.search(r"Locker (\d+)", body["messages"][1]["content"])[1])
        time.sleep(self.latency_seconds)
        with self._lock:
            outcome = self._outcome(locker)
            self.outcomes[outcome] += 1
            if locker in self.answered:
                self.asked_again.add(locker)
            elif outcome == "200":
                self.answered.add(locker)
        if outcome == "429":
            return 429, {}, {"Retry-After": self.retry_after_seconds}
        if outcome == "500":
            return 500, "oops"
        if outcome == "filtered":
            return 400, {"error": {"code": "content_filter"}}
        pair = {"question": f"Whose is locker {locker}?", "answer": f"Keeper {locker}", "question_type": "short"}
        text = json.dumps({"pairs": [pair]})
        return completion(text[: len(text) // 2] if outcome == "malformed" else text)

    def _outcome(self, locker: int) -> str:
        drawn = self._random.random()
        for outcome, share in SHARES.items():
            if drawn < share:
                return outcome
            drawn -= share
        return "filtered" if is_filtered(locker) else "200"


def is_filtered(locker: int) -> bool:
    return locker % 100 == 7


def measure(num_calls: int, folder: Path, concurrency: int, retry_after_seconds: float, latency_seconds: float) -> dict:
    """Run, kill half-way, run again; gives the figures."""
    documents, chats, report = folder / "documents", folder / "chats", folder / "report"
    with records.write_records(documents) as write:
        for i in range(num_calls):
            write({"id": f"locker{i}", "text": f"Locker {i} is that of Keeper {i}.", "media_type": "text/plain"})
    faulty = FaultyTeacher(retry_after_seconds, latency_seconds)
    command = [sys.executable, str(ROOT / "components" / "build_coverage_seed" / "main.py"), "--auth", "none"]
    flags = {"documents": documents, "chats": chats, "report": report, "teacher": faulty.endpoint.url}
    flags |= {"concurrency": concurrency, "question_types": "short", "num_passes": 1}
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "components" / "_shared")}
    with contextlib.closing(faulty.endpoint):
        started = time.perf_counter()
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            while len(faulty.answered) < num_calls // 2 and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        before = {"seconds": time.perf_counter() - started, **faulty.outcomes}
        time.sleep(2 * latency_seconds + 0.1)  # requests under way at the kill come to their end
        answered = set(faulty.answered)
        assert not chats.exists()
        kept = kept_answers(report / "teacher_answers.sqlite", folder)
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    usage = json.loads((report / "report.json").read_text("utf-8"))["usage"]
    found = Counter(chat["source_ids"][0] for chat in records.read_records(chats))
    return {
        "before": before,
        "after": {
            "seconds": seconds,
            **(faulty.outcomes - Counter({k: v for k, v in before.items() if k != "seconds"})),
        },
        "answered_at_kill": len(answered),
        "kept_at_kill": len(kept),
        "from_cache": usage["cached"],
        "lost_in_the_kill": len(answered - kept),
        "asked_again_after_kept": len(faulty.asked_again - (answered - kept)),
        "good": sum(not is_filtered(i) for i in range(num_calls)),
        "chats": found.total(),
        "missing": sum(not is_filtered(i) and f"locker{i}" not in found for i in range(num_calls)),
    }


def kept_answers(database: Path, folder: Path) -> set[int]:
    """The lockers whose answers a killed process had kept, read from a copy so that nothing of the original changes."""
    copy = folder / "copy"
    copy.mkdir()
    for path in database.parent.glob(f"{database.name}*"):
        shutil.copy(path, copy)
    with contextlib.closing(sqlite3.connect(copy / database.name)) as db:
        return {int(re.search(r"Keeper (\d+)", row[0])[1]) for row in db.execute("SELECT answer FROM answers")}


def show(num_calls: int, figures: dict) -> None:
    before, after = figures["before"], figures["after"]
    print(f"{num_calls} calls, Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'':<44}{'to the kill':>12}{'after it':>12}{'both':>12}")
    seconds = before["seconds"], after["seconds"]
    print(f"{'seconds':<44}{seconds[0]:>12.1f}{seconds[1]:>12.1f}{sum(seconds):>12.1f}")
    for name in ("200", *SHARES, "filtered"):
        counts = before.get(name, 0), after.get(name, 0)
        print(f"{'requests answered ' + name:<44}{counts[0]:>12,}{counts[1]:>12,}{sum(counts):>12,}")
    print()
    for name, text in (
        ("answered_at_kill", "chunks answered well when it was killed"),
        ("kept_at_kill", "of these kept in the cache"),
        ("from_cache", "taken from the cache after the kill"),
        ("lost_in_the_kill", "on their way when it was killed, asked again"),
        ("asked_again_after_kept", "asked again although kept (must be 0)"),
        ("good", "chunks with a good answer"),
        ("chats", "chats"),
        ("missing", "good answers without a chat (must be 0)"),
    ):
        print(f"{text:<56}{figures[name]:>8,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-calls", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--retry-after-seconds", type=float, default=0.1)
    parser.add_argument("--latency-seconds", type=float, default=0.02, help="of the endpoint (default 0.02)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = args.concurrency, args.retry_after_seconds, args.latency_seconds
        figures = measure(args.num_calls, Path(folder), *settings)
    show(args.num_calls, figures)
    if figures["missing"] or figures["asked_again_after_kept"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
