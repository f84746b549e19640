#!/usr/bin/env python
"""What a step costs above its bare process: scripts/run.py beside kfp's SubprocessRunner, in turns.

The step is empty: it writes its output and ends. Both runners run a chain of such steps, nothing is reused, and both
are timed from outside, by when they say that a step has ended: a step's time counts from the end of the step before
it, so that everything between two steps is in it. The first step of a chain belongs to the start-up. kfp cannot share
an environment with azure-ai-ml, so it gets a venv of its own; as it comes, it calls pip in every step, so that it is
measured without that as well (install_kfp_package=False).
"""

import argparse
import dataclasses
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from statistics import median

BENCHMARKS = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCHMARKS.parent / "localml"))

from conftest import Toys  # noqa: E402

KFP = "kfp==2.17.0"
STEP_ENDED = re.compile(r"✔ step\d+ +finished|Task .*finished with status .*SUCCESS")


@dataclasses.dataclass
class Runner:
    """A way to run a chain of empty steps, with the seconds that were taken, a list a turn."""

    name: str
    python: Path
    command: list[str]
    bare: list[list[float]] = dataclasses.field(default_factory=list)
    steps: list[list[float]] = dataclasses.field(default_factory=list)
    startups: list[float] = dataclasses.field(default_factory=list)
    closings: list[float] = dataclasses.field(default_factory=list)

    def take_turn(self, folder: Path, num_steps: int) -> None:
        """Time the bare process ``num_steps`` times and then a chain of one step more."""
        self.bare.append([self._bare_process(folder) for _ in range(num_steps)])
        path = f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"
        started = time.perf_counter()
        with subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
        ) as process:
            lines = [(time.perf_counter(), line) for line in process.stdout]
        ended = time.perf_counter()
        ends = [moment for moment, line in lines if STEP_ENDED.search(line)]
        if process.returncode or len(ends) != num_steps + 1:
            sys.exit("".join(line for _, line in lines[-20:]) + f"{self.name}: only {len(ends)} steps ended")
        self.startups.append(ends[0] - started)
        self.steps.append([end - before for before, end in itertools.pairwise(ends)])
        self.closings.append(ended - ends[-1])

    def _bare_process(self, folder: Path) -> float:
        command = [self.python, folder / "empty_step" / "main.py"]
        started = time.perf_counter()
        subprocess.run([*command, "--text", folder / "start.txt", "--out", folder / "out"], check=True)
        return time.perf_counter() - started

    def overhead(self, turn: int | None = None) -> float:
        """Median step less median bare process, over all turns or in one."""
        turns = slice(None) if turn is None else slice(turn, turn + 1)
        return median(flat(self.steps[turns])) - median(flat(self.bare[turns]))


def flat(turns: list[list[float]]) -> list[float]:
    return list(itertools.chain.from_iterable(turns))


def our_runner(folder: Path, num_steps: int) -> Runner:
    """scripts/run.py with a chain of toy components."""
    toys = Toys(folder, folder / "local")
    component = toys.component("empty_step", "pathlib.Path(args.out).write_text('')", {"text": "text"})
    (folder / "start.txt").write_text("")
    jobs, text = {}, {"type": "uri_file", "path": str(folder / "start.txt")}
    for number in range(num_steps):
        jobs[f"step{number}"] = {"component": component, "inputs": {"text": text}}
        text = f"${{{{parent.jobs.step{number}.outputs.out}}}}"
    return Runner("run.py", Path(sys.executable), toys.command(toys.job(jobs), "--force-rerun"))


def kfp_runners(environment: Path, folder: Path, num_steps: int) -> list[Runner]:
    """kfp as quick as it can be and as it comes; none where it cannot be installed."""
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", KFP]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip does not say why"])[-1]
        print(f"{KFP} cannot be installed, so ours stands alone: {reason}")
        return []
    chain = [str(python), str(BENCHMARKS / "kfp_chain.py"), str(num_steps), str(folder / "kfp_runs")]
    return [Runner("kfp, no pip", python, chain), Runner("kfp", python, [*chain, "--install-kfp-package"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=5, help="steps to time in a turn (default 5)")
    parser.add_argument("--num-turns", type=int, default=4, help="turns of each runner (default 4)")
    parser.add_argument("--kfp-venv", type=Path, help="folder of kfp's venv, kept (default: made anew and removed)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours = our_runner(folder, args.num_steps + 1)
        others = kfp_runners((args.kfp_venv or folder / "kfp").absolute(), folder, args.num_steps + 1)
        subprocess.run(ours.command, check=True, capture_output=True)  # makes the MLflow store, which is no step's cost
        for _ in range(args.num_turns):
            for runner in [ours, *others]:
                runner.take_turn(folder, args.num_steps)
    report([ours, *others])


def report(runners: list[Runner]) -> None:
    """Print all figures; the first runner is the one that the others are compared with."""
    ours, *others = runners
    print(f"{KFP}, Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'seconds':<40}{'n':>4}{'min':>9}{'median':>9}{'max':>9}")
    for runner in runners:
        for what, values in (
            ("bare process", flat(runner.bare)),
            ("a step", flat(runner.steps)),
            ("start-up with first step", runner.startups),
            ("from last step to exit", runner.closings),
        ):
            print(
                f"{runner.name + ': ' + what:<40}{len(values):>4}"
                f"{min(values):9.3f}{median(values):9.3f}{max(values):9.3f}"
            )
    print("\noverhead: median step less median bare process, seconds" + " (times ours)" * bool(others))
    for turn in [*range(len(ours.steps)), None]:
        cells = [f"{ours.name} {ours.overhead(turn):.3f}"]
        cells += [f"{r.name} {r.overhead(turn):.3f} ({r.overhead(turn) / ours.overhead(turn):.2f})" for r in others]
        print(f"  {'all turns' if turn is None else f'turn {turn + 1}':<12}" + "   ".join(cells))


if __name__ == "__main__":
    main()
