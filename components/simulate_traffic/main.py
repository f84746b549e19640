"""Ask a deployed chat endpoint the questions of eval items as its users would."""

import asyncio
import collections
import dataclasses
import datetime
import itertools
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prompt_style

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from slmkit.endpoint_access import DeployedEndpoint

SPEC = Path(__file__).with_name("component.yml")
MARGIN_SECONDS = 0.5  # after the last answer, for the endpoint to log it within the period
Chat = list[dict[str, Any]]


@dataclass(frozen=True)
class Args:
    endpoint: Path
    eval_items: Path
    period: Path
    num_requests: int = 200
    concurrency: int = 2
    style: str = "plain"
    max_new_tokens: int = 64
    timeout_seconds: float = 60.0
    max_error_fraction: float = 0.05
    seed: int = 0
    requests_per_second: float | None = None
    after: Path | None = None


def run(args: Args) -> dict[str, float]:
    from slmkit import endpoint_access

    endpoint = endpoint_access.read_deployed(args.endpoint)
    chats = read_chats(args.eval_items, args.style)
    start = datetime.datetime.now(datetime.UTC)
    seconds, outcomes = asyncio.run(send(endpoint, schedule(chats, args), args))
    time.sleep(MARGIN_SECONDS)
    end = datetime.datetime.now(datetime.UTC)

    num_failed = args.num_requests - outcomes["200"]
    content = {
        "start": start.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "end": end.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "num_requests": args.num_requests,
        "num_failed": num_failed,
        "outcomes": dict(outcomes.most_common()),
    }
    with records.whole_file(args.period) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    p95 = sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1] if seconds else None
    metrics = {
        "traffic/num_requests": float(args.num_requests),
        "traffic/error_fraction": num_failed / args.num_requests,
        "traffic/requests_per_second": args.num_requests / (end - start).total_seconds(),
        **({"traffic/p95_seconds": p95} if p95 is not None else {}),
    }
    tracking.log_metrics(metrics)
    lineage.write(dataclasses.replace(args, after=None), SPEC)  # which only says when
    said = f"p95 {p95:.2f} s" if p95 is not None else "none answered"
    print(f"{args.num_requests} requests in {(end - start).total_seconds():.1f} s, {num_failed} failed, {said}")
    if num_failed / args.num_requests > args.max_error_fraction:  # 0.29 * 100 is below 29
        why = next(outcome for outcome, _ in outcomes.most_common() if outcome != "200")
        raise UserError(
            f"{endpoint.scoring_uri}: {num_failed} of {args.num_requests} requests failed, mostly with {why}, which "
            f"is more than max_error_fraction={args.max_error_fraction:g}; is the endpoint running, and large enough?"
        )
    return metrics


def read_chats(path: Path, style: str) -> list[Chat]:
    chats = []
    for item, source, line in records.read_located(path):
        try:
            records.check_chat(item)
        except ValueError as error:
            raise UserError(f"{source}:{line}: {error}") from None
        chats.append(prompt_style.reworded(item["messages"], style))
    if not chats:
        raise UserError(f"{path}: no eval items, so there is nothing to ask")
    return chats


def schedule(chats: list[Chat], args: Args) -> Iterator[tuple[float, Chat]]:
    """When each chat is asked, in seconds from the start: every item once before any comes again."""
    generator = random.Random(args.seed)
    rounds = (generator.sample(chats, len(chats)) for _ in itertools.count())
    arrival = 0.0
    for chat in itertools.islice(itertools.chain.from_iterable(rounds), args.num_requests):
        yield arrival, chat
        arrival += generator.expovariate(args.requests_per_second) if args.requests_per_second else 0.0


async def send(
    endpoint: "DeployedEndpoint", requests: Iterator[tuple[float, Chat]], args: Args
) -> tuple[list[float], collections.Counter[str]]:
    """The seconds of each answered request, and how many ended with which status or failure."""
    import httpx

    from slmkit import endpoint_access

    url = endpoint.scoring_uri
    sign_in = endpoint_access.sign_in(url, endpoint.auth)
    options = {"model": endpoint.model, "max_tokens": args.max_new_tokens, "temperature": 0}
    seconds, outcomes = [], collections.Counter()
    limits = httpx.Limits(max_connections=args.concurrency)
    trust_env = not endpoint_access.on_this_machine(httpx.URL(url))  # where no proxy reaches
    async with httpx.AsyncClient(timeout=args.timeout_seconds, limits=limits, trust_env=trust_env) as client:
        started = time.perf_counter()

        async def user() -> None:
            for arrival, chat in requests:
                await asyncio.sleep(max(0.0, started + arrival - time.perf_counter()))
                headers = await sign_in.headers() if sign_in else {}
                asked = time.perf_counter()
                try:
                    async with asyncio.timeout(args.timeout_seconds):  # httpx's own begins anew with each byte
                        answer = await client.post(url, json={"messages": chat, **options}, headers=headers)
                except (httpx.HTTPError, TimeoutError) as error:
                    outcomes[type(error).__name__] += 1
                    continue
                outcomes[str(answer.status_code)] += 1
                if answer.status_code == 200:
                    seconds.append(time.perf_counter() - asked)

        await asyncio.gather(*(user() for _ in range(args.concurrency)))
    return seconds, outcomes


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
