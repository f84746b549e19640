"""track_benchmarks: the history grows by a cycle, and says what is better, worse, or not to be compared."""

import json
import re

import pytest


def mean(value, half=0.02):
    return {"mean": value, "low": value - half, "high": value + half}


def comparison(tuned=(0.6, 0.3), p_holm=(0.01, 0.2), sha="aaaa", baseline="base", **more):
    """Two benchmarks; base scores 0.5 and 0.35 in them."""
    benchmarks = [
        {
            "benchmark": name,
            "metric": metric,
            "num_items": 200,
            "num_clusters": 200,
            "means": {"base": mean(base), "tuned": mean(ours), "third": mean(0.1)},
            "differences": {
                "tuned": {"difference": ours - base, "low": None, "high": None, "p_holm": p},
                "third": {"difference": 0.1 - base, "low": None, "high": None, "p_holm": 0.001},
            },
        }
        for name, metric, base, ours, p in zip(
            ("gsm8k", "日本語"), ("numeric", "accuracy"), (0.5, 0.35), tuned, p_holm, strict=True
        )
    ]
    pairs = [{"candidate": "tuned", "baseline": baseline, "metrics": {}}]
    whole = {"confidence_level": 0.95, "eval_items_sha256": sha, "comparisons": pairs, "benchmarks": benchmarks}
    return whole | more


@pytest.fixture
def track(tmp_path, run_component):
    def run(cycle, found=None, earlier=None, **flags):
        (tmp_path / "comparison").write_text(json.dumps(comparison() if found is None else found), encoding="utf-8")
        paths = {"comparison": tmp_path / "comparison", "history": tmp_path / cycle.strip()[:50] / "history"}
        paths["report"] = tmp_path / cycle.strip()[:50] / "report"
        if earlier:
            paths["earlier_history"] = earlier
        done = run_component("track_benchmarks", cycle=cycle, **paths, **flags)
        page = paths["report"] / "report.html"
        return done, paths["history"], page.read_text("utf-8") if page.exists() else None

    return run


def rows_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def text_of(page):
    return " ".join(re.sub("<[^>]*>", " ", page.partition("<body>")[2]).split())


