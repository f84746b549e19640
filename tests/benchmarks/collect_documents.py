#!/usr/bin/env python
"""Peak memory and speed of collect_documents over growing input: memory stays flat, time grows with the bytes."""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = ROOT / "components" / "collect_documents" / "main.py"
MIB = 1 << 20
WORDS = [
    "hall library booking room ferry garden river street opens closes monday saturday window deposit",
    "会館は 予約を 窓口で 受け付けます。 月曜日に 図書室の 休館日は 利用料を 市民なら どなたでも",
    "회관은 예약을 창구에서 받습니다. 월요일에 도서실의 휴관일은 이용료를 시민이라면 누구나",
]


def rows() -> Iterator[tuple[int, str, str]]:
    """Distinct rows of about 120 bytes, most in English, every fourth in Japanese or Korean."""
    draw = random.Random(0)
    languages = [words.split() for words in WORDS]
    for number in count():
        words = languages[(0, 0, 1, 0, 0, 0, 2, 0)[number % 8]]
        yield number, " ".join(draw.choices(words, k=2)), " ".join(draw.choices(words, k=12 if number % 4 else 7))


def write_csv(folder: Path, num_bytes: int) -> None:
    lines = (f"{number},{name},{note}\n" for number, name, note in rows())
    write(folder / "rows.csv", num_bytes, "Id,Name,Note\n", lines)


def write_jsonl(folder: Path, num_bytes: int) -> None:
    lines = (f'{{"id": {number}, "title": "{name}", "text": "{number} {note}"}}\n' for number, name, note in rows())
    write(folder / "rows.jsonl", num_bytes, "", lines)


def write_txt(folder: Path, num_bytes: int) -> None:
    write(folder / "text.txt", num_bytes, "", (f"{note}\n" + "\n" * (number % 5 == 0) for number, _, note in rows()))


def write_small_files(folder: Path, num_bytes: int) -> None:
    """Files of 8 KiB, a thousand in a subfolder."""
    lines = (f"{number} {note}\n" for number, _, note in rows())
    for number in range(num_bytes >> 13):
        path = folder / f"{number // 1000:04}" / f"{number}.md"
        path.parent.mkdir(exist_ok=True)
        write(path, 1 << 13, f"# Note {number}\n", lines)


def write(path: Path, num_bytes: int, start: str, lines: Iterator[str]) -> None:
    with path.open("wb") as file:
        file.write(start.encode())
        while file.tell() < num_bytes:
            file.write(next(lines).encode())


FORMS: dict[str, Callable[[Path, int], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "txt": write_txt,
    "files": write_small_files,
}


def measure(raw: Path, out: Path) -> tuple[float, float, int]:
    """Seconds, peak resident MiB and documents of a run in a process of its own."""
    command = [sys.executable, str(COMPONENT), "--raw_data", str(raw)]
    for name in ("documents", "held_out_documents", "manifest", "quarantine"):
        command += [f"--{name}", str(out / name)]
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT / "components" / "_shared")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"collect_documents failed: exit status {os.waitstatus_to_exitcode(status)}")
    with (out / "documents").open("rb") as file:
        num_documents = sum(1 for _ in file)
    return seconds, usage.ru_maxrss / 1024, num_documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024], help="in MiB (default 64 256 1024)")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["csv", "jsonl"])
    parser.add_argument(
        "--folder", type=Path, help="where to write the temporary files; needs 4 times the largest size"
    )
    args = parser.parse_args()
    print(f"{'form':<8}{'input MiB':>10}{'documents':>12}{'peak MiB':>10}{'seconds':>9}{'MB/s':>7}")
    for form in args.forms:
        for size in args.sizes:
            with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
                raw = Path(temporary, "raw")
                raw.mkdir()
                FORMS[form](raw, size * MIB)
                seconds, peak, num_documents = measure(raw, Path(temporary, "out"))
            speed = size * MIB / seconds / 1e6
            print(f"{form:<8}{size:>10}{num_documents:>12}{peak:>10.0f}{seconds:>9.1f}{speed:>7.1f}", flush=True)


if __name__ == "__main__":
    main()
