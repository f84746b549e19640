"""compare_candidates as a process: what it writes, what it recommends, and what it refuses."""

import html.parser
import json
import re

import numpy as np
import pytest
import scipy.stats


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
    # by document again: 13 of 14 coins on one side, both ways; McNemar's test of the questions would say 3e-6
    assert difference["p_value"] == pytest.approx(2 * (1 + 14) / 2**14)
    assert difference["test"] == "exact permutation by cluster"
    assert pair["metrics"]["f1"]["test"] == "exact permutation by cluster"  # its sums are whole: 0.5 + 0.5
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
    page = report.read_text("utf-8").replace("\xa0", " ")
    assert "tuned answers 70.0 % of 40 held-out questions exactly, base 10.0 %" in page
    table = [" ".join(line.split()) for line in done.stdout.splitlines()[-2:]]
    assert table == ["tuned 70.0 % 46.9 to 86.1 % +60.0 +30.0 to +85.0", "base 10.0 % 2.6 to 31.8 %"]

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


def test_two_benchmarks_of_one_question_in_one_document(compare):
    items = [benchmark_item(n, f"b{n}", cluster="the only one") for n in range(2)]
    done, found, _ = compare(BASE[:2], TUNED[:2], items)
    assert done.returncode == 0, done.stderr
    assert found["num_clusters"] == 2
    assert found["comparisons"][0]["metrics"]["exact_match"]["low"] is not None
    assert [part["differences"]["tuned"]["low"] for part in found["benchmarks"]] == [None, None]
    assert [part["differences"]["tuned"]["minimum_detectable_effect"] for part in found["benchmarks"]] == [None, None]


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
        ({"baseline": [*BASE, BASE[3]]}, "baseline_scores:41: id 'q003' stands twice for 'base'"),
        ({"baseline": [*BASE, *TUNED]}, "the baseline is one candidate, found base, tuned"),
        ({"eval_items": [*ITEMS, ITEMS[0]]}, "eval_items:41: id 'q000' stands twice"),
        ({"baseline": []}, "no records"),
        ({"eval_items": []}, "no records"),
        ({"eval_items": replaced(ITEMS, 7, slices=["ja"])}, "eval_items:8: eval item 'q007': 'slices' is a list"),
        (
            {"eval_items": replaced(ITEMS, 7, slices={"a": {}})},
            "eval_items:8: eval item 'q007': the slice 'a' is a dict",
        ),
        ({"eval_items": replaced(ITEMS, 7, messages="?")}, "eval_items:8: eval item 'q007': a chat needs"),
        ({"predictions": [[prediction(0, "base", output=5)]]}, "baseline_predictions:1: the 'output' of 'q000' is int"),
        ({"baseline": [*BASE, score(0, "base", 1) | {"id": "q000\u200b"}]}, "not in eval_items ('q000\\u200b')"),
        ({"candidate": replaced(TUNED, 7, exact_match=float("nan"))}, "candidate_scores:8: not JSON: NaN"),
        ({"candidate": replaced(TUNED, 7, f1=float("inf"))}, "candidate_scores:8: not JSON: Infinity"),
        (
            {"candidate": replaced(TUNED, 7, exact_match="1")},
            "exact_match of 'q007' is '1'; a score is a finite number",
        ),
        ({"candidate": replaced(TUNED, 7, exact_match=None)}, "is 'None'; a score is a finite number"),
        ({"candidate": replaced(TUNED, 7, f1=10**400)}, "a score is a finite number, at most 1e+15 in size"),
        ({"candidate": replaced(TUNED, 7, candidate="other")}, "tuned: 1 questions without a score (q007)"),
        ({"candidate": replaced(TUNED, 7, candidate=" ")}, "candidate_scores:8: no 'candidate' (a text)"),
        ({"candidate": [row | {"candidate": "base"} for row in TUNED]}, "both score files hold candidate 'base'"),
        ({"metric": "{all: exact_match, other: f1}"}, "metric names the benchmarks all, other; eval_items hold all"),
        ({"metric": "{all: failed}"}, "metric 'failed' is not in the scores of all candidates"),
        ({"metric": "bleu"}, "metric 'bleu' is not in the scores of all candidates; in all of them: exact_match, f1"),
        ({"predictions": [[prediction(0, "tuned")]]}, "swapped inputs?"),
        ({"predictions": [[prediction(99, "base")]]}, "base: 1 predictions to no question of eval_items (q099)"),
        ({"candidate": TUNED[:1], "on_unequal_ids": "intersect"}, "1 questions were scored for all candidates"),
    ],
)
def test_what_does_not_fit_is_one_line(compare, change, message):
    done, found, report = compare(**change)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert found is None
    assert not report.exists()


