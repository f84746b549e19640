"""Short chats to one deployment: its smoke test, and what is asked of it when no client asks anything."""

import concurrent.futures
import time
from typing import Any

from rollout_target import Address

CONCURRENCY = 4
BUSY_SECONDS = 0.2  # until it is asked again


def smoke_test(address: Address) -> tuple[bool, str, Any]:
    """Whether it passed, what to say of it, and the whole result."""
    from endpoint_checks import smoke_test

    result = smoke_test.run(smoke_test.Target(address.url, address.headers, address.model, address.adapters))
    failed = [check for check in result.checks if not check.passed]
    p50, p95 = (f"{value:.2f} s" if value is not None else "none" for value in (result.p50_seconds, result.p95_seconds))
    said = f"{result.num_requests} requests, {result.num_failed} failed, p50 {p50}, p95 {p95}"
    if failed:
        said = "; ".join(f"{check.name}: {check.detail}" for check in failed)
    return result.passed, said, result


def probe(address: Address, num: int, timeout_seconds: float) -> list[str]:
    """Send ``num`` chats of one token, a few at a time; the reason of each that failed.

    "Too many requests" is asked again: a deployment whose places are all taken is busy until it stays so for
    ``timeout_seconds``, and then it hangs.
    """
    import httpx

    body = {"model": address.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}

    def ask(_: int) -> str | None:
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                answer = client.post(address.url, json=body, headers=address.headers())
            except httpx.HTTPError as error:
                return type(error).__name__
            if answer.status_code != 429 or time.monotonic() > deadline:
                return None if answer.status_code == 200 else f"status {answer.status_code}"
            time.sleep(BUSY_SECONDS)

    with (
        httpx.Client(timeout=timeout_seconds, trust_env=address.url.startswith("https:")) as client,
        concurrent.futures.ThreadPoolExecutor(min(num, CONCURRENCY)) as pool,
    ):
        return [reason for reason in pool.map(ask, range(num)) if reason]
