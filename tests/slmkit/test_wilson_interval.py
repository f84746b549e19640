"""The interval is that of scipy, at the ends of its range too."""

import pytest
import scipy.stats

from slmkit.wilson_interval import wilson


@pytest.mark.parametrize(("successes", "num", "level"), [(0, 5, 0.95), (5, 5, 0.9), (1, 10, 0.95), (60, 1000, 0.99)])
def test_as_scipy_has_it(successes, num, level):
    expected = scipy.stats.binomtest(successes, num).proportion_ci(level, method="wilson")
    assert wilson(successes, num, level) == pytest.approx(expected)