# --- several candidates, benchmarks, any numbers ----------------------------------------------------------------------


def benchmark_item(number, benchmark, **more):
    """Questions that are clusters by themselves; letters have four choices."""
    choices = {"choices": ["a", "b", "c", "d"], "gold": 0} if benchmark == "letters" else {}
    slices = {"benchmark": benchmark, "language": ("ko", "ja")[number % 2]}
    return item(number) | choices | {"slices": slices, "cluster": None} | more


BENCHMARKS = [benchmark_item(n, "letters" if n < 30 else "numbers") for n in range(40)]


def benchmark_scores(candidate, num_letters, num_numbers):
    """The first so many questions of each benchmark right; the metric's name differs by benchmark."""
    letters = [{"id": f"q{n:03}", "candidate": candidate, "accuracy": float(n < num_letters)} for n in range(30)]
    numbers = [{"id": f"q{n:03}", "candidate": candidate, "numeric": int(n < 30 + num_numbers)} for n in range(30, 40)]
    return letters + numbers


def test_benchmarks_with_metrics_of_their_own(compare):
    several = [*benchmark_scores("small", 24, 5), *benchmark_scores("large", 27, 10)]
    mapping = "{letters: accuracy, numbers: numeric}"
    done, found, report = compare(benchmark_scores("base", 6, 5), several, BENCHMARKS, metric=mapping)
    assert done.returncode == 0, done.stderr
    assert found["metric"] == {"letters": "accuracy", "numbers": "numeric"}
    assert [one["name"] for one in found["candidates"]] == ["base", "small", "large"]
    # the same weight for 30 and for 10 questions: (6/30 + 5/10) / 2 and so on
    means = [one["metrics"]["score"]["mean"] for one in found["candidates"]]
    assert means == pytest.approx([0.35, 0.65, 0.95])
    letters, numbers = found["benchmarks"]
    assert (letters["benchmark"], letters["metric"], letters["num_items"]) == ("letters", "accuracy", 30)
    assert (letters["chance"], numbers["chance"]) == (0.25, None)
    assert letters["above_chance"] == {"base": False, "small": True, "large": True}
    assert numbers["above_chance"] == {"base": None, "small": None, "large": None}
    assert "Not shown to be better than guessing on letters: base." in done.stdout
    p_values = [letters["differences"]["small"]["p_value"], letters["differences"]["large"]["p_value"]]
    assert p_values == pytest.approx([2 / 2**18, 2 / 2**21])  # won 18 and 21, lost none
    assert numbers["differences"]["small"]["p_value"] == 1
    assert numbers["differences"]["large"]["p_value"] == pytest.approx(2 / 2**5)
    # Holm over all four: times 4, 3, 2 and 1 from the smallest
    assert [part["differences"][name]["p_holm"] for part in (letters, numbers) for name in ("small", "large")] == (
        pytest.approx([3 * 2 / 2**18, 4 * 2 / 2**21, 1, 2 * 2 / 2**5])
    )
    assert found["num_tests"] == 4
    assert letters["differences"]["small"]["test"] == "exact McNemar"
    assert found["recommendation"]["candidate"] == "large"
    assert {part["slice"] for part in found["slices"]} == {"language"}
    assert not external_references(report.read_text("utf-8"))


def test_one_metric_over_benchmarks_weighs_questions_alike(compare):
    base, ours = ([score(n, name, float(n < num)) for n in range(40)] for name, num in (("base", 10), ("tuned", 33)))
    _, found, _ = compare(base, ours, BENCHMARKS)
    assert [one["metrics"]["exact_match"]["mean"] for one in found["candidates"]] == [10 / 40, 33 / 40]
    assert [part["means"]["tuned"]["mean"] for part in found["benchmarks"]] == [1, 3 / 10]


