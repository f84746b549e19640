"""The statistics of compare_candidates against references worked out elsewhere."""

import importlib
import itertools

import numpy as np
import pytest
import scipy.stats


@pytest.fixture(scope="module")
def stats(load_main):
    load_main("compare_candidates")
    return importlib.import_module("paired_statistics")


@pytest.fixture(scope="module")
def no_difference(stats):
    return importlib.import_module("no_difference")


@pytest.fixture(scope="module")
def cluster_draws(stats):
    return importlib.import_module("cluster_draws")


def paired(stats, values, clusters=None, num_resamples=9999, confidence_level=0.95, seed=0, **more):
    values = np.asarray(values, float)
    clusters = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    options = {"num_resamples": num_resamples, "confidence_level": confidence_level, "seed": seed}
    return stats.PairedScores(values, clusters, **options, **more)


def p_of(no_difference, sums, sizes=None, num_draws=9999, seed=(0,)):
    sums = np.asarray(sums, float)
    return no_difference.p_values(sums[:, None], np.asarray(sizes or np.ones(len(sums))), num_draws, list(seed))[0]


# --- tests of no difference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        (0, 0, 1.0),
        (5, 0, 2 / 32),  # two of the 2^5 equally likely outcomes
        (4, 1, 2 * (1 + 5) / 32),
        (3, 3, 1.0),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_mcnemar_by_hand(no_difference, wins, losses, p):
    assert no_difference.mcnemar_p(wins, losses) == pytest.approx(p)
    assert no_difference.mcnemar_p(losses, wins) == pytest.approx(p)


@pytest.mark.parametrize(("wins", "losses"), [(17, 9), (131, 4), (400, 441), (3, 1000)])
def test_mcnemar_is_the_two_sided_binomial_test(no_difference, wins, losses):
    assert no_difference.mcnemar_p(wins, losses) == pytest.approx(
        scipy.stats.binomtest(wins, wins + losses).pvalue, rel=1e-6
    )


@pytest.mark.parametrize(
    "sums",
    [
        [0.4, -0.2, 0.4, 0.25, 0.05, -0.1, 0.35],
        [4, -2, 4, 0, 2, 1, -1, 3],
        [2, 2, -2, 2, 1, 1],
        [0.5, 0.5, -1, 0.25, 0.5, 0.75],
    ],
)
def test_permutation_p_against_all_sign_changes(no_difference, sums):
    flipped = np.array([np.dot(signs, sums) for signs in itertools.product((1, -1), repeat=len(sums))])
    exact = np.mean(np.abs(flipped) >= abs(np.sum(sums)) - 1e-12)
    p_value, test = p_of(no_difference, sums, sizes=[2] * len(sums), num_draws=99_999)
    if all(float(x).is_integer() for x in sums):
        assert (p_value, test) == (pytest.approx(exact), "exact permutation by cluster")
    else:
        assert (p_value, test) == (pytest.approx(exact, abs=0.006), "permutation by cluster")


def test_permutation_p_is_scipys(no_difference):
    """Paired samples whose differences change sign at random: 12 pairs, all 4,096 ways."""
    ours, theirs = np.random.default_rng(5).random((2, 12))
    expected = scipy.stats.permutation_test(
        (ours, theirs), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    p_value, _ = p_of(no_difference, ours - theirs, num_draws=99_999)
    assert p_value == pytest.approx(expected.pvalue, abs=0.006)


def test_many_clusters_of_whole_numbers_are_nearly_normal(no_difference):
    """Sums of 3,000 clusters of up to 9 questions: the exact p is that of the normal law with their variance."""
    sums = np.random.default_rng(2).integers(-9, 10, 3000).astype(float)
    p_value, test = p_of(no_difference, sums, sizes=[9] * 3000)
    z = (abs(sums.sum()) - 0.5) / np.sqrt((sums**2).sum())  # whole numbers: with the correction for continuity
    assert (p_value, test) == (pytest.approx(2 * scipy.stats.norm.sf(z), rel=0.01), "exact permutation by cluster")


def test_clusters_that_succeed_together_are_no_independent_questions(stats):
    """Six documents of ten equal questions, five won: McNemar's test of 50 against 10 would say 1e-7."""
    values = np.stack([np.r_[np.zeros(50), np.ones(10)], np.r_[np.ones(50), np.zeros(10)]], axis=1)
    (found,) = paired(stats, values, np.arange(6).repeat(10)).tests([(1, 0)])
    assert (found["num_wins"], found["num_losses"]) == (50, 10)
    assert found["p_value"] == pytest.approx(2 * (1 + 6) / 2**6)


def test_permutation_p_at_its_ends(no_difference):
    assert p_of(no_difference, np.zeros(10))[0] == 1
    assert p_of(no_difference, np.full(60, 0.3), num_draws=99)[0] == 1 / 100  # what was observed counts: never 0


def test_holm_by_hand(no_difference):
    """Sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, and none below the one before."""
    assert no_difference.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert no_difference.holm([0.5, 0.7]) == [1, 1]
    assert no_difference.holm([0.3]) == [0.3]
    assert no_difference.holm([]) == []


# --- intervals -------------------------------------------------------------------------------------------------------


def test_bootstrap_against_scipy(stats):
    """Without clusters and with many items the interval is scipy's paired percentile bootstrap."""
    rng = np.random.default_rng(3)
    base, ours = rng.random(400), rng.random(400) * 0.8 + 0.25
    found = paired(stats, np.stack([base, ours], axis=1)).difference(1, 0)
    expected = scipy.stats.bootstrap(
        (ours - base,), np.mean, n_resamples=9999, method="percentile", random_state=4
    ).confidence_interval
    assert found["difference"] == pytest.approx(np.mean(ours - base))
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=0.003)


