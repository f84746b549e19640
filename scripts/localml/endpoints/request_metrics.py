"""Counts and latencies of the last minutes, in memory that is taken at the start and never grows."""

import math
import time
from array import array
from collections.abc import Callable

HORIZON_SECONDS = 600
_STEP_SECONDS = 0.5
_NUM_STEPS = int(HORIZON_SECONDS / _STEP_SECONDS)
_SMALLEST_SECONDS = 0.0001
_GROWTH = math.log(1.07)  # between one bin and the next: a latency is known to within 3.5 percent
_NUM_BINS = math.ceil(math.log(600 / _SMALLEST_SECONDS) / _GROWTH)
_MOST = 2**16 - 1


class RequestMetrics:
    """A ring of half seconds, each with its counts and a histogram of latencies."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._steps = array("q", [-1]) * _NUM_STEPS  # which half second a place in the ring holds
        self._requests, self._failed, self._client_errors = (array("L", [0]) * _NUM_STEPS for _ in range(3))
        self._latencies = [array("H", [0]) * _NUM_BINS for _ in range(_NUM_STEPS)]

    def record(self, seconds: float, status: int) -> None:
        """Count a request that has ended, by how long it took and the status that the client saw."""
        step = int(self._clock() / _STEP_SECONDS)
        place = step % _NUM_STEPS
        if self._steps[place] != step:
            self._steps[place] = step
            self._requests[place] = self._failed[place] = self._client_errors[place] = 0
            self._latencies[place] = array("H", [0]) * _NUM_BINS
        self._requests[place] += 1
        if status >= 500:
            self._failed[place] += 1
        elif status >= 400:
            self._client_errors[place] += 1
        else:
            number = int(math.log(max(seconds, _SMALLEST_SECONDS) / _SMALLEST_SECONDS) / _GROWTH)
            number = min(number, _NUM_BINS - 1)
            self._latencies[place][number] = min(_MOST, self._latencies[place][number] + 1)

    def summary(self, seconds: float) -> dict[str, float | int | None]:
        """The last ``seconds``: counts, rate, and percentiles of the requests that succeeded (None without any).

        Whole steps alone, so that it never reaches further back: what came before a change is no evidence of it.
        """
        now = self._clock()
        seconds = min(seconds, HORIZON_SECONDS)
        last = int(now / _STEP_SECONDS)
        steps = range(last - max(1, int(seconds / _STEP_SECONDS)) + 1, last + 1)
        places = [step % _NUM_STEPS for step in steps if self._steps[step % _NUM_STEPS] == step]
        latencies = [sum(counts) for counts in zip(*(self._latencies[place] for place in places), strict=True)]
        num_requests = sum(self._requests[place] for place in places)
        covered = max(_STEP_SECONDS, min(len(steps) * _STEP_SECONDS, now - self._started))
        return {
            "num_requests": num_requests,
            "num_failed": sum(self._failed[place] for place in places),
            "num_client_errors": sum(self._client_errors[place] for place in places),
            "p50_milliseconds": _percentile(latencies, 0.50),
            "p95_milliseconds": _percentile(latencies, 0.95),
            "requests_per_second": round(num_requests / covered, 3),
        }


def _percentile(latencies: list[int], share: float) -> float | None:
    """By nearest rank, as the middle of the bin that it falls into."""
    rank = math.ceil(share * sum(latencies))
    if not rank:
        return None
    for number, count in enumerate(latencies):
        rank -= count
        if rank <= 0:
            return round(1000 * _SMALLEST_SECONDS * math.exp(_GROWTH * (number + 0.5)), 3)
    return None
