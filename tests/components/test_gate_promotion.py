"""gate_promotion: each verdict from numbers worked out by hand, and from simulated evaluations."""

import importlib

import numpy as np
import pytest
import yaml

HASH = "0" * 64


@pytest.fixture(scope="module")
def gate(load_main):
    """The modules of the component."""
    main = load_main("gate_promotion")
    main.rules = importlib.import_module("promotion_rules")
    return main


def score(mean, low=None, high=None):
    return {"mean": mean, "low": mean - 0.05 if low is None else low, "high": mean + 0.05 if high is None else high}


def difference(low, high, middle=None):
    return {"difference": (low + high) / 2 if middle is None else middle, "low": low, "high": high}


def part(low, high, ours=None, num_items=100, **more):
    """A benchmark or a slice where tuned differs from base by low to high."""
    return {
        "num_items": num_items,
        "num_clusters": num_items,
        "means": {"base": score(0.4), "tuned": ours or score(0.5)},
        "differences": {"tuned": difference(low, high)},
    } | more


def comparison(low, high, middle=None, mean=0.6, failed=0.0, latency=(None, None), cost=(None, None), **more):
    """A comparison of tuned with base whose difference has the interval from low to high."""
    found = difference(low, high, middle)

    def candidate(name, mean, p95, cost, failed=0.0):
        return {
            "name": name,
            "scores_sha256": HASH,
            "metrics": {"exact_match": score(mean)},
            "failed_fraction": failed,
            "latency_ms": p95 and {"p50": p95 / 2, "p95": p95, "num_answers": 9},
            "cost_per_1000": cost,
        }

    return {
        "metric": "exact_match",
        "num_items": 200,
        "num_clusters": 50,
        "confidence_level": 0.95,
        "eval_items_sha256": HASH,
        "held_out": {"statement": "Held out from training: documents (200 questions).", "num_items": {}},
        "warnings": [],
        "candidates": [
            candidate("base", mean - found["difference"], latency[0], cost[0]),
            candidate("tuned", mean, latency[1], cost[1], failed),
        ],
        "comparisons": [{"candidate": "tuned", "baseline": "base", "metrics": {"exact_match": found}}],
    } | more


def several(**overall):
    """A comparison on two benchmarks and in two languages."""
    return comparison(
        **{"low": 0.0, "high": 0.1} | overall,
        benchmarks=[
            part(-0.01, 0.05, score(0.5, 0.3, 0.7), benchmark="jcommonsenseqa", metric="accuracy", chance=0.2),
            part(-0.08, 0.04, score(0.5, 0.4, 0.6), benchmark="gsm8k", metric="numeric", chance=None),
        ],
        slices=[
            part(-0.03, 0.05, slice="language", value="ja", num_items=40),
            part(-0.09, -0.06, slice="language", value="ko", num_items=60),
            part(0.0, 0.05, slice="grade", value="7", num_items=50),
        ],
    )


def judged(gate, policy, found, candidate=None):
    """The reasons by a policy in YAML, without a privacy audit."""
    policy = gate.Policy.model_validate(yaml.safe_load(policy))
    found = gate.Comparison.model_validate(found)
    return list(gate.promotion_rules.judge(policy, found, found.pair(candidate)))


def outcomes(reasons):
    return " ".join(reason.outcome for reason in reasons)


RULES = """
superiority: {metric: exact_match, min_difference: 0.05}
floors: [{min_score: 0.5}]
max_failure_fraction: 0.02
min_num_items: 100
max_latency_p95_ratio: 1.5
"""


@pytest.mark.parametrize(
    ("found", "verdict", "expected"),
    [
        # superiority, min_score, max_failure_fraction, min_num_items, max_latency_p95_ratio
        (comparison(0.06, 0.2, latency=(100, 150)), "promote", "pass pass pass pass pass"),
        (comparison(0.05, 0.2, latency=(100, 90)), "inconclusive", "undecided pass pass pass pass"),
        (comparison(-0.2, 0.05, latency=(100, 90)), "reject", "fail pass pass pass pass"),
        (comparison(-0.2, 0.06, latency=(100, 90)), "inconclusive", "undecided pass pass pass pass"),
        (comparison(0.1, 0.2, mean=0.49, latency=(100, 90)), "reject", "pass fail pass pass pass"),
        (comparison(0.1, 0.2, failed=0.03, latency=(100, 90)), "reject", "pass pass fail pass pass"),
        (comparison(0.1, 0.2, latency=(100, 151)), "reject", "pass pass pass pass fail"),
        (comparison(0.1, 0.2, latency=(None, 90)), "inconclusive", "pass pass pass pass undecided"),
        (comparison(0.1, 0.2, num_items=99, latency=(100, 90)), "inconclusive", "pass pass pass undecided pass"),
        (comparison(0.04, 0.2, failed=0.03, latency=(100, 90)), "reject", "undecided pass fail pass pass"),
    ],
)
def test_verdicts(gate, found, verdict, expected):
    reasons = judged(gate, RULES, found)
    assert outcomes(reasons) == expected
    assert gate.promotion_rules.verdict(reasons) == verdict


