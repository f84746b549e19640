#!/usr/bin/env python
"""Time, memory and scores of the demo, run twice from an empty folder: the second run shows what is reused.

Leave the working tree and the installed packages alone meanwhile: a change makes steps run again.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_SECONDS = 0.1


def measured_run(command: list[str], log: Path) -> tuple[float, float, float, float]:
    """Seconds of a run by the clock and of its CPUs, and the peaks of its process tree in GiB as PSS and as RSS.

    PSS counts a page that processes share once, RSS in each of them. The CPU seconds hardly depend on what else runs.
    """
    peak_pss = peak_rss = 0
    cpu_before, started = cpu_seconds(), time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            pss, rss = memory(process.pid)
            peak_pss, peak_rss = max(peak_pss, pss), max(peak_rss, rss)
            time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(log.read_text(encoding="utf-8") + f"the run ended with exit code {process.returncode}")
    return seconds, cpu_seconds() - cpu_before, peak_pss / 2**30, peak_rss / 2**30


def cpu_seconds() -> float:
    """Of all descendants that have ended and been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def memory(pid: int) -> tuple[int, int]:
    """Bytes of a process and all its descendants, as PSS and as RSS (where there is no PSS, both are RSS)."""
    pss = rss = 0
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0
    for process in tree:
        try:
            info = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has ended since the list was made
        pss += getattr(info, "pss", info.rss)
        rss += info.rss
    return pss, rss


def steps_of(root: Path, job_name: str) -> dict[str, tuple[Path, dict]]:
    """Step -> its folder and record, in the order in which the steps ended."""
    steps = {}
    for link in (root / "jobs" / job_name).glob("*/*"):
        folder = link.resolve()
        while not (folder / "step.json").exists():
            folder = folder.parent
        steps[link.parent.name] = folder, json.loads((folder / "step.json").read_text(encoding="utf-8"))
    return dict(sorted(steps.items(), key=lambda item: (item[1][0] / "step.json").stat().st_mtime))


def output_of(steps: dict[str, tuple[Path, dict]], component: str) -> dict:
    """The JSON that a component has written to the output that is called as what it gives."""
    port = {"compare_candidates": "comparison", "gate_promotion": "decision"}[component]
    folder = next(folder for folder, record in steps.values() if record["component"] == component)
    return json.loads((folder / "outputs" / port).read_text(encoding="utf-8"))


def interval(value: dict, key: str, signed: str = "") -> str:
    low, high = (format(value[end], f"{signed}.3f") if value[end] is not None else "?" for end in ("low", "high"))
    return f"{value[key]:{signed}.3f} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", "-f", default="pipelines/jobs/demo.yml", help="job (default pipelines/jobs/demo.yml)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="handed to scripts/run.py")
    parser.add_argument("--root", type=Path, help="empty folder for the runs, kept (default: made anew and removed)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = (args.root or Path(scratch)).resolve()
        if root.exists() and any(root.iterdir()):
            parser.error(f"--root {root} is not empty: what stands there would be reused")
        root.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "scripts/run.py", "-f", args.file, "--root", str(root)]
        command += [part for setting in args.set for part in ("--set", setting)]
        print(f"{platform.machine()}, {os.cpu_count()} CPUs, load before {os.getloadavg()[0]:.1f}\n")
        print(f"{'run':<10}{'seconds':>9}{'CPU seconds':>13}{'peak GiB (PSS)':>16}{'peak GiB (RSS)':>16}")
        for name in ("first", "second"):
            seconds, cpu, pss, rss = measured_run([*command, "--name", name], root / f"{name}.log")
            print(f"{name:<10}{seconds:9.1f}{cpu:13.1f}{pss:16.2f}{rss:16.2f}", flush=True)
        report(steps_of(root, "first"), steps_of(root, "second"))


def report(first: dict[str, tuple[Path, dict]], second: dict[str, tuple[Path, dict]]) -> None:
    print(f"\n{'step':<32}{'first, s':>10}{'second, s':>11}")
    for step, (_, record) in first.items():
        again = second[step][1]
        seconds = f"{again['seconds']:.1f}" if again["job"] == "second" else "reused"
        print(f"{step:<32}{record['seconds']:10.1f}{seconds:>11}")
    differing = [
        f"{step}.{port}"
        for step, (_, record) in first.items()
        for port, content_hash in record["hashes"].items()
        if second[step][1]["hashes"][port] != content_hash
    ]
    print(f"outputs that differ: {', '.join(differing) or 'none'}")

    comparison, decision = output_of(first, "compare_candidates"), output_of(first, "gate_promotion")
    questions, documents = comparison["num_items"], comparison["num_clusters"]
    print(f"\n{questions} questions on {documents} documents. {comparison['held_out']['statement']}")
    for candidate in comparison["candidates"]:
        means = (f"{metric} {interval(value, 'mean')}" for metric, value in candidate["metrics"].items())
        print(f"{candidate['name']:<10}" + "   ".join(means))
    for pair in comparison["comparisons"]:
        value = pair["metrics"][comparison["metric"]]
        print(
            f"{pair['candidate']} less {pair['baseline']}: {comparison['metric']} "
            f"{interval(value, 'difference', '+')}, {value['test']} p = {value['p_value']:.2g}"
        )
    print(f"verdict: {decision['verdict']}")


if __name__ == "__main__":
    main()
