"""Before anyone relies on a chat endpoint: what it answers, how it streams, what it refuses, and how fast it is."""

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import httpx

from endpoint_checks import chat_probes
from endpoint_checks.chat_calls import Calls, CheckError, Headers
from slmkit.endpoint_access import on_this_machine

MAX_TOKENS = 16  # of each answer in the load


@dataclass(frozen=True)
class Target:
    """``url`` takes the chat form; ``headers`` may be a function, asked before each request: tokens expire.

    ``adapters`` are other names that the endpoint answers to, each of which is asked.
    """

    url: str
    headers: Mapping[str, str] | Callable[[], Headers | Awaitable[Headers]] = field(default_factory=dict, repr=False)
    model: str | None = None
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Result:
    """``seconds`` has the answered requests under load; without any, p50 and p95 are None."""

    checks: list[Check]
    num_requests: int
    num_failed: int
    p50_seconds: float | None
    p95_seconds: float | None
    requests_per_second: float
    seconds: list[float]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def error_fraction(self) -> float:
        return self.num_failed / self.num_requests


def run(
    target: Target,
    num_requests: int = 20,
    concurrency: int = 4,
    timeout_seconds: float = 60.0,
    *,
    max_error_fraction: float = 0.0,
    max_p95_seconds: float | None = None,
) -> Result:
    """All checks, one after the other, and then ``num_requests`` questions, ``concurrency`` of them at a time."""
    return asyncio.run(_run(target, num_requests, concurrency, timeout_seconds, max_error_fraction, max_p95_seconds))


async def _run(
    target: Target,
    num_requests: int,
    concurrency: int,
    timeout_seconds: float,
    max_error_fraction: float,
    max_p95_seconds: float | None,
) -> Result:
    probes = {
        "chat_schema": chat_probes.chat_schema,
        "streaming": chat_probes.streaming,
        "unicode_ja": chat_probes.unicode_ja,
        "unicode_ko": chat_probes.unicode_ko,
        "malformed_body": chat_probes.malformed_body,
    }
    if target.adapters:
        probes["adapters"] = functools.partial(chat_probes.adapters, names=target.adapters)
    checks = []
    options = {"timeout": timeout_seconds, "trust_env": not on_this_machine(httpx.URL(target.url))}  # where no proxy is
    # A server may close the connection of a request that it refused, which is not for the next request to find.
    async with httpx.AsyncClient(**options, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        calls = Calls(client, target.url, target.headers, target.model)
        for name, probe in probes.items():
            try:
                checks.append(Check(name, True, await probe(calls)))
            except CheckError as failure:
                checks.append(Check(name, False, str(failure)))
    async with httpx.AsyncClient(**options) as client:
        started = time.perf_counter()
        calls = Calls(client, target.url, target.headers, target.model)
        seconds, failures = await _load(calls, num_requests, concurrency)
        elapsed = time.perf_counter() - started

    said = f"{num_requests - len(failures)} of {num_requests} answered, {concurrency} at a time"
    if failures:
        said += f"; the first failure: {failures[0]}"
    checks.append(Check("concurrency", len(failures) / num_requests <= max_error_fraction, said))
    p50, p95 = _quantile(seconds, 0.5), _quantile(seconds, 0.95)
    if max_p95_seconds is not None:
        said = f"p95 {p95:.2f} s, allowed {max_p95_seconds:g} s" if seconds else "nothing was answered"
        checks.append(Check("latency", bool(seconds) and p95 <= max_p95_seconds, said))
    return Result(checks, num_requests, len(failures), p50, p95, len(seconds) / elapsed, seconds)


async def _load(calls: Calls, num_requests: int, concurrency: int) -> tuple[list[float], list[str]]:
    """The seconds of each answered request, and what was wrong with each of the others."""
    seconds, failures = [], []
    numbers = iter(range(num_requests))

    async def client() -> None:
        for number in numbers:
            started = time.perf_counter()
            try:
                await calls.ask(chat_probes.QUESTIONS[number % len(chat_probes.QUESTIONS)], max_tokens=MAX_TOKENS)
            except CheckError as failure:
                failures.append(str(failure))
            else:
                seconds.append(time.perf_counter() - started)

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return seconds, failures


def _quantile(values: list[float], share: float) -> float | None:
    """By the nearest rank: a time that was really seen."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None
