"""prepare_benchmark: each published schema becomes the items that it says, and a row that cannot be scored none."""

import json
from collections import Counter
from pathlib import Path

import pytest

from slmkit import records
from slmkit.errors import UserError

FIXTURES = Path(__file__).with_name("fixtures_benchmarks")
BENCHMARKS = Path(__file__).resolve().parents[3] / "shared" / "data" / "benchmarks"


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("prepare_benchmark")


@pytest.fixture
def prepare(main, tmp_path):
    """Run it in this process; the items and the report."""

    def run(benchmark: str, raw_data: Path | None = None, **flags) -> tuple[list[dict], dict]:
        args = main.Args(benchmark, tmp_path / "out" / "items", tmp_path / "out" / "report", raw_data, **flags)
        main.run(args)
        return list(records.read_records(args.eval_items)), json.loads((args.report / "report.json").read_text("utf-8"))

    return run


def folder(tmp_path: Path, name: str, content: str | bytes | list[dict]) -> Path:
    path = tmp_path / "raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return tmp_path / "raw"


def jcq(q_id: int, question: str, label: object = 0, choices: str = "甲乙丙丁戊") -> dict:
    return {"q_id": q_id, "question": question, **{f"choice{n}": c for n, c in enumerate(choices)}, "label": label}


def asked(item: dict) -> str:
    return item["messages"][-1]["content"]


# --- the published schemas


def test_kmmlu_maps_columns_by_name_and_counts_from_one(prepare):
    items, report = prepare("kmmlu", FIXTURES / "kmmlu", files="data/*-test.csv")
    assert [(item["slices"]["subject"], item["gold"], item["references"]) for item in items] == [
        ("korean_history", 2, ["세종"]),
        ("korean_history", 0, ["독도"]),
        ("korean_history", 1, ["개성"]),
        ("math", 3, ["7"]),  # whose file has the last two columns the other way round
        ("math", 0, ["60도"]),
    ]
    # As lm-eval's kmmlu asks it: the line break within a quoted cell stays.
    assert asked(items[1]) == (
        '다음 글이 가리키는 섬은?\n"동쪽 끝에 있고, 두 개의 큰 바위로 되어 있다."\n'
        "A. 독도\nB. 거제도\nC. 강화도\nD. 진도\n정답："
    )
    assert items[0]["labels"] == ["A", "B", "C", "D"] and items[0]["choices"] == ["태조", "태종", "세종", "성종"]
    assert items[0]["slices"] == {"benchmark": "kmmlu", "language": "ko", "subject": "korean_history"}
    assert report["subjects"] == {"korean_history": 3, "math": 2}
    assert report["gold"]["letters"] == {"A": 2, "B": 1, "C": 1, "D": 1}
    assert report["gold"]["chance"] == 0.25 and report["gold"]["most_frequent"] == 0.4
    assert len({item["id"] for item in items}) == 5 and all(item["id"].startswith("kmmlu-") for item in items)


def test_kmmlu_hard(prepare):
    ((item,), _) = prepare("kmmlu_hard", FIXTURES / "kmmlu_hard")
    assert (item["gold"], item["slices"]["benchmark"], item["slices"]["subject"]) == (1, "kmmlu_hard", "law")


def test_click_has_passages_that_questions_share_and_four_or_five_choices(prepare):
    items, _ = prepare("click", FIXTURES / "click")
    assert [item["id"] for item in items] == [
        *("click-CSAT_geography_99_1", "click-CSAT_geography_99_2", "click-KIIP_tradition_9", "click-TK_99_7")
    ]
    assert [item["slices"]["subject"] for item in items] == ["geography", "geography", "tradition", "language"]
    assert asked(items[0]) == (
        "이 섬은 화산 활동으로 만들어졌으며 남쪽에 있다.\n\n위 글이 설명하는 섬은?\n"
        "A. 강화도\nB. 제주도\nC. 거제도\nD. 진도\nE. 완도\n정답："
    )
    assert [item["gold"] for item in items] == [1, 0, 0, 0]  # a blank after a choice or an answer is none of it
    assert items[0]["cluster"] == items[1]["cluster"] and "cluster" not in items[2]


