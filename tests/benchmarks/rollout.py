#!/usr/bin/env python
"""What clients see of a rollout that goes wrong: real servers, steady load, a new deployment that breaks on the way.

The new deployment is the scoring script that ships, which begins to answer 500 or to hang, or whose process is killed,
a second after it got its share. Counted are the requests that failed until the traffic was back, how long that took,
and those asked later, of which none may fail.
"""

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = ROOT / "components" / "deploy_endpoint"
sys.path[:0] = [str(folder) for folder in (ROOT, ROOT / "scripts", ROOT / "components" / "_shared", COMPONENT)]

import psutil  # noqa: E402
import rollout_probes  # noqa: E402
import rollout_report  # noqa: E402
from deployment_spec import DeploymentSpec  # noqa: E402
from local_endpoint import LocalEndpoint  # noqa: E402
from rollout import Plan, Rollout, RolloutError  # noqa: E402
from rollout_rules import Limits  # noqa: E402

from localml.endpoints import client  # noqa: E402
from tests.components.steady_load import Load  # noqa: E402

CASES = {
    "500 at 10 %": ("500", 10),
    "500 at 50 %": ("500", 50),
    "SIGKILL at 50 %": ("kill", 50),
    "hangs at 10 %": ("hang", 10),
}
NUM_AFTER = 200  # requests that are looked at once the traffic is back
BREAKING = """

_answer_as_it_ships = answer


def answer(request):
    import time

    how = Path(os.environ["BREAKS"])
    how = how.read_text() if how.exists() else ""
    if how == "hang":
        time.sleep(600)
    if how == "500":
        raise RuntimeError("it breaks on purpose")
    return _answer_as_it_ships(request)
"""


@dataclasses.dataclass(frozen=True)
class BreakingSpec(DeploymentSpec):
    """The deployment as it ships, with another scoring script in its code."""

    breaking_code: Path = Path()
    breaks: Path = Path()

    def identity(self) -> dict[str, str]:
        return super().identity() | {"case": self.breaks.name}

    def local_body(self) -> dict:
        body = super().local_body()
        body["server"]["code"] = str(self.breaking_code)
        body["environment_variables"] = body.get("environment_variables", {}) | {"BREAKS": str(self.breaks)}
        return body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a small model")
    parser.add_argument("--deployment_spec", default="transformers-cpu", help="or onnx-cpu for a quantized one")
    parser.add_argument("--num_clients", type=int, default=4)
    parser.add_argument("--step_seconds", type=float, default=6.0)
    parser.add_argument("--reports", type=Path, help="folder for the report of each case, to look at")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["LOCALML_ENDPOINTS"] = str(client.ensure_host(root))
        host = client.find_host(root)
        family = psutil.Process(host.pid)
        try:
            measure(args, root, host)
        finally:
            processes = [family, *family.children(recursive=True)]
            host.call("POST", "/stop")
            psutil.wait_procs(processes, timeout=30)


def measure(args: argparse.Namespace, root: Path, host: client.Host) -> None:
    code = root / "breaking"
    shutil.copytree(COMPONENT / "serving", code, ignore=shutil.ignore_patterns("__pycache__"))
    with (code / "score.py").open("a", encoding="utf-8") as script:
        script.write(BREAKING)
    plan = Plan((10, 50, 100), 0, args.step_seconds, 120.0, True, Limits(0.01, 9.0, None, 20))
    blue = DeploymentSpec(args.deployment_spec, args.model, "models:/bench/1", "0" * 64, 1, False)
    rollout = Rollout(LocalEndpoint("bench", blue, None), plan, blue.identity(), smoke_test, rollout_probes.probe)
    rollout.run()
    uri = rollout.record.endpoint.scoring_uri
    rows = []
    for name in args.cases:
        how, percent = CASES[name]
        spec = BreakingSpec(
            args.deployment_spec,
            args.model,
            f"models:/bench/{name}",
            "0" * 64,
            1,
            False,
            code,
            root / name.split(" ")[0],
        )
        spec.breaks.unlink(missing_ok=True)
        times = {}

        def say(line: str, times: dict = times) -> None:
            print(line, flush=True)
            if line.startswith("traffic is back"):
                times["back"] = time.monotonic()

        rollout = Rollout(
            LocalEndpoint("bench", spec, None), plan, spec.identity(), smoke_test, rollout_probes.probe, say=say
        )
        breaker = threading.Thread(target=break_it, args=(host, rollout, percent, how, spec.breaks, times), daemon=True)
        with Load(uri, args.num_clients, timeout_seconds=10.0) as load:
            breaker.start()
            try:
                rollout.run()
            except RolloutError as error:
                print(error, flush=True)
            deadline = time.monotonic() + 30.0
            while (
                sum(asked > times["back"] for asked, _, _ in load.answers) < NUM_AFTER and time.monotonic() < deadline
            ):
                time.sleep(0.1)
        rows.append(row(name, load, times))
        if args.reports:
            args.reports.mkdir(parents=True, exist_ok=True)
            page = rollout_report.page("bench", rollout.record, plan, rollout.target)
            (args.reports / f"{name}.html").write_text(page, encoding="utf-8")
    print(f"\n{args.num_clients} clients, {args.deployment_spec}, steps of {args.step_seconds:g} s")
    print("case              requests/s  failed until back  seconds until back  asked after  failed after")
    for cells in rows:
        print("{:<16}  {:>10.1f}  {:>17}  {:>18.1f}  {:>11}  {:>12}".format(*cells))


def smoke_test(address) -> tuple[bool, str, None]:
    """Short: what it finds is measured elsewhere."""
    failed = rollout_probes.probe(address, 4, 30.0)
    return not failed, " ".join(failed), None


def break_it(host: client.Host, rollout: Rollout, percent: int, how: str, breaks: Path, times: dict) -> None:
    while rollout.record.after.live.get("green") != percent:
        time.sleep(0.02)
    time.sleep(1.0)
    times["broke"] = time.monotonic()
    if how == "kill":
        (green,) = host.call("GET", "/onlineEndpoints/bench/deployments/green")["instances"]
        for process in psutil.Process(green["pid"]).children(recursive=True):
            process.kill()
        psutil.Process(green["pid"]).kill()
    else:
        breaks.write_text(how)


def row(name: str, load: Load, times: dict) -> tuple:
    asked = [(at, status) for at, status, _ in load.answers]
    until = [status for at, status in asked if at <= times["back"]]
    after = [status for at, status in asked if at > times["back"]]
    rate = len(asked) / (asked[-1][0] - asked[0][0])
    failed = [sum(status != 200 for status in part) for part in (until, after)]
    print(json.dumps({"statuses after": {str(status): after.count(status) for status in set(after)}}))
    return name, rate, failed[0], times["back"] - times["broke"], len(after), failed[1]


if __name__ == "__main__":
    main()
