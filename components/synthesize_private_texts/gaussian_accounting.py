"""Exact accounting of the Gaussian mechanism: mu-GDP (Dong, Roth and Su 2019) and its (epsilon, delta).

A histogram to which noise N(0, sigma^2) is added is mu-GDP with mu = sensitivity / sigma; mechanisms compose to
sqrt(sum of mu^2). A mu-GDP mechanism is (epsilon, delta)-private exactly for
delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) (also Balle and Wang 2018).
"""

import math

SENSITIVITY = 1.0  # L2, of one vote that comes or goes
REPLACE_SENSITIVITY = math.sqrt(2)  # of one vote that moves
_STEPS = 200  # bisection ends at the precision of a float before


def mu_of(rounds_and_sigmas: list[tuple[int, float]]) -> float:
    """The mu of all rounds together."""
    return SENSITIVITY * math.sqrt(sum(rounds / sigma**2 for rounds, sigma in rounds_and_sigmas))


def log_delta(epsilon: float, mu: float) -> float:
    """The logarithm of delta, in logarithms throughout: e^epsilon overflows and the tails underflow."""
    from scipy.special import log_ndtr

    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    difference = second - first  # below 0
    return first + math.log(-math.expm1(difference)) if difference < 0 else -math.inf


def epsilon_of(mu: float, delta: float) -> float:
    """The least epsilon at delta; rounded up, never down."""
    if mu == 0:
        return 0.0
    low, high, wanted = 0.0, 1.0, math.log(delta)
    if log_delta(0.0, mu) <= wanted:
        return 0.0
    while log_delta(high, mu) > wanted:
        high *= 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if log_delta(middle, mu) > wanted else (low, middle)
    return high


def sigma_for(epsilon: float, delta: float, num_rounds: int) -> float:
    """The least noise whose rounds together are (epsilon, delta)-private; rounded up, never down."""
    low, high, wanted = 0.0, 1.0, math.log(delta)  # of mu
    while log_delta(epsilon, high) <= wanted:
        high *= 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if middle and log_delta(epsilon, middle) <= wanted else (low, middle)
        if middle in (0.0, high) and high - low < 1e-15 * high:
            break
    return SENSITIVITY * math.sqrt(num_rounds) / low