def test_draws_of_clusters_by_hand(stats):
    """Two clusters, means 0 (one item) and 1 (three items): a draw takes the one twice, both, or the other."""
    scores = paired(stats, [[0], [1], [1], [1]], clusters=[0, 1, 1, 1], num_resamples=20_000)
    draws = scores.means[0] + scores.draws[:, 0]
    shares = {value: np.mean(np.isclose(draws, value)) for value in (0, 0.75, 1)}
    assert shares == {
        0: pytest.approx(0.25, abs=0.01),
        0.75: pytest.approx(0.5, abs=0.01),
        1: pytest.approx(0.25, abs=0.01),
    }


def test_questions_of_one_document_widen_the_interval(stats):
    """Ten equal copies of each score hold no more than the one."""
    rng = np.random.default_rng(0)
    values = rng.random((40, 2))
    single = paired(stats, values).difference(1, 0)
    copies = paired(stats, values.repeat(10, axis=0), clusters=np.arange(40).repeat(10)).difference(1, 0)
    assert copies == pytest.approx(single)


def test_expanded_percentiles_by_hand(stats):
    """For 5 clusters: t(0.975, 4) = 2.7764, times sqrt(5 / 4) = 3.1042, of which the normal tail is 0.000954."""
    draws = np.linspace(0, 1, 1_000_001)
    low, high = stats.percentile_interval(draws, 5, 0.95)
    assert (low, high) == pytest.approx((0.000954, 1 - 0.000954), abs=2e-6)


@pytest.mark.parametrize(("num_clusters", "per_cluster"), [(8, 4), (40, 3)])
def test_coverage(stats, num_clusters, per_cluster):
    """Over simulated evaluations with correlated questions, 95 % intervals hold the true difference about as often."""
    rng = np.random.default_rng(11)
    clusters = np.arange(num_clusters).repeat(per_cluster)
    held, rounds = 0, 300
    for _ in range(rounds):
        skill = rng.normal(0, 0.5, (num_clusters, 2)).repeat(per_cluster, axis=0)
        values = (rng.normal(0, 1, skill.shape) + skill + [0, 0.5] > 0).astype(float)
        found = paired(stats, values, clusters, num_resamples=399, seed=int(rng.integers(1 << 30))).difference(1, 0)
        # P(N(0, 1) + N(0, 0.25) + shift > 0) for shift 0.5 and 0
        true = scipy.stats.norm.cdf(0.5 / 1.25**0.5) - 0.5
        held += found["low"] <= true <= found["high"]
    assert 0.92 <= held / rounds <= 0.99


def test_wilson_by_hand(stats):
    """Without clustering and for many items, the interval is Wilson's as scipy has it."""
    values = np.array([1.0] * 60 + [0.0] * 940)
    found = paired(stats, values[:, None]).mean(0)
    expected = scipy.stats.binomtest(60, 1000).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=0.001)


def test_no_success_is_no_certainty(stats):
    """0 of 100 in 20 clusters of 5: Wilson's upper end is t^2 / (n + t^2) with n = 20 clusters."""
    found = paired(stats, np.zeros((100, 1)), clusters=np.arange(20).repeat(5)).mean(0)
    t = scipy.stats.t.ppf(0.975, 19)
    assert found == {"mean": 0.0, "low": 0.0, "high": pytest.approx(t**2 / (20 + t**2))}


