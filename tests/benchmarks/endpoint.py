#!/usr/bin/env python
"""What the local endpoint costs above the bare server, and how many requests it takes: in turns, side by side.

    python tests/benchmarks/endpoint.py                               # a trivial server: the splitter's own cost
    python tests/benchmarks/endpoint.py --model .local/jobs/demo-.../model     # `transformers serve` as well
    python tests/benchmarks/endpoint.py --model ... --code components/deploy_endpoint/serving   # and score.py
    python tests/benchmarks/endpoint.py --minutes 10                  # the splitter's memory under load

Clients are closed loops over kept connections in a process of their own; each figure is the median over the turns.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import aiohttp  # noqa: E402
import psutil  # noqa: E402

from localml.endpoints import client  # noqa: E402

TRIVIAL = """
import sys
from aiohttp import web
async def score(request):
    await request.read()
    return web.json_response({"object": "chat.completion"})
app = web.Application()
app.router.add_get("/health", score)
app.router.add_post("/v1/chat/completions", score)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""
CHAT = {"messages": [{"role": "user", "content": "Which way is north?"}], "max_tokens": 8, "temperature": 0}


async def load(url: str, num_clients: int, seconds: float) -> list[float]:
    """Ask in ``num_clients`` closed loops; gives the seconds of each request."""
    latencies, ends = [], time.perf_counter() + seconds
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask_on() -> None:
            while (started := time.perf_counter()) < ends:
                async with session.post(url, json=CHAT) as answer:
                    text = await answer.read()
                if answer.status != 200:
                    sys.exit(f"{url}: {answer.status}: {text[:300]!r}")
                latencies.append(time.perf_counter() - started)

        await asyncio.gather(*(ask_on() for _ in range(num_clients)))
    return latencies


class Subject:
    """A server kind behind an endpoint with one and with two instances; its first instance is asked directly, too."""

    def __init__(self, host: client.Host, name: str, server: dict, model: Path, scoring_path: str) -> None:
        self.name = name
        for count in (1, 2):
            path = client.path_of(f"{name}-{count}")
            host.call("PUT", path, {})
            body = {
                "server": server,
                "model": str(model),
                "instance_count": count,
                "environment_variables": {"OMP_NUM_THREADS": "1"},
                "request_settings": {
                    "request_timeout_ms": 180_000,
                    "max_concurrent_requests_per_instance": 64,
                    "max_queue_wait_ms": 180_000,
                },
            }
            host.call("PUT", f"{path}/deployments/blue", body)
        self.urls = {}
        for count in (1, 2):
            path = client.path_of(f"{name}-{count}")
            while (found := host.call("GET", f"{path}/deployments/blue"))["provisioning_state"] == "Creating":
                time.sleep(0.2)
            if found["error"]:
                sys.exit(f"{name}: {found['error']['message']}")
            endpoint = host.call("PUT", f"{path}/traffic", {"traffic": {"blue": 100}})
            if count == 1:
                self.urls["bare"] = f"http://127.0.0.1:{found['instances'][0]['port']}{scoring_path}"
            self.urls[f"splitter, {count} instance{'s' * (count > 1)}"] = endpoint["scoring_uri"]


def compare(subject: Subject, num_turns: int, seconds: float) -> None:
    """Every way in every turn, then the medians."""
    found: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    for _ in range(num_turns):
        for num_clients in (1, 8, 32):
            for way, url in subject.urls.items():
                latencies = sorted(asyncio.run(load(url, num_clients, seconds)))
                p50, p95 = (1000 * latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.95))
                found.setdefault((num_clients, way), []).append((len(latencies) / seconds, p50, p95))
    print(f"\n{subject.name}\n{'clients':>8}  {'way':<24}{'requests/s':>11}{'p50 ms':>9}{'p95 ms':>9}{'p50 more':>10}")
    for (num_clients, way), values in found.items():
        rate, p50, p95 = (statistics.median(column) for column in zip(*values, strict=True))
        pairs = zip(values, found[num_clients, "bare"], strict=True)  # of one turn, so that the machine's load cancels
        more = statistics.median(ours[1] - bare[1] for ours, bare in pairs)
        print(f"{num_clients:>8}  {way:<24}{rate:11.1f}{p50:9.2f}{p95:9.2f}{more:10.2f}")


def watch_memory(subject: Subject, pid: int, minutes: float) -> None:
    """The resident memory of the host under constant load."""
    host = psutil.Process(pid)
    print(f"\n{'minute':>8}{'requests/s':>12}{'RSS MiB':>10}{'open files':>12}")
    for minute in range(max(1, round(minutes * 2))):
        rate = len(asyncio.run(load(subject.urls["splitter, 2 instances"], 8, 30))) / 30
        print(
            f"{(minute + 1) / 2:8.1f}{rate:12.1f}{host.memory_info().rss / 2**20:10.1f}{host.num_fds():12}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model in Hugging Face layout, for real servers")
    parser.add_argument("--code", type=Path, help="the folder of score.py, for the inference server")
    parser.add_argument("--num-turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load for each figure (default 3)")
    parser.add_argument("--minutes", type=float, help="watch the splitter's memory for so long instead")
    args = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "trivial.py").write_text(TRIVIAL, encoding="utf-8")
        client.ensure_host(root)
        try:
            host = client.find_host(root)
            command = {"kind": "command", "command": ["python", str(root / "trivial.py"), "{port}"]}
            trivial = Subject(host, "trivial-server", command, root, "/v1/chat/completions")
            if args.minutes:
                watch_memory(trivial, host.pid, args.minutes)
                return
            compare(trivial, args.num_turns, args.seconds)
            if args.model:
                serve = {"kind": "transformers_serve"}
                subject = Subject(host, "transformers-serve", serve, args.model, "/v1/chat/completions")
                compare(subject, args.num_turns, args.seconds)
            if args.model and args.code:
                server = {"kind": "inference_server", "code": str(args.code.resolve()), "scoring_script": "score.py"}
                compare(Subject(host, "inference-server", server, args.model, "/score"), args.num_turns, args.seconds)
        finally:
            client.stop_host(root, 60)


if __name__ == "__main__":
    main()
