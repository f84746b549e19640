"""When a new deployment counts as broken: what it does, held against the limits and against the old deployment."""

from dataclasses import dataclass

from rollout_target import Counts

from slmkit.wilson_interval import wilson

CONFIDENCE_LEVEL = 0.99  # it is looked at every second, and so gets many chances to fail by chance
MIN_FAILURES = 3  # one lost request is an accident

UNNOTICED_SECONDS = 0.1  # a rise of p95 that no reader of an answer feels, and that a busy moment makes by chance


@dataclass(frozen=True)
class Limits:
    """``max_p95_increase_fraction`` is over the old deployment: 1.0 allows twice its time."""

    max_error_fraction: float
    max_p95_increase_fraction: float
    max_p95_seconds: float | None
    min_requests: int


def surely_broken(green: Counts, blue: Counts, limits: Limits) -> str | None:
    """Why there is no need to wait for the end of the step, or None."""
    if green.num_failed < MIN_FAILURES:
        return None
    low, _ = wilson(green.num_failed, green.num_requests, CONFIDENCE_LEVEL)
    failed = f"{green.num_failed} of {green.num_requests} requests failed"
    if low > limits.max_error_fraction:
        return f"{failed}, surely more than max_error_fraction {limits.max_error_fraction:g}"
    if blue.num_requests:
        _, high = wilson(blue.num_failed, blue.num_requests, CONFIDENCE_LEVEL)
        if low > high:
            return f"{failed}, surely more than the {blue.num_failed} of {blue.num_requests} of the old deployment"
    return None


def broken(green: Counts, blue: Counts, limits: Limits) -> str | None:
    """Why the step has failed, now that it is over, or None."""
    if why := surely_broken(green, blue, limits):
        return why
    if green.num_requests < limits.min_requests:
        return None
    if green.num_failed > limits.max_error_fraction * green.num_requests:
        return (
            f"{green.num_failed} of {green.num_requests} requests failed, more than max_error_fraction "
            f"{limits.max_error_fraction:g}"
        )
    if green.p95_seconds is None:
        return None
    if limits.max_p95_seconds is not None and green.p95_seconds > limits.max_p95_seconds:
        return f"p95 is {green.p95_seconds:.2f} s, more than max_p95_seconds {limits.max_p95_seconds:g}"
    if blue.p95_seconds is not None and blue.num_requests >= limits.min_requests:
        most = blue.p95_seconds * (1 + limits.max_p95_increase_fraction)
        if green.p95_seconds > most and green.p95_seconds > blue.p95_seconds + UNNOTICED_SECONDS:
            return (
                f"p95 is {green.p95_seconds:.2f} s, the old deployment's {blue.p95_seconds:.2f} s: more than "
                f"max_p95_increase_fraction {limits.max_p95_increase_fraction:g} allows"
            )
    return None
