"""Wilson's interval of a share, which holds near 0 and 1 and for few items (Wilson 1927)."""

import math
import statistics


def wilson(num_successes: float, num: float, confidence_level: float = 0.95) -> tuple[float, float]:
    """The lower and the upper end of the share of successes among ``num`` independent items."""
    share, z = num_successes / num, statistics.NormalDist().inv_cdf((1 + confidence_level) / 2)
    center = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z / (1 + z**2 / num) * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    return max(0.0, center - half), min(1.0, center + half)
