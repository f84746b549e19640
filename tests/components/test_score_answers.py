"""score_answers: metric values worked out by hand, right in Japanese and Korean, and no answer left out."""

import importlib
import json
import sys

import pytest

from slmkit import answer_text, records


@pytest.fixture(scope="module")
def metrics(load_main):
    load_main("score_answers")
    return importlib.import_module("answer_metrics")


@pytest.fixture(scope="module")
def tokens(load_main):
    load_main("score_answers")
    return importlib.import_module("answer_tokens")


def item(id, reference="Tokyo", **more):
    messages = [{"role": "user", "content": "Where?"}]
    return {"id": id, "messages": messages, "references": [reference], **more}


def answer(id, output="Tokyo", **more):
    return {"id": id, "candidate": "tuned", "output": output, **more}


@pytest.fixture
def score(tmp_path, run_component):
    """Run the component on rows; gives the process and the scores by id (None where there are none)."""

    def run(predictions, eval_items, **flags):
        for name, rows in (("predictions", predictions), ("eval_items", eval_items)):
            with records.write_records(tmp_path / name) as write:
                for row in rows:
                    write(row)
        paths = {name: tmp_path / name for name in ("predictions", "eval_items", "scores")}
        done = run_component("score_answers", **paths, **flags)
        scores = {row["id"]: row for row in records.read_records(paths["scores"])} if paths["scores"].exists() else None
        return done, scores

    return run


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("  Hello,\n World!! ", "hello, world"),
        ("東京タワー。", "東京タワー"),
        ("ＡＢＣ　１２３．", "abc 123"),
        ("서울역입니다。", "서울역입니다"),
        ("\u1109\u1165\u110b\u116e\u11af", "서울"),  # conjoining jamo, as macOS writes file names
        ("ｶﾀｶﾅ｡", "カタカナ"),
        ("\ufeff東\u200b京\u200f。", "東京"),
        ("👩\u200d🔬", "👩\u200d🔬"),  # joined into one emoji
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("...", "..."),  # nothing but punctuation stays, so that it equals no empty answer
        ("50%", "50%"),
        ("", ""),
    ],
)
def test_normalize(tokens, text, normalized):
    assert tokens.normalize(text) == normalized


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The cat, the hat.", ["the", "cat", "the", "hat"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("서울 역", ["서", "울", "역"]),
        ("営業時間は10:00〜20:00です", [*"営業時間は", "10", "00", "20", "00", "で", "す"]),
        ("新宿Tower12店", ["新", "宿", "tower12", "店"]),
    ],
)
def test_tokens_are_words_and_single_characters_of_unspaced_scripts(text, wanted):
    assert answer_text.tokens(text) == wanted


def test_f1_by_hand(metrics):
    def f1(answer, reference):
        return metrics.F1("character").best(answer, [reference], "und")[0]

    # 2 of 3 tokens given are wanted, of 4 wanted: precision 2/3, recall 2/4 -> 2 * 2 / (3 + 4)
    assert f1("the red house", "the big old house") == pytest.approx(4 / 7)
    # a token counts as often as it stands in both: 'no' once
    assert f1("no no no", "no") == pytest.approx(2 / 4)
    assert f1("no no", "no no yes") == pytest.approx(2 * 2 / (2 + 3))
    # 4 characters in common, 5 given, 4 wanted
    assert f1("佐藤直樹氏", "佐藤 直樹") == pytest.approx(8 / 9)
    assert f1("김민수", "이영희") == 0
    assert f1("?", "?") == 1
    assert f1("", "Tokyo") == 0


def test_chrf_by_hand(metrics):
    # "abc" against "abd": 2/3, 1/2 and 0/1 of their 1-, 2- and 3-grams are common; longer ones are in neither.
    # chrF averages over the orders that exist: (2/3 + 1/2 + 0) / 3 (precision equals recall, so beta plays no part).
    assert metrics.Chrf().best("abc", ["abd"])[0] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert metrics.Chrf().best("東京タワー。", ["東京タワー"])[0] == pytest.approx(1)


def test_best_reference_counts(metrics):
    chosen = metrics.chosen(["exact_match", "f1", "chrf"], "auto", [])
    scores = metrics.score(chosen, ["02-123", "x"], [["no", "02-123."], ["y"]], ["en", "en"])
    assert scores["exact_match"] == [1.0, 0.0]
    assert scores["f1"] == [1.0, 0.0]
    assert scores["chrf"] == pytest.approx([1.0, 0.0])


def test_metrics_are_evaluate_metrics(metrics):
    import evaluate

    assert issubclass(metrics.ExactMatch, evaluate.Metric)
    assert metrics.ExactMatch().compute(predictions=["a"], references=[["A."]]) == {"exact_match": [1.0]}


