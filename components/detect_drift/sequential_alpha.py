"""How much of the false alarms allowed over a schedule of looks at one baseline each look may spend.

The spending functions are those of Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika
70(3), 1983, 659-663: one like O'Brien and Fleming's boundary, one like Pocock's. Their boundaries follow from data that
add up from look to look. Here each look asks the same canaries anew, and how the looks hang together is not known; so
each one is tested at the alpha that it adds, and by Bonferroni's inequality the false alarms of the whole schedule stay
within alpha, however the looks hang together.

After the last scheduled look the schedule starts anew with the whole alpha, because a monitor that had none left would
be blind. A baseline that is watched for two schedules may so raise false alarms of twice alpha in all.
"""

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drift_settings import AlphaSpending


def spent(fraction: float, looks: "AlphaSpending") -> float:
    """The alpha that is spent when this fraction of the schedule is over."""
    if fraction <= 0:
        return 0.0
    if looks.spending == "pocock":
        return looks.alpha * math.log(1 + (math.e - 1) * fraction)
    z = -statistics.NormalDist().inv_cdf(looks.alpha / 2)
    return math.erfc(z / math.sqrt(2 * fraction))  # both tails beyond z / sqrt(fraction)


def position(look: int, looks: "AlphaSpending") -> int:
    """The number, from 1, of a look in its schedule; ``look`` counts on from the baseline."""
    if look < 1:
        raise ValueError(f"look {look}: the first look at a baseline is 1")
    return (look - 1) % looks.num_looks + 1


def level(look: int, looks: "AlphaSpending") -> float:
    """The alpha that this look may spend."""
    place = position(look, looks)
    return spent(place / looks.num_looks, looks) - spent((place - 1) / looks.num_looks, looks)
