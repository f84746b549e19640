#!/usr/bin/env python
"""Every job of pipelines/jobs submitted by scripts/submit.py to a local workspace, twice: accepted or refused, seconds.

Data and models that the jobs name are registered before, without files; no job runs, since each is canceled at once.
The second time all snapshots are there already, as after a small change.
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "pipelines" / "jobs"
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import submit  # noqa: E402
import workspace_client  # noqa: E402
from localml.workspace import settings  # noqa: E402
from tests.workspace import job_assets  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", metavar="NAME", help="files of pipelines/jobs without .yml (default all)")
    parser.add_argument("--rounds", type=int, choices=[1, 2], default=2)
    args = parser.parse_args(argv)
    files = [JOBS / f"{name}.yml" for name in args.jobs] if args.jobs else sorted(JOBS.glob("*.yml"))
    with tempfile.TemporaryDirectory(prefix="submission-") as folder:
        root = Path(folder)
        if (ROOT / ".local" / "npm").is_dir():  # Azurite, where it is installed already
            (root / "npm").symlink_to(ROOT / ".local" / "npm")
        workspace = [sys.executable, str(ROOT / "scripts" / "workspace.py"), "--root", folder]
        subprocess.run([*workspace, "up"], check=True, stdout=subprocess.DEVNULL)
        try:
            os.environ.update(settings.read(root).variables(root))
            return measure(files, args.rounds)
        finally:
            subprocess.run([*workspace, "down"], check=True, stdout=subprocess.DEVNULL)


def measure(files: list[Path], rounds: int) -> int:
    """Print the table; 1 if a job was refused."""
    names = argparse.Namespace(
        subscription=settings.SUBSCRIPTION, resource_group=settings.RESOURCE_GROUP, workspace_name=settings.WORKSPACE
    )
    client = workspace_client.connect(names)
    workspace_client.connect = lambda args: client
    job_assets.register(client, *files)
    times: list[list[float]] = []
    refused = 0
    print(f"{'job':<32}{'steps':>6}{'first s':>9}{'again s':>9}  refused because")
    for file in files:
        seconds, said = [], ""
        for number in range(1, rounds + 1):
            name, errors = f"{file.stem}-{number}", io.StringIO()
            began = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
                code = submit.main(["--file", str(file), "--name", name])
            seconds.append(time.perf_counter() - began)
            if code == 130:
                raise KeyboardInterrupt
            if code:
                said = errors.getvalue().strip()
                break
            client.jobs.begin_cancel(name)
        refused += bool(said)
        steps = "" if said else str(len(client.jobs.get(name).jobs))
        shown = "".join(f"{second:>9.1f}" for second in seconds)
        print(f"{file.stem:<32}{steps:>6}{shown:<18}  {said}", flush=True)
        if not said:
            times.append(seconds)
    print(f"\n{len(files) - refused} accepted, {refused} refused")
    for what, column in zip(("first", "again"), zip(*times, strict=True), strict=False):
        print(f"{what}: {statistics.median(column):.1f} s a job (median), {max(column):.1f} s at most")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
