"""compare_candidates: statistics against references worked out elsewhere, and what it refuses."""

import html.parser
import importlib
import itertools
import json
import time

import numpy as np
import pytest
import scipy.stats


@pytest.fixture(scope="module")
def stats(load_main):
    load_main("compare_candidates")
    return importlib.import_module("paired_statistics")


def paired(stats, values, clusters=None, groups=None, num_resamples=9999, confidence_level=0.95, seed=0):
    values = np.asarray(values, float)
    clusters = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    groups = np.ones((len(values), 1), bool) if groups is None else np.asarray(groups)
    options = {"num_resamples": num_resamples, "confidence_level": confidence_level, "seed": seed}
    return stats.PairedScores(values, clusters, groups, **options)


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
def test_mcnemar_by_hand(stats, wins, losses, p):
    assert stats.mcnemar_p(wins, losses) == pytest.approx(p)
    assert stats.mcnemar_p(losses, wins) == pytest.approx(p)


@pytest.mark.parametrize(("wins", "losses"), [(17, 9), (131, 4), (400, 441), (3, 1000)])
def test_mcnemar_is_the_two_sided_binomial_test(stats, wins, losses):
    assert stats.mcnemar_p(wins, losses) == pytest.approx(scipy.stats.binomtest(wins, wins + losses).pvalue, rel=1e-6)


def test_permutation_p_against_all_sign_changes(stats):
    differences = np.array([0.3, 0.1, -0.2, 0.4, 0.25, 0.05, -0.1, 0.35])
    clusters = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    sums = np.array([0.4, -0.2, 0.4, 0.25, 0.05, -0.1, 0.35])
    flipped = np.array([np.dot(signs, sums) for signs in itertools.product((1, -1), repeat=7)])
    exact = np.mean(np.abs(flipped) >= abs(sums.sum()) - 1e-12)
    assert stats.permutation_p(differences, clusters, 99_999, seed=1) == pytest.approx(exact, abs=0.006)


def test_permutation_p_at_its_ends(stats):
    assert stats.permutation_p(np.zeros(10), np.arange(10), 999, seed=0) == 1
    assert stats.permutation_p(np.ones(60), np.arange(60), 99, seed=0) == 1 / 100  # what was observed counts: never 0


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
    draws = paired(stats, [[0], [1], [1], [1]], clusters=[0, 1, 1, 1], num_resamples=20_000).draws[:, 0, 0]
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


def test_9999_resamples_of_5000_items_are_quick(stats):
    """The brief is two seconds; the limit here is loose because the machine may be busy."""
    values = np.random.default_rng(0).random((5000, 6))
    started = time.perf_counter()
    paired(stats, values).difference(1, 0)
    assert time.perf_counter() - started < 10


# --- the component ---------------------------------------------------------------------------------------------------


def item(number, language="en", **slices):
    return {
        "id": f"q{number:03}",
        "messages": [{"role": "user", "content": f"Store {number}: Tokyo\n\nWhere is <store> {number}?"}],
        "references": ["Tokyo & <Osaka>"],
        "slices": {"language": language, "held_out": "documents", **slices},
        "cluster": f"document {number // 2}",
    }


def score(number, candidate, value, **more):
    return {"id": f"q{number:03}", "candidate": candidate, "exact_match": value, "f1": value * 0.5 + 0.25, **more}


def prediction(number, candidate, output="<script>alert(1)</script>", **more):
    return {"id": f"q{number:03}", "candidate": candidate, "output": output, "latency_ms": 10.0 + number, **more}


ITEMS = [item(n, language="ja" if n % 4 == 0 else "en") for n in range(40)]
BASE = [score(n, "base", float(n < 4)) for n in range(40)]
TUNED = [score(n, "tuned", float(2 <= n < 30)) for n in range(40)]


