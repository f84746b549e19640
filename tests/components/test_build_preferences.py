"""build_preferences: every question and answer ends as a pair or in a count, and no cluster stands on both sides."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit import records
from slmkit.errors import UserError


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("build_preferences")


def item(id: str, cluster: str = "", reference: str = "the reference") -> dict:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"What is {id}?"}]
    return {"id": id, "messages": messages, "references": [reference], "cluster": cluster or f"cluster of {id}"}


def write(path: Path, rows: list[dict]) -> Path:
    with records.write_records(path) as write_one:
        for row in rows:
            write_one(row)
    return path


@pytest.fixture
def make_args(main, tmp_path):
    """Args from ``answers``: (id, candidate, output, f1), where None stands for a row that is not there."""

    def make(answers: list[tuple], items: list[dict] | None = None, **changes) -> object:
        predictions = [{"id": id, "candidate": who, "output": text} for id, who, text, _ in answers if text is not None]
        scores = [
            {"id": id, "candidate": who, "f1": score, "failed": 0} for id, who, _, score in answers if score is not None
        ]
        return main.Args(
            **{
                "predictions": write(tmp_path / "predictions", predictions),
                "scores": write(tmp_path / "scores", scores),
                "eval_items": write(
                    tmp_path / "items", items or [item(id) for id in dict.fromkeys(a[0] for a in answers)]
                ),
                "train_preferences": tmp_path / "out/train",
                "validation_preferences": tmp_path / "out/validation",
                "report": tmp_path / "out/report",
                "use_reference": False,
                "validation_fraction": 0.0,
                **changes,
            }
        )

    return make


def pairs(args) -> list[dict]:
    return list(records.read_records(args.train_preferences))


def report(args) -> dict:
    return json.loads((args.report / "report.json").read_text(encoding="utf-8"))


def short(rows: list[dict]) -> list[tuple]:
    return [(row["question_id"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


def test_best_against_worst_in_the_form_that_trl_reads(main, make_args):
    args = make_args([("q", "a", "poor", 0.2), ("q", "b", "best", 0.9), ("q", "c", "fair", 0.6)])
    assert main.run(args)["data/num_pairs"] == 1
    (pair,) = pairs(args)
    assert pair.pop("id")
    assert pair == {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is q?"}],
        "chosen": [{"role": "assistant", "content": "best"}],
        "rejected": [{"role": "assistant", "content": "poor"}],
        "chosen_score": 0.9,
        "rejected_score": 0.2,
        "chosen_candidate": "b",
        "rejected_candidate": "a",
        "question_id": "q",
        "cluster": "cluster of q",
    }


def test_more_pairs_of_a_question_by_their_margins(main, make_args):
    answers = [("q", "a", "0.2", 0.2), ("q", "b", "0.9", 0.9), ("q", "c", "0.6", 0.6), ("q", "d", "0.85", 0.85)]
    args = make_args(answers, max_pairs_per_prompt=4)
    main.run(args)
    # Margins 0.7, 0.65, 0.4 and 0.3; 0.25 is the fifth, and 0.9 against 0.85 is below min_margin.
    assert short(pairs(args)) == [("q", "0.9", "0.2"), ("q", "0.85", "0.2"), ("q", "0.6", "0.2"), ("q", "0.9", "0.6")]


def test_a_margin_of_exactly_min_margin_counts(main, make_args):
    args = make_args([("q", "a", "worse", 0.8), ("q", "b", "better", 0.9)])  # 0.9 - 0.8 is below 0.1 in floats
    main.run(args)
    assert len(pairs(args)) == 1


def test_the_reference_is_preferred_where_no_answer_is_good(main, make_args):
    answers = [("weak", "a", "no idea", 0.1), ("good", "a", "right", 0.9), ("good", "b", "wrong", 0.0)]
    args = make_args(answers, use_reference=True)
    metrics = main.run(args)
    assert short(pairs(args)) == [("weak", "the reference", "no idea"), ("good", "right", "wrong")]
    assert pairs(args)[0]["chosen_score"] == 1.0
    assert metrics["data/reference_chosen_fraction"] == 0.5


def test_what_makes_no_pair_is_counted_with_its_reason(main, make_args):
    answers = [
        *[("paired", "a", "x", 0.0), ("paired", "b", "y", 1.0)],
        *[("tie", "a", "x", 0.7), ("tie", "b", "y", 0.7)],
        *[("close", "a", "x", 0.72), ("close", "b", "y", 0.7)],
        *[("poor", "a", "x", 0.2), ("poor", "b", "y", 0.4)],
        *[("alone", "a", "x", 0.9), ("alone", "b", "x", 0.9)],
        *[("silent", "a", " \n", 0.0), ("silent", "b", None, 0.0)],
        *[("unscored", "a", "x", None), ("stranger", "a", "x", 0.5)],
    ]
    items = [item(id) for id in ("paired", "tie", "close", "poor", "alone", "silent", "unscored", "never asked")]
    args = make_args(answers, items, max_error_fraction=0.5)
    metrics = main.run(args)
    assert report(args)["questions"] == {
        "no answer to compare": 3,
        "made a pair": 1,
        "all scores equal": 1,
        "margin below min_margin": 1,
        "no answer reaches min_chosen_score": 1,
        "one answer only": 1,
    }
    assert report(args)["answers"] == {
        "compared": 9,
        "the same text as another": 1,
        "blank": 1,
        "a score without an answer": 1,
        "without a score": 1,
        "to no question of eval_items": 1,
    }
    assert metrics["data/num_questions_without_pair"] == 7


def test_failed_answers_are_neither_chosen_nor_rejected(main, make_args):
    args = make_args([("q", "a", "x", 0.0), ("q", "b", "y", 1.0), ("q", "c", "z", 0.5)], max_error_fraction=0.7)
    rows = list(records.read_records(args.scores))
    write(args.scores, [{**row, "failed": int(row["candidate"] == "a")} for row in rows])
    outputs = list(records.read_records(args.predictions))
    write(args.predictions, [{**row, **({"error": "timeout"} if row["candidate"] == "b" else {})} for row in outputs])
    with pytest.raises(UserError, match=r"no pair from 1 questions [(]one answer only 1[)]"):
        main.run(args)
    with pytest.raises(UserError, match=r"2 of 3 answers \(failed 2\)"):
        main.run(main.Args(**{**vars(args), "max_error_fraction": 0.1}))


scored = st.lists(
    st.tuples(
        *[st.sampled_from("pqr"), st.sampled_from("abc"), st.sampled_from(["", "x", "y", "z", None])],
        st.sampled_from([0.0, 0.3, 0.5, 1.0, None]),
    ),
    unique_by=lambda row: row[:2],
)


@given(scored, st.booleans(), st.integers(1, 4))
def test_nothing_is_lost(load_main, scored, use_reference, max_pairs):
    """Whatever the answers: each is in one count, each question in one, and each pair keeps the rules."""
    main = load_main("build_preferences")
    import preference_pairs

    fields = {path: Path(path) for path in ("predictions", "scores", "eval_items")}
    fields |= {path: Path(path) for path in ("train_preferences", "validation_preferences", "report")}
    args = main.Args(**fields, use_reference=use_reference, max_pairs_per_prompt=max_pairs)
    rows = {
        "predictions": {(i, c): {"id": i, "candidate": c, "output": o} for i, c, o, _ in scored if o is not None},
        "scores": {(i, c): {"id": i, "candidate": c, "f1": s} for i, c, _, s in scored if s is not None},
    }
    items = {id: item(id) for id in "pq"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "read_rows", lambda path, other: rows[path.name])
        answers, counts = main.read_answers(args, items)
    assert counts.total() == len(rows["predictions"].keys() | rows["scores"].keys())
    assert counts["compared"] == sum(map(len, answers.values()))
    for id in items:
        made, outcome = preference_pairs.pairs_of(items[id], answers[id], args)
        assert bool(made) == (outcome == preference_pairs.PAIRED)
        assert len(made) <= max_pairs
        for pair in made:
            assert pair["chosen"] != pair["rejected"]
            assert pair["chosen_score"] >= 0.5
            assert pair["chosen_score"] - pair["rejected_score"] >= 0.1


def many(num_questions: int, cluster_of) -> tuple[list[tuple], list[dict]]:
    ids = [f"q{number}" for number in range(num_questions)]
    answers = [(id, who, f"{id} {who}", score) for id in ids for who, score in (("a", 0.0), ("b", 1.0))]
    return answers, [item(id, cluster_of(number)) for number, id in enumerate(ids)]


def test_a_cluster_stands_on_one_side(main, make_args):
    answers, items = many(60, lambda number: f"document {number % 12}")
    args = make_args(answers, items, validation_fraction=0.2)
    metrics = main.run(args)
    train, held_out = pairs(args), list(records.read_records(args.validation_preferences))
    sides = [{pair["cluster"] for pair in side} for side in (train, held_out)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 12
    assert metrics["data/num_validation_pairs"] == len(held_out) == 10  # 12 of 60 were wanted: two clusters of five
    assert len(train) == 50


@pytest.mark.parametrize(("sizes", "expected"), [([40, 2], 2), ([30], 0), ([10, 10], 10)])
def test_few_uneven_clusters_leave_something_to_train_on(main, make_args, sizes, expected):
    clusters = [f"c{place}" for place, size in enumerate(sizes) for _ in range(size)]
    answers, items = many(sum(sizes), clusters.__getitem__)
    assert main.run(make_args(answers, items, validation_fraction=0.1))["data/num_validation_pairs"] == expected


def test_the_seed_draws_among_equals_and_nothing_else_does(main, make_args, tmp_path):
    answers = [(f"q{n}", who, f"{who} {n}", float(who == "a")) for n in range(20) for who in "abcd"]
    args = make_args(answers)
    main.run(args)
    first = args.train_preferences.read_bytes()
    assert {pair["rejected_candidate"] for pair in pairs(args)} == {"b", "c", "d"}
    write(args.predictions, list(records.read_records(args.predictions))[::-1])
    main.run(args)
    assert args.train_preferences.read_bytes() == first
    main.run(main.Args(**{**vars(args), "seed": 1}))
    assert args.train_preferences.read_bytes() != first


def test_a_folder_of_candidates_and_a_second_pair_of_ports_say_the_same(main, make_args, tmp_path):
    args = make_args([("q", "a", "poor", 0.2), ("q", "b", "best", 0.9)])
    main.run(args)
    expected = args.train_preferences.read_bytes()
    split = {}
    for port in ("predictions", "scores"):
        rows = list(records.read_records(getattr(args, port)))
        for row in rows:
            write(tmp_path / f"{port} folder" / f"{row['candidate']}.jsonl", [row])
            write(tmp_path / f"{row['candidate']}_{port}", [row])
        split[port], split[f"other_{port}"] = tmp_path / f"a_{port}", tmp_path / f"b_{port}"
    for changes in ({port: tmp_path / f"{port} folder" for port in ("predictions", "scores")}, split):
        main.run(main.Args(**{**vars(args), **changes}))
        assert args.train_preferences.read_bytes() == expected


def test_the_page_names_the_length_bias_and_escapes_answers(main, make_args):
    answers = [
        (f"q{n}", who, text, score) for n in range(4) for who, text, score in [("a", "<b>x", 0.0), ("b", "y" * 99, 1.0)]
    ]
    args = make_args(answers)
    metrics = main.run(args)
    assert metrics["data/chosen_longer_fraction"] == 1.0
    assert metrics["data/mean_chosen_characters"] == 99
    page = (args.report / "report.html").read_text(encoding="utf-8")
    assert "always preferred the longer answer would be right in 100% of the pairs" in page
    assert ">length bias<" in page
    assert "&lt;b&gt;x" in page
    assert "<b>x" not in page


Q = item("q")
BAD_INPUT = [
    ({"items": [Q, Q]}, "items:2: 'id' is missing or stands twice"),
    ({"items": [{**Q, "messages": [{"role": "user", "content": ""}]}]}, "items:1: message 1 .user. has no text"),
    (
        {"items": [{**Q, "messages": [*Q["messages"], {"role": "assistant", "content": "a"}]}]},
        "end with the user's turn",
    ),
    ({"items": [{**Q, "references": "text"}]}, "items:1: no 'references'"),
    ({"items": []}, "no eval items"),
    (
        {"predictions": [{"id": "q", "candidate": "a", "output": "x"}] * 2},
        "predictions:2: 'a' has a second row for 'q'",
    ),
    ({"predictions": [{"id": "q", "output": "x"}]}, "predictions:1: a row needs 'id' and 'candidate'"),
    ({"scores": []}, "no rows"),
    ({"scores": [{"id": "q", "candidate": c, "chrf": 1} for c in "ab"]}, r"a: f1 of 'q' is None.*there: chrf"),
    ({"scores": [{"id": "q", "candidate": c, "f1": 4} for c in "ab"]}, "a number from 0 to 1"),
]


@pytest.mark.parametrize(("files", "expected"), BAD_INPUT, ids=[expected[:30] for _, expected in BAD_INPUT])
def test_bad_input_is_one_clear_line(main, make_args, files, expected):
    args = make_args([("q", "a", "x", 0.0), ("q", "b", "y", 1.0)], use_reference=True)
    ports = {"items": args.eval_items, "predictions": args.predictions, "scores": args.scores}
    for name, rows in files.items():
        write(ports[name], rows)
    with pytest.raises(UserError, match=expected):
        main.run(args)
    assert not args.train_preferences.exists()


def test_as_a_process_with_lineage(run_component, make_args):
    args = make_args([("q", "a", "x", 0.0), ("q", "b", "y", 1.0)])
    done = run_component(
        "build_preferences", **{name: value for name, value in vars(args).items() if value is not None}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 pairs from 1 questions, 0 of them held out; mean margin 1.00 in f1")
    assert args.train_preferences.with_name("train.lineage.json").is_file()