def test_a_few_questions_without_a_difference_show_nothing(compare):
    """Of 40 questions all equal, up to 3.84 / 43.84 = 8.8 % of more may differ (Wilson's upper end for 0 of 40)."""
    items = [row | {"cluster": None} for row in ITEMS]
    same = [score(n, "tuned", float(n < 4)) for n in range(40)]
    predictions = [priced("base", 2.0, 1), priced("tuned", 1.0, 1)]
    reasons = []
    for margin in (0.087, 0.089):
        _, found, _ = compare(BASE, same, items, predictions=predictions, noninferiority_margin=margin)
        reasons.append(found["recommendation"]["reason"])
    assert (
        reasons[0]
        == "base has the best score, but these questions do not tell it from tuned: more of them would decide."
    )
    assert reasons[1].startswith("tuned costs least")
    assert found["benchmarks"][0]["differences"]["tuned"]["minimum_detectable_effect"] is None


@pytest.mark.parametrize(("num", "said"), [(5, "so few clusters do not show it: p = 0.0625"), (6, "lies above zero")])
def test_the_same_difference_in_a_few_questions_is_no_proof(compare, num, said):
    """All of 5 won: p = 2 / 2**5; of 6: p = 2 / 2**6 = 0.03."""
    items = [row | {"cluster": None} for row in ITEMS[:num]]
    _, _, report = compare([score(n, "base", 0) for n in range(num)], [score(n, "tuned", 1) for n in range(num)], items)
    assert said in report.read_text("utf-8")


def test_a_benchmark_of_a_few_documents_is_said(compare):
    items = [benchmark_item(n, "letters", cluster=f"document {n % 4}") for n in range(20)] + BENCHMARKS[20:]
    done, _, _ = compare(BASE, TUNED, [row if n < 20 else benchmark_item(n, "numbers") for n, row in enumerate(items)])
    assert "Only 4 clusters of questions on letters: its intervals are rough" in done.stdout


def priced(candidate, cost, latency):
    return [prediction(n, candidate, cost=cost, cached=False) | {"latency_ms": latency} for n in range(40)]


@pytest.mark.parametrize(
    ("costs", "latencies", "margin", "taken", "why"),
    [
        ((None, 3.0, 2.0), (1, 2, 3), 0.3, "c", "c costs least, 2000 per 1,000 requests, of the 2 candidates"),
        ((None, None, 2.0), (1, 2, 3), 0.3, "b", "b answers fastest, 2 ms at p95, of the 2 candidates"),
        ((0.0, 0.0, 0.0), (1, 3, 2), 0.3, "c", "c answers fastest"),
        ((None, None, None), (None, None, None), 0.3, "b", "neither cost nor latency is known"),
        ((1.0, 3.0, 2.0), (1, 2, 3), 0.01, "b", "b has the best score, but these questions do not tell it from c"),
        ((1.0, 3.0, 2.0), (1, 2, 3), 1.0, "a", "a costs least, 1000 per 1,000 requests, of the 3 candidates"),
    ],
)
def test_recommendation(compare, costs, latencies, margin, taken, why):
    """a is right in 4 of 40, b in 36 and c in 34: the interval of c less b ends far above -0.3, that of a below."""
    right = {"a": 4, "b": 36, "c": 34}
    rows = {name: [score(n, name, float(n < number)) for n in range(40)] for name, number in right.items()}
    answers = {n: priced(n, cost, latency) for n, cost, latency in zip(right, costs, latencies, strict=True)}
    predictions = [answers["a"], [*answers["b"], *answers["c"]]]
    _, found, report = compare(
        rows["a"], [*rows["b"], *rows["c"]], predictions=predictions, noninferiority_margin=margin
    )
    assert found["recommendation"]["candidate"] == taken
    assert why in found["recommendation"]["reason"]
    assert why in report.read_text("utf-8")


def test_cost_and_latency_are_of_answers_that_were_made(compare):
    ours = [prediction(n, "tuned", cost=0.001 * (n + 1)) for n in range(4)]
    ours[1] |= {"cached": True, "cost": 9.0, "latency_ms": None}
    ours[2] |= {"error": "refused", "cost": 0.005}  # which was paid all the same
    ours[3] |= {"cost": float(-1)}
    _, found, _ = compare(predictions=[[prediction(0, "base")], ours])
    base, tuned = found["candidates"]
    assert base["cost_per_1000"] is None
    assert tuned["cost_per_1000"] == pytest.approx(1000 * (0.001 + 0.005) / 2)
    assert tuned["latency_ms"] == {"p50": 11.5, "p95": pytest.approx(12.85), "num_answers": 2}


