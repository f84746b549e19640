"""Service drift: what is found, what is left alone, and the statistics against hand-worked values and simulation."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

COMPONENTS = Path(__file__).resolve().parents[2] / "components"
for folder in ("detect_drift", "compare_candidates"):
    if str(COMPONENTS / folder) not in sys.path:
        sys.path.append(str(COMPONENTS / folder))

import block_statistics  # noqa: E402
import drift_settings  # noqa: E402
import service_drift  # noqa: E402
from drift_settings import ServiceDriftSettings  # noqa: E402

SETTINGS = ServiceDriftSettings()


def answer(minute, latency=200.0, tokens=50, status=200, **more):
    stamp = f"2026-11-22T{minute // 60:02}:{minute % 60:02}:00.000Z"
    row = {"timestamp": stamp, "status": status, "latency_ms": latency, "completion_tokens": tokens}
    return row | {"messages": [{"role": "user", "content": "hello"}], "error": None} | more


def window(seed, num=300, slower=1.0, longer=1.0, failing=0.0, status=500):
    rng = np.random.default_rng(seed)
    return [
        answer(minute, float(slower * rng.lognormal(5, 0.4)), int(longer * rng.lognormal(4, 0.5)))
        | ({"status": status, "error": "no"} if rng.random() < failing else {})
        for minute in range(num)
    ]


def found(baseline, current, settings=SETTINGS):
    signal = service_drift.service_drift(baseline, current, settings, seed=0)
    json.dumps([vars(effect) for effect in signal.effects], allow_nan=False)
    return signal, {effect.name for effect in signal.effects if effect.drift}


@pytest.mark.parametrize(
    ("drift", "names"),
    [
        ({"slower": 1.5}, {"latency_p50_milliseconds", "latency_p95_milliseconds"}),
        ({"longer": 2.0}, {"tokens_per_answer"}),
        ({"longer": 0.5}, {"tokens_per_answer"}),
        ({"failing": 0.08}, {"error_fraction"}),
        ({"failing": 0.08, "status": 429}, {"throttled_fraction"}),
        ({"slower": 0.5}, set()),  # faster is no disease
        ({}, set()),
    ],
)
def test_what_got_worse_is_drift(drift, names):
    signal, drifted = found(window(1), window(2, **drift))
    assert drifted == names and signal.verdict == ("drift" if names else "none")
    assert len(signal.reasons) == max(1, len(names)) and all("×" in r or "points" in r for r in signal.reasons if names)


def test_effects_are_those_of_the_rows():
    baseline = [answer(i, latency=float(i + 1), tokens=10) for i in range(200)]
    current = [answer(i, latency=2.0 * (i + 1), tokens=30) for i in range(180)] + [answer(190, status=503)] * 20
    signal, drifted = found(baseline, current)
    of = {effect.name: effect for effect in signal.effects}
    p50, p95 = of["latency_p50_milliseconds"], of["latency_p95_milliseconds"]
    assert (p50.baseline, p50.current, p50.num_current) == (100.5, 181.0, 180)
    assert p95.current == np.percentile(2 * np.arange(1, 181), 95) and p50.change == 181 / 100.5
    assert p50.low < p50.change < p50.high
    tokens = of["tokens_per_answer"]
    assert (tokens.baseline, tokens.current, tokens.change) == (10, 30, 3)
    assert (tokens.low, tokens.high) == pytest.approx((3, 3))  # nothing varies
    errors = of["error_fraction"]
    assert (errors.baseline, errors.current, errors.change, errors.num_current) == (0.0, 0.1, 0.1, 200)
    assert "tokens_per_answer" in drifted
    assert "The tokens per answer went from 10 to 30 (× 3.00, 95 % interval 3.00 to 3.00)." in signal.reasons


def test_half_of_the_requests_refused_is_drift_of_errors_and_no_word_on_latency():
    current = [row | ({"status": 429, "latency_ms": 5.0} if i % 2 else {}) for i, row in enumerate(window(2, 180))]
    signal, drifted = found(window(1), current)
    assert signal.verdict == "drift" and drifted == {"throttled_fraction"}
    assert "The median latency is not judged: 90 answers of a window tell it, too few." in signal.reasons


def test_an_outage_is_drift_though_it_is_one_event():
    current = window(2)
    for row in current[100:150]:
        row["status"] = 503
    signal, drifted = found(window(1), current)
    errors = next(effect for effect in signal.effects if effect.name == "error_fraction")
    assert drifted == {"error_fraction"} and errors.p_value > SETTINGS.alpha
    short = window(2)
    for row in short[100:110]:
        row["status"] = 503
    assert found(window(1), short)[1] == set()


@pytest.mark.parametrize(
    ("baseline", "current", "verdict"),
    [
        ([], window(1), "no_data"),
        (window(1), [], "no_data"),
        (window(1, 99), window(2), "insufficient"),
        ([answer(i, latency=None, tokens=None) for i in range(200)], window(2), "insufficient"),
        ([answer(i, latency=math.nan, tokens=0) for i in range(200)], window(2), "insufficient"),
        ([answer(i) for i in range(200)], [answer(i) for i in range(200)], "none"),
        (window(1, failing=1.0), window(2, failing=1.0), "insufficient"),
        (window(1), window(2, failing=1.0), "drift"),
        ([row | {"timestamp": None} for row in window(1)], window(2), "none"),
    ],
)
def test_verdicts_of_unusual_windows(baseline, current, verdict):
    signal, _ = found(baseline, current)
    assert signal.verdict == verdict and signal.reasons


def test_empty_answers_are_short_ones():
    current = [row | ({"completion_tokens": 0, "output": ""} if i % 2 else {}) for i, row in enumerate(window(2))]
    signal, drifted = found(window(1), current)
    assert drifted == {"tokens_per_answer"}
    tokens = next(effect for effect in signal.effects if effect.name == "tokens_per_answer")
    assert tokens.num_current == 300 and tokens.change == pytest.approx(0.5, abs=0.1)


def test_latencies_in_whole_seconds_are_ties_on_the_threshold():
    """Of many answers of two seconds and few of one the median is two, and none is slower."""
    baseline, current = ([answer(i, 1000.0) for i in range(100)], [answer(i % 1440, 2000.0) for i in range(4000)])
    assert found(baseline, current)[1] == {"latency_p50_milliseconds", "latency_p95_milliseconds"}
    assert found(current, baseline)[0].verdict == "none"


def test_a_share_that_rose_by_just_the_least_change():
    baseline = [answer(i % 1440, status=500 if i % 100 < 5 else 200) for i in range(3000)]
    current = [answer(i % 1440, status=500 if i % 100 < 7 else 200) for i in range(3000)]
    assert found(baseline, current)[1] == {"error_fraction"}  # 0.07 - 0.05 is a little more, 0.08 - 0.06 less
    baseline, current = current, [row | {"status": 500 if i % 100 < 9 else 200} for i, row in enumerate(current)]
    assert found(baseline, current)[1] == {"error_fraction"}


@pytest.mark.parametrize("name", ["InputDriftSettings", "ServiceDriftSettings"])
def test_an_alpha_that_no_permutation_could_reach_is_refused(name):
    with pytest.raises(ValueError, match=r"greater than or equal to 0\.01"):
        getattr(drift_settings, name)(alpha=0.001)


def test_many_rows_alarm_at_a_large_change_only():
    baseline, current = window(1, 20_000), window(2, 20_000, slower=1.06)
    assert found(baseline, current)[0].verdict == "none"
    strict = SETTINGS.model_copy(update={"min_latency_p50_ratio": 1.0})
    assert found(baseline, current, strict)[1] == {"latency_p50_milliseconds"}


def test_slow_hours_are_few_events():
    """Ten-minute spells share their load; a test of single requests (Mann and Whitney's) takes them for drift."""
    rng = np.random.default_rng(0)

    def spells():
        load = np.repeat(rng.lognormal(0, 0.5, 30), 20)
        return [answer(i, float(v)) for i, v in enumerate(load * rng.lognormal(5, 0.2, 600))]

    alarms, naive = 0, 0
    for _ in range(15):
        baseline, current = spells(), spells()
        alarms += found(baseline, current)[0].verdict == "drift"
        latencies = [[row["latency_ms"] for row in rows] for rows in (baseline, current)]
        naive += scipy.stats.mannwhitneyu(*latencies).pvalue < SETTINGS.alpha
    assert alarms <= 1 and naive >= 5


def test_block_test_is_that_of_all_exchanges():
    """Ten blocks a side of one row each: against scipy's permutation test of the same blocks."""
    rng = np.random.default_rng(3)
    before, now = rng.normal(0, 1, 10), rng.normal(0.8, 1, 10)
    assert block_statistics.num_blocks(10) == 10
    for two_sided, alternative in ((True, "two-sided"), (False, "greater")):
        expected = scipy.stats.permutation_test(
            (now, before),
            lambda a, b, axis: scipy.stats.ttest_ind(a, b, axis=axis, equal_var=False).statistic,
            alternative=alternative,
            vectorized=True,
            n_resamples=20_000,
            rng=np.random.default_rng(0),
        ).pvalue
        assert block_statistics.p_value(before, now, 0, two_sided) == pytest.approx(expected, abs=0.02)


def test_a_short_window_against_a_long_baseline():
    """Blocks of ten rows scatter more than those of three hundred, which is no drift."""
    rng = np.random.default_rng(0)
    found = [
        block_statistics.p_value(rng.normal(size=9000), rng.normal(size=100), seed, two_sided=True)
        for seed in range(200)
    ]
    assert 2 <= sum(p <= 0.05 for p in found) <= 19  # 10, and three standard errors on either side


def test_a_small_baseline_that_happens_to_hold_no_rare_error():
    """Of 100 requests of which 3 % fail, one window in twenty holds none; against 3,000 that is no drift."""
    rng = np.random.default_rng(0)
    steady = ((rng.random(100) < 0.03, rng.random(3000) < 0.03) for _ in range(100))
    assert sum(block_statistics.p_value(*both, 0, two_sided=False) <= 0.01 for both in steady) <= 3


def test_intervals():
    values = np.arange(200.0)
    assert block_statistics.block_means(np.arange(7), 3).tolist() == [0.5, 2.5, 5.0]
    # Rows in random order are independent: Wilson's interval, but with t of 20 blocks in place of z.
    flags = np.random.default_rng(0).permutation(values) < 60
    low, high = block_statistics.share_interval(flags)
    t = scipy.stats.t.ppf(0.975, 19)
    wilson = scipy.stats.binomtest(60, 200).proportion_ci(2 * scipy.stats.norm.cdf(t) - 1, method="wilson")
    assert high - low == pytest.approx(wilson.high - wilson.low, rel=0.35)
    assert low <= wilson.low + 1e-9 and wilson.high - 1e-9 <= high
    # In order they are one change in the middle, and 200 rows say little.
    wide = block_statistics.share_interval(np.sort(flags))
    assert wide[1] - wide[0] > 2 * (high - low)
    # No event in 200 independent requests: 0 to t^2 / (n + t^2).
    assert block_statistics.share_interval(np.zeros(200)) == pytest.approx((0, t**2 / (200 + t**2)))
    # By hand: 3 - 1, less and more the root of the squares of the nearer ends' distances.
    assert block_statistics.difference_interval(1, (0.7, 1.4), 3, (2.7, 3.4)) == pytest.approx((1.5, 2.5))


def test_quantile_interval_covers():
    rng = np.random.default_rng(0)
    truth, held = math.exp(scipy.stats.norm.ppf(0.95)), 0
    for _ in range(200):
        low, high = block_statistics.quantile_interval(rng.lognormal(0, 1, 300), 0.95)
        held += low <= truth <= high
    assert held >= 184  # of 95 %, less four standard errors