def test_hae_rae_brings_its_prompt_along(prepare):
    items, _ = prepare("hae_rae", FIXTURES / "hae_rae")
    assert asked(items[0]).endswith("(E) 짝\n### 정답:") and "\nA. " not in asked(items[0])
    assert [(item["gold"], item["references"]) for item in items] == [(0, ["차림표"]), (0, ["누리집"]), (4, ["동아리"])]
    assert {item["slices"]["subject"] for item in items} == {"loan_words"}
    with pytest.raises(UserError, match="list their choices themselves; use answer_style letter"):
        prepare("hae_rae", FIXTURES / "hae_rae", answer_style="text")


def test_an_open_question_of_hae_rae_has_references(prepare, tmp_path):
    raw = folder(tmp_path, "date.jsonl", [{"query": "광복절은 언제인가?", "options": "nan", "answer": "8월 15일"}])
    ((item,), _) = prepare("hae_rae", raw)
    assert item["references"] == ["8월 15일"] and not {"choices", "gold", "labels"} & item.keys()


def test_jmmlu_has_no_header(prepare):
    items, _ = prepare("jmmlu", FIXTURES / "jmmlu")
    assert [(item["gold"], item["references"]) for item in items] == [(1, ["乙"]), (3, ["1,903年"]), (0, ["北"])]
    assert items[0]["choices"][0] == '「"王"甲」'
    assert asked(items[0]).startswith("「賢王」と呼ばれたのは誰か？\nA. ")  # no byte-order mark
    assert asked(items[0]).endswith("\n答え：")
    assert items[0]["slices"]["subject"] == "world_history"


def test_mmlu_as_csv_and_as_on_the_hub_is_the_same_item(prepare):
    csv_items, _ = prepare("mmlu", FIXTURES / "mmlu", files="test/*.csv")
    ((hub_item,), _) = prepare("mmlu", FIXTURES / "mmlu_hub")
    assert csv_items[0] == hub_item
    assert asked(hub_item) == ("Which body is closest to the Sun?\nA. Venus\nB. Mercury\nC. Earth\nD. Mars\nAnswer:")
    assert (hub_item["gold"], hub_item["slices"]["subject"]) == (1, "astronomy")
    assert asked(csv_items[1]).startswith("A light year measures\nwhat?\nA. Time")


def test_a_file_of_mmlu_that_was_given_a_header(prepare, tmp_path):
    raw = folder(tmp_path, "x.csv", "question,A,B,C,D,answer\nWhat?,1,2,3,4,C\n")
    ((item,), report) = prepare("mmlu", raw)
    assert (item["gold"], report["counts"]["refused"]) == (2, 0)


def test_gsm8k_reference_is_the_number_without_separators(prepare, tmp_path):
    rows = [
        {"question": "How much?", "answer": "It is 40*27=<<40*27=1080>>1080.\n#### 1,080"},
        {"question": "How cold?", "answer": "Below.\n#### -3.5"},
        {"question": "And?", "answer": "One more.\n#### 7"},
    ]
    raw = folder(tmp_path, "test.jsonl", rows)
    items, _ = prepare("gsm8k", raw)
    assert [item["references"] for item in items] == [["1080"], ["-3.5"], ["7"]]
    assert items[0]["messages"] == [{"role": "user", "content": "Question: How much?\nAnswer:"}]
    items, report = prepare("gsm8k", raw, num_fewshot=1)
    assert report["counts"] == {
        **{"rows": 3, "refused": 0, "for_examples_only": 0, "left_out_as_examples": 1, "not_drawn": 0, "items": 2}
    }
    example = items[0]["messages"][1]["content"]  # the whole reasoning
    assert example in [row["answer"] for row in rows]
    assert example.endswith(next(r["answer"] for r in rows if r["question"] not in str([asked(i) for i in items]))[-3:])


