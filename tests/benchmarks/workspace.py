"""How fast a local workspace takes jobs: 50 concurrent submissions, again and again, and what becomes of them."""

import argparse
import concurrent.futures
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from localml.workspace import settings  # noqa: E402
from localml.workspace.workspace_api import SCOPE  # noqa: E402

# A job that is accepted and fails at once where it is begun: what is measured is how jobs are taken.
JOB = {"properties": {"jobType": "Pipeline", "experimentName": "benchmark", "jobs": {}, "inputs": {}, "outputs": {}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50, help="submitted at once (default 50)")
    parser.add_argument("--rounds", type=int, default=3, help="of the same jobs (default 3)")
    parser.add_argument("--root", type=Path, help="of a workspace that runs; default: a new one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.root or Path(folder)
        if not args.root:
            if (ROOT / ".local" / "npm").exists():
                (root / "npm").symlink_to(ROOT / ".local" / "npm")
            _workspace(root, "up")
        try:
            measure(root, args.jobs, args.rounds)
        finally:
            if not args.root:
                _workspace(root, "down")


def _workspace(root: Path, command: str) -> None:
    script = ROOT / "scripts" / "workspace.py"
    subprocess.run([sys.executable, str(script), "--root", str(root), command], check=True, capture_output=True)


def measure(root: Path, jobs: int, rounds: int) -> None:
    known = settings.read(root)
    session = requests.Session()
    session.verify = str(settings.authority(root))
    session.trust_env = False
    header = {"X-IDENTITY-HEADER": known.secret}
    token = session.get(f"{known.url}/identity/token", params={"resource": known.url}, headers=header).json()
    session.headers["Authorization"] = f"Bearer {token['access_token']}"
    run = f"{int(time.time())}"
    names = [f"benchmark-{run}-{number}" for number in range(jobs)]

    def submit(name: str) -> tuple[int, float]:
        started = time.perf_counter()
        answer = session.put(f"{known.url}{SCOPE}/jobs/{name}", json=JOB)
        return answer.status_code, time.perf_counter() - started

    print(f"{'round':>5} {'accepted':>8} {'median ms':>9} {'worst ms':>8} {'all s':>6}")
    for number in range(1, rounds + 1):
        started = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(jobs) as at_once:
            answers = list(at_once.map(submit, names))
        took = time.perf_counter() - started
        accepted = sum(status == 201 for status, _ in answers)
        seconds = [each for _, each in answers]
        row = (statistics.median(seconds) * 1000, max(seconds) * 1000, took)
        print(f"{number:>5} {accepted:>8} {row[0]:>9.0f} {row[1]:>8.0f} {row[2]:>6.2f}")
    listed: list[str] = []
    address: str | None = f"{known.url}{SCOPE}/jobs"
    while address:
        page = session.get(address).json()
        listed += [job["name"] for job in page["value"] if job["name"].startswith(f"benchmark-{run}-")]
        address = page.get("nextLink")
    for name in names:
        session.post(f"{known.url}{SCOPE}/jobs/{name}/cancel")
    print(f"jobs in the workspace: {len(listed)}, of {jobs} names: {len(set(listed))}")


if __name__ == "__main__":
    main()
