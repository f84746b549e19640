"""detect_drift's alpha over a schedule of looks, against the values of Lan and DeMets' functions."""

import importlib
import math

import pytest
import scipy.stats


@pytest.fixture(scope="module")
def sequential_alpha(load_main):
    load_main("detect_drift")
    return importlib.import_module("sequential_alpha")


@pytest.fixture(scope="module")
def looks(sequential_alpha):
    spending = importlib.import_module("drift_settings").AlphaSpending
    return lambda **values: spending(**values)


@pytest.mark.parametrize(
    ("spending", "spent"),
    [
        # 2 - 2 * Phi(1.959964 / sqrt(t)) at a quarter, a half and the whole: of 3.919928, 2.771808 and 1.959964
        ("obrien_fleming", [0.0000886, 0.0055746, 0.05]),
        # 0.05 * ln(1 + 1.718282 * t): ln(1.4295705), ln(1.859141), ln(e)
        ("pocock", [0.0178687, 0.0310057, 0.05]),
    ],
)
def test_what_is_spent(sequential_alpha, looks, spending, spent):
    found = [sequential_alpha.spent(part, looks(spending=spending)) for part in (0.25, 0.5, 1)]
    assert found == pytest.approx(spent, abs=1e-7)
    assert sequential_alpha.spent(0, looks(spending=spending)) == 0


def test_the_normal_tails_are_those_of_scipy(sequential_alpha, looks):
    for fraction in (0.1, 0.3, 0.9):
        tail = 2 * scipy.stats.norm.sf(scipy.stats.norm.isf(0.01) / math.sqrt(fraction))
        asked = looks(alpha=0.02, spending="obrien_fleming")
        assert sequential_alpha.spent(fraction, asked) == pytest.approx(tail, rel=1e-9)


@pytest.mark.parametrize("spending", ["pocock", "obrien_fleming"])
@pytest.mark.parametrize("num_looks", [1, 2, 12, 52])
def test_the_looks_of_a_schedule_spend_alpha_together_and_the_next_schedule_as_much_again(
    sequential_alpha, looks, spending, num_looks
):
    schedule = looks(num_looks=num_looks, spending=spending)
    levels = [sequential_alpha.level(look, schedule) for look in range(1, 2 * num_looks + 1)]
    assert sum(levels[:num_looks]) == pytest.approx(0.05)
    assert levels[num_looks:] == levels[:num_looks]
    assert all(0 < level < 0.05 + 1e-9 for level in levels)


def test_obrien_fleming_keeps_most_for_the_last_look_and_pocock_does_not(sequential_alpha, looks):
    last = {kind: sequential_alpha.level(4, looks(num_looks=4, spending=kind)) for kind in ("pocock", "obrien_fleming")}
    assert last["obrien_fleming"] > 0.025 > 0.0125 > last["pocock"]


def test_there_is_no_look_before_the_first(sequential_alpha, looks):
    with pytest.raises(ValueError, match="look 0"):
        sequential_alpha.level(0, looks())