# --- few-shot, style, sample


def test_the_examples_of_a_subject_are_one_prefix_with_even_letters(prepare):
    flags = {"files": "data/*-test.csv", "fewshot_files": "data/*-dev.csv", "num_fewshot": 3}
    items, _ = prepare("kmmlu", FIXTURES / "kmmlu", **flags)
    prefixes = {item["slices"]["subject"]: set() for item in items}
    for item in items:
        assert [turn["role"] for turn in item["messages"]] == ["user", "assistant"] * 3 + ["user"]
        prefixes[item["slices"]["subject"]].add(json.dumps(item["messages"][:-1], ensure_ascii=False))
    assert {subject: len(found) for subject, found in prefixes.items()} == {"korean_history": 1, "math": 1}
    history = json.loads(prefixes["korean_history"].pop())
    assert len({turn["content"] for turn in history[1::2]}) == 3  # of eight with two for each letter, three letters
    assert all("연습 문제" in turn["content"] for turn in history[::2])
    math = json.loads(prefixes["math"].pop())  # exactly three: as they stand
    assert [turn["content"].split("\n")[0] for turn in math[::2]] == ["0 + 1 은?", "1 + 1 은?", "2 + 1 은?"]


def test_five_of_five_examples_stand_in_the_order_of_their_file(prepare):
    flags = {"files": "test/*.csv", "fewshot_files": "dev/*.csv", "num_fewshot": 5}
    items, _ = prepare("mmlu", FIXTURES / "mmlu", **flags)
    assert [turn["content"] for turn in items[0]["messages"][1::2]] == list("ABCDA")


def test_an_asked_question_is_never_an_example(prepare, tmp_path):
    rows = [jcq(n, f"{n}番目の質問は？", n % 5) for n in range(10)]
    folder(tmp_path, "test.jsonl", rows[:4])
    raw = folder(tmp_path, "train.jsonl", [{**row, "q_id": row["q_id"] + 100} for row in rows])
    flags = {"files": "test.jsonl", "fewshot_files": "train.jsonl"}
    items, _ = prepare("jcommonsenseqa", raw, num_fewshot=6, **flags)
    shown = {turn["content"] for turn in items[0]["messages"][:-1] if turn["role"] == "user"}
    assert len(items) == 4 and len(shown) == 6 and not shown & {asked(item) for item in items}
    with pytest.raises(UserError, match=r"jcommonsenseqa: 6 questions to take num_fewshot=7 examples from; lower it"):
        prepare("jcommonsenseqa", raw, num_fewshot=7, **flags)


def test_examples_from_the_questions_themselves_are_not_asked(prepare, tmp_path):
    raw = folder(tmp_path, "valid.jsonl", [jcq(n, f"{n}番目の質問は？", n % 5) for n in range(10)])
    items, report = prepare("jcommonsenseqa", raw, num_fewshot=5)
    assert sorted(turn["content"] for turn in items[0]["messages"][1::2]) == list("ABCDE")
    shown = {turn["content"] for turn in items[0]["messages"][:-1] if turn["role"] == "user"}
    assert not shown & {asked(item) for item in items} and len(items) == 5
    assert report["counts"]["left_out_as_examples"] == 5
    with pytest.raises(UserError, match="10 questions to take num_fewshot=10 examples from and one must be left"):
        prepare("jcommonsenseqa", raw, num_fewshot=10)


def test_text_style_lists_no_choices_and_answers_in_words(prepare):
    flags = {"files": "data/Math-test.csv", "fewshot_files": "data/Math-dev.csv", "num_fewshot": 1}
    items, _ = prepare("kmmlu", FIXTURES / "kmmlu", answer_style="text", **flags)
    assert asked(items[0]) == "3 + 4 의 값은?\n정답："
    example, answer = (turn["content"] for turn in items[0]["messages"][:2])
    assert example.endswith(" 은?\n정답：") and int(answer) == int(example[0]) + 1
    assert "labels" not in items[0] and items[0]["choices"] == ["5", "6", "8", "7"]