@pytest.mark.parametrize("shift", [0, -1000])
def test_numbers_of_any_range(compare, shift):
    """A judge's 1 to 5, and log-likelihoods: tests and intervals move with the numbers, and nothing is a percentage."""
    rows = [
        [{"id": f"q{n:03}", "candidate": name, "judge": shift + 1 + (n * step) % 5} for n in range(40)]
        for name, step in (("base", 2), ("tuned", 3))
    ]
    rows[1] = [row | {"judge": row["judge"] + (n % 3 == 0)} for n, row in enumerate(rows[1])]
    done, found, report = compare(*rows, metric="judge")
    assert done.returncode == 0, done.stderr
    difference = found["comparisons"][0]["metrics"]["judge"]
    assert difference["difference"] == pytest.approx(14 / 40)
    assert difference["test"] == "exact permutation by cluster"
    assert found["share_metrics"] == []
    assert found["benchmarks"][0]["chance"] is None
    page = report.read_text("utf-8")
    assert "points" not in re.sub("<[^>]*>", "", page.partition("<main>")[2])
    assert ("3.00" if shift == 0 else "\N{MINUS SIGN}997.0") in page


def of(rows, **asked):
    return [row | asked for row in rows]


A, B = {"model_sha256": "a" * 64}, {"model_sha256": "b" * 64}
ENDPOINT = {"endpoint": "https://h/v1"}


def test_each_candidate_with_the_model_that_was_asked(compare):
    other = of([score(n, "other", 1.0) for n in range(40)], **ENDPOINT)
    predictions = [[], of([prediction(n, "tuned") for n in range(40)], **B)]
    predictions[0] = [prediction(n, "base") for n in range(40)]  # made before rows said it
    done, found, _ = compare(of(BASE, **A), of(TUNED, **B) + other, predictions=predictions, num_resamples=200)
    assert done.returncode == 0, done.stderr
    said = [(one["name"], one["model_sha256"], one["endpoint"]) for one in found["candidates"]]
    assert said == [("base", "a" * 64, None), ("tuned", "b" * 64, None), ("other", None, "https://h/v1")]


def test_what_no_row_says_is_not_known(compare):
    done, found, _ = compare(BASE, TUNED, num_resamples=200)
    assert done.returncode == 0, done.stderr
    assert [one["model_sha256"] for one in found["candidates"]] == [None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidate": of(TUNED[:39], **A) + of(TUNED[39:], **B)}, "tuned: answers of several models under one name"),
        ({"candidate": of(TUNED[:39], **B) + TUNED[39:]}, "(rows that name none and model_sha256 bbb"),
        (
            {"candidate": of(TUNED[:39], **A) + of(TUNED[39:], **ENDPOINT)},
            "(endpoint https://h/v1 and model_sha256 aaa",
        ),
        (
            {
                "candidate": of(TUNED, **A),
                "predictions": [[prediction(0, "base")], of([prediction(0, "tuned")], **B)],
            },
            "tuned was asked of another model than in",
        ),
    ],
)
def test_two_models_are_no_candidate(compare, change, message):
    done, found, _ = compare(**change)
    assert (done.returncode, found) == (1, None)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_intersect_says_what_it_left_out(compare):
    flags = {"on_unequal_ids": "intersect"}
    done, found, report = compare(BASE[:30], TUNED[5:], [*ITEMS[:38]], **flags)
    assert done.returncode == 0, done.stderr
    assert found["num_items"] == 25
    assert [one["num_left_out"] for one in found["candidates"]] == [5, 10]
    assert [one["metrics"]["exact_match"]["mean"] for one in found["candidates"]] == [0, 1]
    said = (
        "Compared on 25 of 38 questions, those that every candidate has a score for. Scores left out: base 5, tuned 10."
    )
    assert said in found["warnings"][0]
    assert said in done.stdout
    assert said in report.read_text("utf-8")


def test_intersect_of_equal_ids_changes_nothing(compare):
    _, first, _ = compare(num_resamples=500)
    _, second, _ = compare(num_resamples=500, on_unequal_ids="intersect")
    assert first == second


def test_no_more_metrics_than_a_tracking_server_takes(load_main):
    main = load_main("compare_candidates")
    difference = {"difference": 0.1, "low": None, "high": 0.2, "p_value": 0.5}
    names = [f"모델 {n}" for n in range(30)]
    comparison = {
        "metric": "f1",
        "comparisons": [{"candidate": name, "metrics": {"f1": difference}} for name in names],
        "benchmarks": [{"benchmark": b, "metric": "f1", "differences": dict.fromkeys(names, difference)} for b in "ab"],
    }
    logged = main.logged_metrics(comparison)
    assert len(logged) == 40
    assert logged["eval/f1_difference/모델 0"] == 0.1