def test_transformers_can_be_imported_after_the_light_import(metrics):
    assert sys.modules.get("transformers", "absent") is not None


def test_failures_score_zero_and_are_counted(score):
    done, scores = score(
        [answer("right"), answer("wrong", "Osaka"), answer("error", error="cut off")],
        [item("right"), item("wrong"), item("error"), item("missing")],
    )
    assert done.returncode == 0, done.stderr
    assert list(scores) == ["right", "wrong", "error", "missing"]
    assert scores["right"] == {
        "id": "right", "candidate": "tuned", "exact_match": 1.0, "f1": 1.0, "chrf": pytest.approx(1), "failed": 0
    }  # fmt: skip
    assert (scores["wrong"]["exact_match"], scores["wrong"]["failed"]) == (0.0, 0)
    for failure in ("error", "missing"):
        assert [scores[failure][name] for name in ("exact_match", "f1", "chrf", "failed")] == [0, 0, 0, 1]
    assert "exact_match 25.0%" in done.stdout
    assert "failed and scored 0: 2, 1 of them without a prediction" in done.stdout


def test_scores_say_which_model_was_asked(score):
    """The missing one too: a candidate is of one model, or none of its rows says of which."""
    asked = {"model_sha256": "a" * 64}
    _, scores = score([answer("there", **asked)], [item("there"), item("missing")])
    assert [row["model_sha256"] for row in scores.values()] == ["a" * 64] * 2
    _, scores = score([answer("there"), answer("old")], [item("there"), item("old")])
    assert not any("model_sha256" in row for row in scores.values())


def test_answers_of_unknown_origin_among_those_of_a_model_are_refused(score):
    answers = [answer("there", model_sha256="a" * 64), answer("added")]
    done, scores = score(answers, [item("there"), item("added")])
    assert (done.returncode, scores) == (1, None)
    assert "answers of several models under one name (rows that name none and model_sha256 aaa" in done.stderr


def test_answers_of_two_models_are_no_candidate(score):
    answers = [answer("a", model_sha256="a" * 64), answer("b", endpoint="https://h/v1")]
    done, scores = score(answers, [item("a"), item("b")])
    assert (done.returncode, scores) == (1, None)
    assert (
        f"answers of several models under one name (endpoint https://h/v1 and model_sha256 {'a' * 40})" in done.stderr
    )


def test_metrics_by_slice(tmp_path, load_main):
    main = load_main("score_answers")
    eval_items = [item("a", slices={"language": "ja"}), item("b", slices={"language": "ja"}), item("c", slices={})]
    rows = {"a": {"exact_match": 1.0}, "b": {"exact_match": 0.0}, "c": {"exact_match": 1.0}}
    means = main.slice_means({row["id"]: row for row in eval_items}, rows, "exact_match")
    assert means == {"eval/exact_match/language/ja": 0.5}


@pytest.mark.parametrize(
    ("predictions", "eval_items", "message"),
    [
        ([answer("x")], [item("a")], "predictions:1: prediction 'x' answers no eval item"),
        ([answer("a"), answer("a")], [item("a")], "predictions:2: prediction 'a' stands twice"),
        ([answer("a")], [item("a"), item("a")], "eval_items:2: id 'a' stands twice"),
        ([answer("a", None)], [item("a")], "neither an 'output' text nor an 'error'"),
        ([answer("a")], [item("a", reference=" ")], "needs 'references'"),
        ([answer("a")], [{"id": "a", "references": "Tokyo"}], "needs 'references'"),
        ([answer("a")], [item("a", slices="ja")], "eval_items:1: eval item 'a': 'slices' is a str"),
        ([answer("a", candidate=["x"])], [item("a")], "one named candidate"),
        ([answer("a"), answer("b", candidate="base")], [item("a"), item("b")], "found ['base', 'tuned']"),
        ([{"id": "a", "output": "Tokyo"}], [item("a")], "one named candidate"),
        ([{"candidate": "tuned", "output": "Tokyo"}], [item("a")], "predictions:1: no 'id'"),
        ([], [item("a")], "no predictions"),
        ([answer("a")], [], "no eval items"),
    ],
)
def test_what_does_not_fit_is_one_line(score, predictions, eval_items, message):
    done, scores = score(predictions, eval_items)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert scores is None


def test_a_line_that_is_not_json(tmp_path, run_component):
    (tmp_path / "items").write_text(json.dumps(item("a")) + "\n{oops\n", encoding="utf-8")
    (tmp_path / "predictions").write_text(json.dumps(answer("a")), encoding="utf-8")
    done = run_component(
        "score_answers",
        predictions=tmp_path / "predictions",
        eval_items=tmp_path / "items",
        scores=tmp_path / "scores",
    )
    assert done.returncode == 1
    assert "items:2: not JSON" in done.stderr
    assert not (tmp_path / "scores").exists()