def test_equal_clusters_are_drawn_together_and_apart_alike(stats, cluster_draws, monkeypatch):
    """The two ways to draw have the same distribution: standard errors and quantiles agree."""
    values = (np.random.default_rng(1).random((2000, 2)) < [0.3, 0.4]).astype(float)
    together = paired(stats, values)
    monkeypatch.setattr(cluster_draws, "_COST_OF_A_BINOMIAL", 1e9)
    apart = paired(stats, values, seed=1)
    assert not np.array_equal(together.draws, apart.draws)
    assert scipy.stats.ks_2samp(*(np.diff(one.draws)[:, 0] for one in (together, apart))).pvalue > 0.01
    # the standard error by hand: that of the differences, over sqrt(2000)
    expected = np.std(values[:, 1] - values[:, 0]) / 2000**0.5
    for one in (together, apart):
        assert np.diff(one.draws).std() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("num_clusters", [2, 3, 40, 5000])
def test_weights_are_multinomial(cluster_draws, num_clusters):
    """Each draw holds n clusters; a weight is binomial(n, 1/n), and two weights hang together by -1/n."""
    weights = cluster_draws.ClusterWeights(num_clusters)
    rng, num_draws = np.random.Generator(np.random.SFC64(3)), 2_000_000 // num_clusters
    drawn = weights.draw(rng, num_draws).astype(int)
    assert (drawn.sum(axis=1) == num_clusters).all()
    shares = np.bincount(drawn.ravel(), minlength=8)[:8] / drawn.size
    assert shares == pytest.approx(scipy.stats.binom.pmf(np.arange(8), num_clusters, 1 / num_clusters), abs=0.002)
    assert np.cov(drawn[:, 0], drawn[:, 1])[0, 1] == pytest.approx(-1 / num_clusters, abs=6 / num_draws**0.5)


def test_large_numbers_and_small_differences_keep_their_precision(stats):
    """Log-likelihoods of -1e6 that differ by thousandths: the interval is that of the differences alone."""
    rng = np.random.default_rng(8)
    base = -1e6 + rng.normal(0, 5, 500)
    gain = rng.normal(0.002, 0.01, 500)
    found = paired(stats, np.stack([base, base + gain], axis=1)).difference(1, 0)
    alone = paired(stats, np.stack([np.zeros(500), gain], axis=1)).difference(1, 0)
    assert (found["low"], found["high"]) == pytest.approx((alone["low"], alone["high"]), abs=3e-5)


def test_benchmarks_of_the_same_weight(stats):
    """10 and 1,000 questions: the error of the mean of means is half the root of the summed squares of both errors."""
    rng = np.random.default_rng(6)
    small, large = rng.normal(0, 1, (40, 1)), rng.normal(5, 2, (1000, 1))
    strata = np.repeat([0, 1], [40, 1000])
    scores = paired(stats, np.concatenate([small, large]), strata=strata)
    assert scores.means[0] == pytest.approx((small.mean() + large.mean()) / 2)
    expected = 0.5 * np.sqrt(small.var() / 40 + large.var() / 1000)
    assert scores.draws.std() == pytest.approx(expected, rel=0.05)


def test_minimum_detectable_effect_by_hand(stats):
    """For n questions: (t(0.975) + t(0.8)) times the standard error of the difference; by simulation 80 % power."""
    rng = np.random.default_rng(9)
    differences = rng.normal(0.3, 1, 200)
    scores = paired(stats, np.stack([np.zeros(200), differences], axis=1))
    quantiles = scipy.stats.t.ppf([0.975, 0.8], 199).sum()
    expected = quantiles * differences.std(ddof=1) / 200**0.5
    effect = scores.minimum_detectable_effect(1, 0)
    assert effect == pytest.approx(expected, rel=0.03)
    shown = 0
    for _ in range(1000):
        sample = rng.normal(effect, differences.std(ddof=1), 200)
        shown += scipy.stats.ttest_1samp(sample, 0).pvalue <= 0.05
    assert shown / 1000 == pytest.approx(0.8, abs=0.05)


def test_one_cluster_has_no_interval(stats):
    scores = paired(stats, [[0, 1], [1, 1]], clusters=[7, 7])
    assert scores.mean(0) == {"mean": 0.5, "low": None, "high": None}
    assert scores.difference(1, 0) == {"difference": 0.5, "low": None, "high": None}
    assert scores.minimum_detectable_effect(1, 0) is None


def test_the_same_difference_everywhere_has_no_width(stats):
    base = np.random.default_rng(1).random(50)
    found = paired(stats, np.stack([base, base + 0.1], axis=1)).difference(1, 0)
    assert found["low"] == found["high"] == found["difference"] == pytest.approx(0.1)
    assert paired(stats, np.ones((50, 2))).minimum_detectable_effect(1, 0) is None, "not 0"


def test_the_number_of_cores_changes_nothing(stats, monkeypatch):
    values = np.random.default_rng(0).random((5000, 3))
    first = paired(stats, values).draws
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert np.array_equal(first, paired(stats, values).draws)