def test_first_cycle(track):
    done, history, page = track("2026-11")
    assert done.returncode == 0, done.stderr
    rows = rows_of(history)
    assert len(rows) == 6
    assert {key: rows[1][key] for key in rows[1] if key != "time"} == {
        "cycle": "2026-11",
        "candidate": "tuned",
        "benchmark": "gsm8k",
        "metric": "numeric",
        **mean(0.6),
        "num_items": 200,
        "eval_items_sha256": "aaaa",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", rows[0]["time"])
    assert "gsm8k: tuned 0.6, base 0.5: improvement" in done.stdout
    assert "日本語: tuned 0.3, base 0.35: no change" in done.stdout  # p 0.2
    assert "gsm8k: third 0.1, base 0.5: regression" in done.stdout
    assert "+10.0 points" in text_of(page)
    assert "Since" not in text_of(page)
    assert "http" not in page.replace("http://www.w3.org", "")


def test_cycles_add_up_and_changes_are_said(track):
    _, first, _ = track("v1")
    done, second, page = track("v2", comparison(tuned=(0.66, 0.3)), earlier=first)
    assert done.returncode == 0, done.stderr
    rows = rows_of(second)
    assert [row["cycle"] for row in rows] == ["v1"] * 6 + ["v2"] * 6
    assert rows[:6] == rows_of(first)
    text = text_of(page)
    assert "gsm8k tuned 60.0 % 66.0 % +6.0 points" in text
    assert "not comparable" not in text


def test_changed_questions_break_the_line(track):
    _, first, _ = track("v1")
    _, second, whole = track("v2", earlier=first)
    _, _, broken = track("v3", comparison(sha="bbbb"), earlier=second)
    assert "the scores of the two cycles are not comparable" in text_of(broken)
    assert "tuned 60.0 % 60.0 % not comparable" in text_of(broken)
    # a line from v1 to v2 for each of 3 candidates and 2 benchmarks, and none from v2 to v3
    assert whole.count('stroke-width="1.5"') == broken.count('stroke-width="1.5"') == 6
    assert (whole.count("stroke-dasharray"), broken.count("stroke-dasharray")) == (0, 2)


def test_the_same_cycle_again_adds_nothing_and_other_values_are_refused(track):
    _, first, _ = track("v1")
    _, second, _ = track("v2", earlier=first)
    done, again, _ = track("v1", earlier=second)
    assert done.returncode == 0, done.stderr
    assert "nothing was added" in done.stdout
    assert rows_of(again) == rows_of(second)
    again.unlink()
    done, again, _ = track("v1", comparison(tuned=(0.61, 0.3)), earlier=second)
    assert done.returncode == 1
    assert "cycle 'v1' is in the history with other values (1 of them, first for tuned on gsm8k)" in done.stderr
    assert not again.exists()


def test_another_champion_turns_the_difference_around(track):
    done, _, page = track("v1", champion="tuned")
    assert done.returncode == 0, done.stderr
    assert "gsm8k: base 0.5, tuned 0.6: regression" in done.stdout
    assert "gsm8k: third 0.1, tuned 0.6: not tested" in done.stdout
    assert "\N{MINUS SIGN}10.0 points" in text_of(page)


def test_logged_numbers(load_main, tmp_path):
    main = load_main("track_benchmarks")
    (tmp_path / "comparison").write_text(json.dumps(comparison()), encoding="utf-8")
    args = main.Args(tmp_path / "comparison", "v1", tmp_path / "history", tmp_path / "report")
    assert main.run(args) == {"eval/num_improvements": 1, "eval/num_regressions": 2}


def test_numbers_beyond_one_and_hostile_names(track):
    found = comparison()
    for part in found["benchmarks"]:
        part["means"] = {f"<script>{name}": mean(-1200.5 + i, 3) for i, name in enumerate(part["means"])}
        part["benchmark"] = f"<b>{part['benchmark']}"
        part["differences"] = {"<script>tuned": {"difference": 1.0, "p_holm": 0.5}}
    found["comparisons"][0]["baseline"] = "<script>base"
    done, history, page = track("v<1>", found)
    assert done.returncode == 0, done.stderr
    assert rows_of(history)[0]["mean"] == -1200.5
    assert "<script" not in page and "<b>" not in page and "v<1>" not in page
    assert not re.search(r"[0-9.]+ %|points", text_of(page))
    assert "\N{MINUS SIGN}1,200" in text_of(page)


GOOD_ROW = {
    **{"cycle": "v0", "time": "t", "candidate": "c", "benchmark": "b", "metric": "m", "num_items": 3},
    **{"eval_items_sha256": "s", "mean": 0.5, "low": None, "high": None},
}


def test_a_benchmark_that_was_given_up_leaves_the_charts_and_stays_in_the_history(track, tmp_path):
    rows = [GOOD_ROW | {"cycle": f"c{n}", "benchmark": "gsm8k" if n else "given up"} for n in range(25)]
    (tmp_path / "earlier").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done, history, page = track("v1", earlier=tmp_path / "earlier")
    assert done.returncode == 0, done.stderr
    assert "given up" not in page
    assert rows_of(history)[:25] == rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"cycle": "v0"}], "earlier:1: not a row of a history: mean: Field required"),
        ([GOOD_ROW, GOOD_ROW], "earlier:2: v0, c, b stands twice"),
        ([GOOD_ROW | {"score": 1}], "earlier:1: not a row of a history: score: Extra inputs"),
        ([GOOD_ROW | {"mean": "high"}], "not a row of a history: mean: Input should be a valid number"),
        ([GOOD_ROW | {"mean": float("inf")}], "earlier:1: not JSON: Infinity"),
    ],
)
def test_a_file_that_is_no_history(track, tmp_path, rows, message):
    (tmp_path / "earlier").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done, history, _ = track("v1", earlier=tmp_path / "earlier")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not history.exists()


@pytest.mark.parametrize(
    ("found", "flags", "message"),
    [
        (comparison(), {"cycle": " "}, "cycle is blank"),
        (comparison(), {"cycle": "v" * 501}, "cycle has more than 500 characters"),
        (
            comparison(),
            {"cycle": "v1", "champion": "best"},
            "champion 'best' is not in the comparison; it holds base, tuned",
        ),
        (comparison(benchmarks=[]), {"cycle": "v1"}, "benchmarks: List should have at least 1 item"),
        ({"metric": "f1"}, {"cycle": "v1"}, "confidence_level: Field required"),
    ],
)
def test_what_does_not_fit_is_one_line(track, found, flags, message):
    done, _, page = track(found=found, **flags)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert page is None