@pytest.mark.parametrize(
    ("guard", "expected"),
    [
        ("{margin: 0.02}", "pass"),  # 0.0 to 0.1 overall
        ("{benchmark: jcommonsenseqa, margin: 0.02}", "pass"),
        ("{benchmark: jcommonsenseqa, metric: accuracy, margin: 0.01}", "undecided"),  # the lower end is at -0.01
        ("{benchmark: gsm8k, margin: 0.02}", "undecided"),  # -0.08 to 0.04
        ("{benchmark: gsm8k, margin: 0.09}", "pass"),
        ("{slice: {language: ko}, margin: 0.05}", "fail"),  # -0.09 to -0.06
        ("{slice: {language: ko}, margin: 0.1}", "pass"),
        ("{slice: {grade: 7}, margin: 0.1}", "pass"),  # YAML reads a number
    ],
)
def test_guards_by_benchmark_and_slice(gate, guard, expected):
    (reason,) = judged(gate, f"guards: [{guard}]", several())
    assert (reason.rule, reason.outcome) == ("non_inferiority", expected)


def test_all_guards_must_pass_and_superiority_too(gate):
    policy = """
    superiority: {min_difference: 0.05}
    guards: [{benchmark: gsm8k, margin: 0.1}, {slice: {language: ko}, margin: 0.05}]
    """
    reasons = judged(gate, policy, several(low=0.1, high=0.2))
    assert outcomes(reasons) == "pass pass fail"
    assert [reason.where for reason in reasons] == [
        "exact_match",
        "numeric in gsm8k",
        "exact_match in language=ko",
    ]
    assert gate.promotion_rules.verdict(reasons) == "reject"


@pytest.mark.parametrize(
    ("num_clusters", "expected"),
    # Equal answers everywhere. If 2 % had become worse, 189 > 1.96^2 * 0.98 / 0.02 questions would show it.
    [(189, "pass"), (188, "undecided"), (5, "undecided")],
)
def test_few_questions_that_show_nothing_keep_no_margin(gate, num_clusters, expected):
    found = comparison(0.0, 0.0, num_items=num_clusters, num_clusters=num_clusters)
    (reason,) = judged(gate, "guards: [{margin: 0.02}]", found)
    assert reason.outcome == expected


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [
        (1, 1, "undecided"),  # of 50 questions scored 0 or 1: 1.96 * sqrt(0.03 * 0.97 / 50) = 0.047 either way
        (30, 20, "pass"),  # a little better or worse in each: graded scores, whose interval is believed
        (None, None, "pass"),  # nothing is known of them
    ],
)
def test_a_narrow_interval_is_believed_of_graded_scores_only(gate, wins, losses, expected):
    found = comparison(-0.02, 0.02, num_items=50, num_clusters=50)
    found["comparisons"][0]["metrics"]["exact_match"] |= {"num_wins": wins, "num_losses": losses}
    (reason,) = judged(gate, "guards: [{margin: 0.03}]", found)
    assert reason.outcome == expected
    found["slices"] = [part(-0.02, 0.02, slice="language", value="ja", num_items=50)]
    (reason,) = judged(gate, "guards: [{margin: 0.03, slice: {language: ja}}]", found)
    assert reason.outcome == expected


def test_without_an_interval_nothing_is_decided(gate):
    found = comparison(0.2, 0.4)
    found["comparisons"][0]["metrics"]["exact_match"] |= {"low": None, "high": None}
    found["candidates"][1]["metrics"]["exact_match"] |= {"low": None, "high": None}
    reasons = judged(
        gate, "{superiority: {}, guards: [{margin: 0.1}], floors: [{min_score: 0.1, statistic: low}]}", found
    )
    assert outcomes(reasons) == "undecided undecided undecided"
    assert all("one cluster" in reason.text for reason in reasons)


@pytest.mark.parametrize(
    ("floor", "expected"),
    [
        ("{min_score: 0.5}", "pass"),  # mean 0.6, 0.55 to 0.65
        ("{min_score: 0.6, statistic: low}", "undecided"),
        ("{min_score: 0.58, statistic: low}", "undecided"),
        ("{min_score: 0.54, statistic: low}", "pass"),
        ("{min_score: 0.65, statistic: low}", "fail"),
        ("{benchmark: gsm8k, min_score: 0.5}", "pass"),  # 0.4 to 0.6 there
        ("{benchmark: gsm8k, min_score: 0.51}", "fail"),
        ("{benchmark: gsm8k, min_score: 0.39, statistic: low}", "pass"),
    ],
)
def test_floors_by_the_mean_and_by_its_lower_end(gate, floor, expected):
    *_, reason = judged(gate, f"{{guards: [{{margin: 0.5}}], floors: [{floor}]}}", several())
    assert (reason.rule, reason.outcome) == ("min_score", expected)