def test_an_instruction_opens_the_first_turn_alone(prepare):
    flags = {"files": "test/*.csv", "fewshot_files": "dev/*.csv", "num_fewshot": 1}
    items, _ = prepare("mmlu", FIXTURES / "mmlu", instruction="Questions about {subject}.", **flags)
    contents = [turn["content"] for turn in items[0]["messages"]]
    assert contents[0].startswith("Questions about astronomy.\n\nDev question")
    assert not any("Questions about" in text for text in contents[1:])


def test_a_sample_keeps_the_share_of_each_subject(prepare, tmp_path):
    rows = [
        {"question": f"{subject} {n}?", "subject": subject, "choices": ["a", "b"], "answer": n % 2}
        for subject, number in (("large", 60), ("middle", 30), ("small", 10))
        for n in range(number)
    ]
    raw = folder(tmp_path, "test.jsonl", rows)
    items, report = prepare("mmlu", raw, max_num_items=10)
    assert report["subjects"] == {"large": 6, "middle": 3, "small": 1}
    assert report["counts"]["not_drawn"] == 90
    again, _ = prepare("mmlu", folder(tmp_path, "test.jsonl", rows[::-1]), max_num_items=10)
    assert {item["id"] for item in again} == {item["id"] for item in items}  # whatever the order of the rows
    other, _ = prepare("mmlu", raw, max_num_items=10, seed=7)
    assert {item["id"] for item in other} != {item["id"] for item in items}


# --- columns that a person names


@pytest.mark.parametrize(
    ("gold_is", "values"),
    [
        ("index", ["1", "0"]),
        ("number", ["2", "1"]),
        ("number", ["２", "①"]),
        ("letter", ["b", "(A)"]),
        ("letter", ["Ｂ", "（Ａ）"]),
        ("text", ["no", "yes"]),
    ],
)
def test_columns_by_name(prepare, tmp_path, gold_is, values):
    table = [
        ["nr", "q", "a", "b", "c", "right", "level"],
        ["7", "Is it?", "yes", "no", "", values[0], "easy"],
        ["8", "Is that?", "yes", "no", "maybe", values[1], "hard"],
    ]
    raw = folder(tmp_path, "x.tsv", "".join("\t".join(cells) + "\n" for cells in table))
    what = "question: q, choices: [a, b, c], gold: right, id: nr, slices: [level], benchmark: exam"
    items, _ = prepare("columns", raw, columns=f"{{{what}, gold_is: {gold_is}}}")
    assert [(item["id"], item["choices"], item["gold"]) for item in items] == [
        ("exam-7", ["yes", "no"], 1),
        ("exam-8", ["yes", "no", "maybe"], 0),
    ]
    assert items[0]["slices"] == {"benchmark": "exam", "language": "en", "level": "easy"}