@pytest.fixture
def compare(tmp_path, run_component):
    def run(baseline=BASE, candidate=TUNED, eval_items=ITEMS, predictions=(), **flags):
        inputs = {"baseline_scores": baseline, "candidate_scores": candidate, "eval_items": eval_items}
        inputs |= dict(zip(("baseline_predictions", "candidate_predictions"), predictions, strict=False))
        for name, rows in inputs.items():
            (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        paths = {name: tmp_path / name for name in (*inputs, "comparison", "report")}
        done = run_component("compare_candidates", **paths, **flags)
        found = json.loads(paths["comparison"].read_text("utf-8")) if paths["comparison"].exists() else None
        return done, found, paths["report"] / "report.html"

    return run


def test_comparison_and_report(compare, tmp_path):
    predictions = [[prediction(n, name) for n in range(40)] for name in ("base", "tuned")]
    predictions[1][0] = {"id": "q000", "candidate": "tuned", "error": "HTTP <500>", "latency_ms": None}
    predictions[1][1]["cached"] = True
    tuned = [TUNED[0] | {"failed": 1}, *TUNED[1:]]
    done, found, report = compare(candidate=tuned, predictions=predictions)
    assert done.returncode == 0, done.stderr

    assert [c["name"] for c in found["candidates"]] == ["base", "tuned"]
    assert [c["metrics"]["exact_match"]["mean"] for c in found["candidates"]] == [0.1, 0.7]
    assert [c["num_failed"] for c in found["candidates"]] == [0, 1]
    assert (found["num_items"], found["num_clusters"]) == (40, 20)
    (pair,) = found["comparisons"]
    difference = pair["metrics"]["exact_match"]
    assert difference["difference"] == pytest.approx(0.6)
    # by document: one lost, 13 won, 6 equal; scipy's bootstrap of these, at the level that 20 clusters ask for
    tail = scipy.stats.norm.cdf(-((20 / 19) ** 0.5) * scipy.stats.t.ppf(0.975, 19))
    expected = scipy.stats.bootstrap(
        ([-1] + [1] * 13 + [0] * 6,), np.mean, n_resamples=9999, method="percentile", confidence_level=1 - 2 * tail
    ).confidence_interval
    assert (difference["low"], difference["high"]) == pytest.approx((expected.low, expected.high), abs=0.051)
    assert (difference["num_wins"], difference["num_losses"], difference["num_ties"]) == (26, 2, 12)
    assert difference["p_value"] == pytest.approx(scipy.stats.binomtest(26, 28).pvalue)
    assert difference["test"] == "exact McNemar"
    assert pair["metrics"]["f1"]["test"] == "permutation by cluster"
    assert pair["metrics"]["f1"]["difference"] == pytest.approx(0.3)

    # ja: 0, 4, ..., 36: base is right in 0, tuned in 4..28
    ja = next(part for part in found["slices"] if part["value"] == "ja")
    assert (ja["slice"], ja["num_items"], ja["num_clusters"]) == ("language", 10, 10)
    assert (ja["means"]["base"]["mean"], ja["means"]["tuned"]["mean"]) == (0.1, 0.7)
    # latencies of tuned: 12 ... 49; 0 failed and 1 came from the cache
    assert found["candidates"][1]["latency_ms"] == {"p50": 30.5, "p95": pytest.approx(47.15), "num_answers": 38}
    assert found["held_out"] == {
        "statement": "Held out from training: documents (40 questions) - nothing of them was trained on; "
        "the wordings of the questions were.",
        "num_items": {"documents": 40},
    }
    assert found["candidates"][0]["scores_sha256"] == records_sha256(tmp_path / "baseline_scores")
    assert "tuned answers 70.0 % of 40 held-out questions exactly, base 10.0 %" in done.stdout.replace("\xa0", " ")

    page = report.read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Tokyo &amp; &lt;Osaka&gt;" in page
    assert "failed: HTTP &lt;500&gt;" in page
    assert not external_references(page)


def records_sha256(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def external_references(page):
    """What a page would load; raises when its tags are not closed in order."""
    found, open_tags = [], []
    void = {"meta", "rect", "line", "circle", "br"}

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(value for name, value in attrs if name in ("src", "href"))
            if tag not in void:
                open_tags.append(tag)

        def handle_startendtag(self, tag, attrs):
            found.extend(value for name, value in attrs if name in ("src", "href"))

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Reader().feed(page)
    assert not open_tags
    return found + [part for part in ("@import", "url(") if part in page]


def test_same_seed_same_comparison(compare):
    _, first, _ = compare(num_resamples=500)
    _, second, _ = compare(num_resamples=500)
    _, other, _ = compare(num_resamples=500, seed=1)
    assert first == second
    assert first["comparisons"] != other["comparisons"]


def test_order_of_rows_does_not_matter(compare):
    _, first, _ = compare(num_resamples=500)
    _, second, _ = compare(baseline=BASE[::-1], num_resamples=500)
    assert first["comparisons"] == second["comparisons"]


def test_nothing_right_on_either_side(compare):
    zero = [[score(n, name, 0.0) for n in range(40)] for name in ("base", "tuned")]
    done, found, _ = compare(*zero)
    assert done.returncode == 0, done.stderr
    difference = found["comparisons"][0]["metrics"]["exact_match"]
    assert (difference["difference"], difference["low"], difference["high"], difference["p_value"]) == (0, 0, 0, 1)
    assert found["candidates"][1]["metrics"]["exact_match"]["high"] > 0.1  # 20 documents cannot show less
    assert "the interval has no width" in done.stdout


def test_one_document_is_said(compare):
    done, found, _ = compare(eval_items=[{**row, "cluster": "the only one"} for row in ITEMS])
    assert done.returncode == 0
    assert "say nothing about other documents" in done.stdout
    assert found["num_clusters"] == 40


def test_a_slice_in_one_cluster_has_no_interval(compare):
    eval_items = [{**row, "slices": {"language": "ko" if n < 2 else "en"}} for n, row in enumerate(ITEMS)]
    done, found, report = compare(eval_items=eval_items)
    assert done.returncode == 0, done.stderr
    ko = next(part for part in found["slices"] if part["value"] == "ko")
    assert ko["differences"]["tuned"] == {"difference": -1.0, "low": None, "high": None}
    assert "no interval" in report.read_text("utf-8")
    assert found["held_out"]["num_items"] == {}


def replaced(rows, number, **more):
    return [row | more if n == number else row for n, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidate": TUNED[:-5]}, "tuned: 5 questions without a score (q035, q036, q037, ...)"),
        ({"baseline": [*BASE, score(99, "base", 1)]}, "base: 1 questions scored but not in eval_items (q099)"),
        ({"baseline": [*BASE, BASE[3]]}, "baseline_scores:41: id 'q003' stands twice"),
        ({"baseline": []}, "no records"),
        ({"eval_items": []}, "no records"),
        ({"candidate": replaced(TUNED, 7, exact_match=float("nan"))}, "candidate_scores:8: not JSON: NaN"),
        ({"candidate": replaced(TUNED, 7, f1=float("inf"))}, "candidate_scores:8: not JSON: Infinity"),
        ({"candidate": replaced(TUNED, 7, exact_match="1")}, "a number from 0 to 1"),
        ({"candidate": replaced(TUNED, 7, exact_match=1.5)}, "a number from 0 to 1"),
        ({"candidate": replaced(TUNED, 7, candidate="other")}, "found ['other', 'tuned']"),
        ({"candidate": [row | {"candidate": "base"} for row in TUNED]}, "one candidate, 'base'"),
        ({"metric": "bleu"}, "metric 'bleu' is not in the scores of all candidates; in all of them: exact_match, f1"),
        ({"predictions": [[prediction(0, "tuned")]]}, "swapped inputs?"),
    ],
)
def test_what_does_not_fit_is_one_line(compare, change, message):
    done, found, report = compare(**change)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert found is None
    assert not report.exists()