@pytest.mark.parametrize(("chance", "expected"), [(0.2, "pass"), (0.5, "undecided"), (0.7, "fail")])
def test_above_chance_where_there_is_a_chance(gate, chance, expected):
    found = several()
    found["benchmarks"][0]["chance"] = chance  # against 0.3 to 0.7
    *_, reason = judged(gate, "{guards: [{margin: 0.5}], above_chance: true}", found)
    assert (reason.rule, reason.where, reason.outcome) == ("above_chance", "accuracy in jcommonsenseqa", expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("max_cost_per_1000: 0.3", "pass"),
        ("max_cost_per_1000: 0.29", "fail"),
        ("max_cost_ratio: 0.5", "pass"),  # 0.3 of 0.6
        ("max_cost_ratio: 0.49", "fail"),
        ("max_latency_p95_ms: 90", "pass"),
        ("max_latency_p95_ms: 89", "fail"),
        ("max_latency_p95_ratio: 0.9", "pass"),
        ("max_latency_p95_ratio: 0.89", "fail"),
    ],
)
def test_ceilings_on_cost_and_latency(gate, rule, expected):
    found = comparison(0.0, 0.1, cost=(0.6, 0.3), latency=(100, 90))
    *_, reason = judged(gate, f"{{guards: [{{margin: 0.1}}], {rule}}}", found)
    assert reason.outcome == expected, reason.text
    *_, unknown = judged(gate, f"{{guards: [{{margin: 0.1}}], {rule}}}", comparison(0.0, 0.1, cost=(0.0, None)))
    assert (unknown.outcome, unknown.observed) == ("undecided", None)
    assert "is not known" in unknown.text


@pytest.mark.parametrize(
    ("low", "middle", "high", "num_items", "needed"),
    [
        # The lower half 0.10 is twice the distance 0.05 to the minimum; for 80 % power (1 + 0.8416 / 1.9600)^2 = 2.0432
        # as many: 200 * 4 * 2.0432
        (0.0, 0.10, 0.20, 200, 1635),
        # Below the minimum it is the upper half 0.12 against 0.04: 200 * 9 * 2.0432
        (-0.1, 0.01, 0.13, 200, 3678),
        (0.0, 0.05, 0.10, 200, None),  # exactly at the minimum
        (0.06, 0.10, 0.20, 200, None),  # decided
    ],
)
def test_questions_needed_by_hand(gate, low, middle, high, num_items, needed):
    found = comparison(low, high, middle, num_items=num_items)
    (reason,) = judged(gate, "superiority: {min_difference: 0.05}", found)
    assert reason.num_items_needed == needed


def evaluation(rng, base_rate, tuned_rate, num_items):
    """Right or wrong, for questions in documents of four."""
    values = np.stack([rng.random(num_items) < rate for rate in (base_rate, tuned_rate)], axis=1).astype(float)
    return values, np.arange(num_items) // 4


@pytest.mark.parametrize(
    ("base_rate", "tuned_rate", "num_items", "verdict"),
    [
        (0.0, 0.0, 100, "reject"),
        (0.0, 0.01, 100, "reject"),
        (0.5, 0.3, 400, "reject"),
        (0.4, 0.4, 4000, "reject"),  # with 400 the interval would reach above five points, and say inconclusive
        (0.1, 0.6, 100, "promote"),
        (0.4, 0.6, 400, "promote"),
    ],
)
def test_simulated_evaluations(load_main, gate, base_rate, tuned_rate, num_items, verdict):
    """No effect is rejected, a clear one promoted: in at least 18 of 20 evaluations, and never the other way round."""
    load_main("compare_candidates")
    statistics = importlib.import_module("paired_statistics")
    policy = gate.DEFAULT_POLICY.read_text("utf-8")
    rng = np.random.default_rng(5)
    verdicts = []
    for _ in range(20):
        values, clusters = evaluation(rng, base_rate, tuned_rate, num_items)
        paired = statistics.PairedScores(values, clusters, num_resamples=999, confidence_level=0.95, seed=0)
        found = comparison(0, 0, num_items=num_items, num_clusters=num_items // 4)
        found["comparisons"][0]["metrics"]["exact_match"] = paired.difference(1, 0) | paired.tests([(1, 0)])[0]
        found["candidates"][1]["metrics"]["exact_match"] = paired.mean(1)
        verdicts.append(gate.promotion_rules.verdict(judged(gate, policy, found)))
    opposite = {"reject": "promote", "promote": "reject"}[verdict]
    assert opposite not in verdicts
    assert verdicts.count(verdict) >= 18