def test_open_questions_by_column_names(prepare, tmp_path):
    rows = [{"問": "首都は？", "答": ["東京", "東京都"], "文": "日本について。"}]
    mapping = "{question: 問, references: 答, context: 文}"
    ((item,), _) = prepare("columns", folder(tmp_path, "x.jsonl", rows), columns=mapping)
    assert item["references"] == ["東京", "東京都"] and asked(item) == "日本について。\n\n首都は？\n答え："


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("{question: q", "columns: not YAML"),
        ("{question: q, choice: [a, b]}", "columns: unknown key 'choice'; known: question, choices, gold"),
        ("{question: q}", "name either the choices or, for open questions, the references"),
        ("{question: q, choices: [a, b], gold: g}", "gold_is: index"),
        ("{question: q, references: r, slices: [subject]}", "slices may not be called subject"),
        ("[q]", "columns: columns: Input should be a valid dictionary"),
        ("{question: q, references: r, benchmark: 'a b'}", "columns: benchmark: String should match"),
    ],
)
def test_a_mapping_that_cannot_be_used(prepare, tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        prepare("columns", folder(tmp_path, "x.jsonl", [{"q": "?"}]), columns=columns)


# --- rows that cannot be scored

GOOD = [jcq(n, f"良い質問{n}？", n % 5) for n in range(9)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (jcq(9, " "), "the question is blank"),
        (jcq(9, "問？", 5), r"the gold answer '5' \(read as index\) is not among the 5 choices"),
        (jcq(9, "問？", "9" * 5000), r"the gold answer '9{80}' \(read as index\) is not among"),
        (jcq(9, "問？", "甲"), r"the gold answer '甲' \(read as index\) is not among"),
        (jcq(9, "問？", None), "no gold answer"),
        (jcq(9, "問？", 0, "甲乙丙乙戊"), "choices B and D are the same: '乙'"),
        (jcq(9, "問？", 0, "甲 丙丁戊"), "choice B is blank"),
        (jcq(9, "問？", True), "the gold answer is bool and not a text"),
        (jcq(9, ["問"], 0), "question is list and not a text"),
        ({"q_id": 9, "question": "問？"}, r"no column 'choice0' \(there are q_id, question\)"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line(prepare, tmp_path, row, reason):
    raw = folder(tmp_path, "test.jsonl", [*GOOD, row])
    with pytest.raises(UserError, match=rf"1 of 10 rows \(test\.jsonl:10: {reason}.*max_error_fraction=0\.02"):
        prepare("jcommonsenseqa", raw)
    quarantine = tmp_path / "out" / "report" / "quarantine.jsonl"
    assert [entry["line"] for entry in records.read_records(quarantine)] == [10]
    assert not (tmp_path / "out" / "items").exists()
    items, report = prepare("jcommonsenseqa", raw, max_error_fraction=0.1)
    assert report["counts"]["refused"] == 1 and len(items) == 9
    assert [entry["line"] for entry in records.read_records(quarantine)] == [10]


def test_a_question_without_an_id_counts_once(prepare, tmp_path):
    table = "First?,1,2,3,4,A\nSecond?,1,2,3,4,B\nFirst?,1,2,3,4,C\n"
    with pytest.raises(UserError, match=r"x\.csv:3: the same question and choices as at x\.csv:1"):
        prepare("mmlu", folder(tmp_path, "x.csv", table))


def test_lines_that_are_no_json_count_with_the_others(prepare, tmp_path):
    lines = [json.dumps(row, ensure_ascii=False) for row in GOOD]
    raw = folder(tmp_path, "a/test.jsonl", "\n".join([*lines[:3], "{oops", *lines[3:]]))
    with pytest.raises(UserError, match=r"1 of 10 rows \(a/test.jsonl:4: not JSON"):
        prepare("jcommonsenseqa", raw)


def test_an_id_that_stands_twice_names_both_rows(prepare, tmp_path):
    folder(tmp_path, "a.jsonl", GOOD)
    raw = folder(tmp_path, "b.jsonl", [jcq(3, "別の質問？")])
    with pytest.raises(UserError, match=r"b.jsonl:1: the id '3' stands at a.jsonl:4 already"):
        prepare("jcommonsenseqa", raw, max_error_fraction=1.0)


@pytest.mark.parametrize("choices", ["{[]: 1}", "-" * 100_000 + "1", "[" * 100_000, "__import__('os')"])
def test_choices_that_are_no_list(prepare, tmp_path, choices):
    raw = folder(tmp_path, "x.jsonl", [{"q": "?", "c": choices, "g": 1}])
    with pytest.raises(UserError, match=r"x.jsonl:1: the choices .* are not a list"):
        prepare("columns", raw, columns="{question: q, choices: c, gold: g, gold_is: number}")


@pytest.mark.parametrize("label", [None, -1, ""])
def test_a_split_without_answers_is_said_so(prepare, tmp_path, label):
    raw = folder(tmp_path, "test.jsonl", [{**row, "label": label} for row in GOOD])
    with pytest.raises(UserError, match=r"none of the 9 rows of test.jsonl says which answer is right"):
        prepare("jcommonsenseqa", raw, max_error_fraction=1.0)


def test_a_quote_that_is_never_closed_stops_where_it_opens(prepare, tmp_path):
    raw = folder(tmp_path, "x_test.csv", 'Good?,1,2,3,4,A\n"Open?,1,2,3,4,B\nNext?,1,2,3,4,C\n')
    with pytest.raises(UserError, match=r"x_test.csv:2: not CSV from here on"):
        prepare("mmlu", raw)


def test_the_line_of_a_csv_row_is_where_it_begins(prepare, tmp_path):
    raw = folder(tmp_path, "x_test.csv", '"Two\nlines?",1,2,3,4,A\nShort?,1,2\n')
    with pytest.raises(UserError, match=r"x_test.csv:3: 3 cells where 6 belong"):
        prepare("mmlu", raw)


def test_a_line_separator_within_a_cell_ends_no_row(prepare, tmp_path):
    ((item,), _) = prepare("mmlu", folder(tmp_path, "x_test.csv", "One\u2028and two?,1,2,3,4,A\n"))
    assert asked(item).startswith("One\u2028and two?\nA. 1")


def test_other_encodings(prepare, tmp_path):
    row = "日本の首都は？,大阪,東京,京都,奈良,B\n"
    ((item,), _) = prepare("jmmlu", folder(tmp_path, "x.csv", row.encode("utf-16")))
    assert item["references"] == ["東京"]
    with pytest.raises(UserError, match=r"x.csv:1: not UTF-8 .*; save the file as UTF-8"):
        prepare("jmmlu", folder(tmp_path, "x.csv", row.encode("cp932")))


def test_nothing_to_ask(prepare, tmp_path):
    with pytest.raises(UserError, match=r"no question in 0 rows; is benchmark right\?"):
        prepare("mmlu", folder(tmp_path, "x.csv", ""))
    with pytest.raises(UserError, match=r"no question in 1 rows \(x\.jsonl:1: no column 'query' \(there are q\)\)"):
        folder(tmp_path, "x.csv", "").joinpath("x.csv").unlink()
        prepare("hae_rae", folder(tmp_path, "x.jsonl", [{"q": "?"}]))


def test_half_a_character_and_a_choice_that_is_minus_one(prepare, tmp_path):
    row = {"id": "1", "question": "x?", "choices": ["-1", "1"], "answer": "-1"}
    array = json.dumps([row, row | {"id": "2", "question": "\ud800?"}])
    items, _ = prepare("click", folder(tmp_path, "x.json", array), max_error_fraction=0.5)
    assert [(item["id"], item["gold"]) for item in items] == [("click-1", 0)]


def test_examples_of_another_subject_are_none(prepare):
    flags = {"files": "data/*-test.csv", "fewshot_files": "data/Math-dev.csv", "num_fewshot": 1}
    with pytest.raises(UserError, match="subject korean_history: 0 questions to take num_fewshot=1 examples from"):
        prepare("kmmlu", FIXTURES / "kmmlu", **flags)


def test_a_json_array_names_the_line_of_a_bad_object(prepare, tmp_path):
    array = '[\n {"id": "1", "question": "?",\n  "choices": ["a", "b"], "answer": "a"},\n 5\n]'
    with pytest.raises(UserError, match=r"1 of 2 rows \(x.json:4: not a JSON object but a int"):
        prepare("click", folder(tmp_path, "x.json", array))
    with pytest.raises(UserError, match=r"x.json:2: not JSON from here on"):
        prepare("click", folder(tmp_path, "x.json", '[\n {"id": 1,]'))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "give either raw_data"),
        ({"dataset_name": "x/y"}, "split of 'x/y' is missing"),
        ({"raw_data": FIXTURES, "files": "../*"}, "leads out of raw_data"),
        ({"raw_data": FIXTURES, "files": "/etc/*"}, "leads out of raw_data"),
        ({"raw_data": FIXTURES, "files": "."}, "'.' is no file pattern"),
        ({"raw_data": FIXTURES, "files": "*.txt"}, "no .csv, .tsv, .json, .jsonl, .jsonl.gz, .parquet file matches"),
        ({"raw_data": FIXTURES, "fewshot_files": "**/*", "num_fewshot": 1}, "none is left to ask"),
        ({"raw_data": FIXTURES, "fewshot_files": "**/*"}, "fewshot_files is given and num_fewshot is 0"),
        ({"raw_data": FIXTURES, "fewshot_split": "dev", "num_fewshot": 1}, "fewshot_split belongs to dataset_name"),
        ({"raw_data": FIXTURES, "columns": "{question: q}"}, "for benchmark=columns and for no other"),
        ({"raw_data": FIXTURES, "max_contaminated_fraction": 0.1}, "needs train_data"),
    ],
)
def test_inputs_that_do_not_fit(prepare, flags, message):
    with pytest.raises(UserError, match=message):
        prepare("jcommonsenseqa", **flags)


def test_a_dataset_on_the_hub_needs_a_commit(prepare):
    with pytest.raises(UserError, match="dataset_revision of 'nobody/nothing' must be a commit"):
        prepare("mmlu", dataset_name="nobody/nothing", split="test", dataset_revision="main")


def test_a_dataset_is_read_by_its_folder_with_a_split_for_examples(prepare, tmp_path):
    row = {"question": "Which?", "subject": "s", "choices": ["a", "b"], "answer": 1}
    folder(tmp_path, "test.jsonl", [row])
    raw = folder(tmp_path, "validation.jsonl", [row | {"question": "What?"}])
    flags = {"dataset_name": str(raw), "split": "test", "fewshot_split": "validation", "num_fewshot": 1}
    ((item,), _) = prepare("mmlu", **flags)
    assert [turn["content"] for turn in item["messages"]] == [
        *("What?\nA. a\nB. b\nAnswer:", "B", "Which?\nA. a\nB. b\nAnswer:")
    ]
    with pytest.raises(UserError, match="split 'nowhere' cannot be read"):
        prepare("mmlu", dataset_name=str(raw), split="nowhere")


# --- the real ones


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason=f"the real benchmarks are not at {BENCHMARKS}")
def test_the_real_jcommonsenseqa_and_gsm8k(run_component, tmp_path):
    flags = {"raw_data": BENCHMARKS, "eval_items": tmp_path / "items", "report": tmp_path / "report", "num_fewshot": 5}
    done = run_component(
        "prepare_benchmark",
        benchmark="jcommonsenseqa",
        files="jcommonsenseqa-valid.jsonl",
        fewshot_files="jcommonsenseqa-train.jsonl",
        **flags,
    )
    assert done.returncode == 0, done.stderr
    items = list(records.read_records(tmp_path / "items"))
    assert len(items) == 1119 and len({json.dumps(item["messages"][:-1]) for item in items}) == 1
    assert sorted(turn["content"] for turn in items[0]["messages"][1:-1:2]) == list("ABCDE")
    done = run_component(
        "prepare_benchmark", benchmark="gsm8k", files="gsm8k-test.jsonl", fewshot_files="gsm8k-train.jsonl", **flags
    )
    assert done.returncode == 0, done.stderr
    items = list(records.read_records(tmp_path / "items"))
    assert Counter(len(item["messages"]) for item in items) == {11: 1319}
    assert all(float(item["references"][0]) is not None for item in items)


def test_an_error_is_one_line(run_component, tmp_path):
    done = run_component("prepare_benchmark", benchmark="mmlu", eval_items=tmp_path / "i", report=tmp_path / "r")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("prepare_benchmark: error: give either raw_data")
