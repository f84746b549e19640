"""prepare_dataset: nothing held out is trained on, nothing bad gets through, old chats stay where they were."""

import json
import re
import shutil
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from slmkit.errors import UserError

OUTPUTS = ("train_data", "validation_data", "test_data", "eval_items", "report")
SIDES = OUTPUTS[:3]
QUESTIONS = {"en": "When does {} open?", "ja": "{}は何時に開きますか。", "ko": "{}은 언제 여나요?"}


def chat(question: str, answer: str = "9:00", **fields) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **fields}


def chats_of_documents(language: str, numbers: range, per_document: int = 2) -> list[dict]:
    return [
        chat(
            QUESTIONS[language].format(f"{language}-{number}-{n}"),
            f"{n}:00",
            id=f"{language}-{number}-{n}",
            source_ids=[f"{language}-{number}"],
            language=language,
            tags={"question_type": "short"},
        )
        for number in numbers
        for n in range(per_document)
    ]


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def plain(text: str) -> str:
    """An independent statement of when two questions are the same: width, case and white space do not count."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


def user_turns(row: dict) -> list[str]:
    return [plain(message["content"]) for message in row["messages"] if message["role"] == "user"]


def questions_so_far(row: dict) -> list[tuple[str, ...]]:
    """Each question of a chat with those before it."""
    turns = user_turns(row)
    return [tuple(turns[: number + 1]) for number in range(len(turns))]


def side_of(result: dict) -> dict[str, str]:
    return {row["id"]: side for side in SIDES for row in result[side]}


@pytest.fixture
def prepare(load_main, tmp_path):
    """Run the component in this process and give back the rows of each output; the report as a folder."""
    main = load_main("prepare_dataset")

    def run(rows: list, **inputs):
        outputs = {name: tmp_path / "out" / name for name in OUTPUTS}
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        main.run(main.Args(chats=write(tmp_path / "chats", rows), **outputs, **inputs))
        return {name: outputs[name] if name == "report" else read(outputs[name]) for name in OUTPUTS}

    return run


# --- what must never happen

DOCUMENTS = st.lists(st.integers(0, 60).map("d{}".format), max_size=2)
SPELLINGS = st.sampled_from(["Where is {}?", "where  is {}?", "ｗｈｅｒｅ is {}？", " WHERE IS\n{}?"])
TURNS = st.lists(st.builds(str.format, SPELLINGS, st.integers(0, 60)), min_size=1, max_size=2)
LANGUAGES = st.sampled_from(["en", "ja", "ko"])


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each example runs the component: shrinking takes minutes
)
@given(
    drawn=st.lists(st.tuples(DOCUMENTS, TURNS, LANGUAGES), min_size=10, max_size=40),
    split_by=st.sampled_from(["document", "chat"]),
    seed=st.integers(0, 5),
)
def test_no_document_and_no_question_stands_on_two_sides(prepare, drawn, split_by, seed):
    rows = []
    for number, (documents, turns, language) in enumerate(drawn):
        messages = []
        for turn in turns:
            messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": f"answer {number}"}]
        rows.append({"id": str(number), "messages": messages, "source_ids": documents, "language": language})
    try:
        result = prepare(rows, split_by=split_by, seed=seed)
    except UserError as error:
        assert "too few to split" in str(error)
        return
    for one in SIDES:
        assert result[one]
        for other in SIDES[SIDES.index(one) + 1 :]:
            pairs = [(questions_so_far, result[one], result[other])]
            if split_by == "document":
                pairs.append((lambda row: row["source_ids"], result[one], result[other]))
            for of, left, right in pairs:
                shared = {value for row in left for value in of(row)} & {value for row in right for value in of(row)}
                assert not shared, (one, other, shared)
    assert sorted(side_of(result)) == sorted(str(number) for number in range(len(drawn)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(num_old=st.integers(3, 30), num_new=st.integers(1, 30), seed=st.integers(0, 1000))
def test_what_was_trained_on_never_moves_when_chats_of_new_documents_come(load_main, num_old, num_new, seed):
    load_main("prepare_dataset")
    from split_groups import Group, assign_sides

    groups = {f"d{number}": Group(("en", "ja")[number % 2], 3) for number in range(2 * (num_old + num_new))}
    old = dict(list(groups.items())[: 2 * num_old])
    before = assign_sides(old, 0.1, 0.2, seed)
    after = assign_sides(groups, 0.1, 0.2, seed)
    assert all(after[group] == "train" for group, side in before.items() if side == "train")


@pytest.mark.parametrize("seed", range(10))
def test_a_few_large_documents_do_not_upset_the_shares(prepare, seed):
    """Hashing alone holds out anything from 6 to 57 % of such documents."""
    rows = chats_of_documents("ko", range(4), 60) + chats_of_documents("ko", range(4, 124), 1)
    result = prepare(rows, seed=seed)
    assert 0.15 < len(result["test_data"]) / len(rows) < 0.27
    documents = [{row["source_ids"][0] for row in result[side]} for side in SIDES]
    assert sum(map(len, documents)) == len(set().union(*documents)) == 124


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 300), min_size=5, max_size=30), seed=st.integers(0, 1000))
def test_what_is_known_to_be_trained_on_stays_in_train_whatever_the_sizes(load_main, sizes, seed):
    load_main("prepare_dataset")
    from split_groups import Group, assign_sides

    old = {f"d{number}": Group("en", size) for number, size in enumerate(sizes[: len(sizes) // 2])}
    before = assign_sides(old, 0.1, 0.2, seed)
    groups = {f"d{number}": Group("en", size, before.get(f"d{number}") == "train") for number, size in enumerate(sizes)}
    after = assign_sides(groups, 0.1, 0.2, seed)
    assert after.keys() == groups.keys()
    assert all(after[name] == "train" for name, side in before.items() if side == "train")


def test_earlier_train_data_stay_in_train_even_when_a_new_chat_joins_their_document_to_another(prepare, tmp_path):
    old = [row for language in QUESTIONS for row in chats_of_documents(language, range(30))]
    before = prepare(old)
    trained = write(tmp_path / "trained", before["train_data"])
    tested = before["test_data"][0]
    joint = chat("Compare them.", "The first.", id="joint", language="en")
    joint["source_ids"] = [before["train_data"][0]["source_ids"][0], tested["source_ids"][0]]
    after = side_of(prepare([*old, joint], earlier_train_data=trained, seed=7))
    assert {after[row["id"]] for row in before["train_data"]} == {"train_data"}
    assert after["joint"] == after[tested["id"]] == "train_data"


def test_old_chats_stay_on_their_side_when_the_dataset_grows(prepare):
    old = [row for language in QUESTIONS for row in chats_of_documents(language, range(40))]
    new = [row for language in QUESTIONS for row in chats_of_documents(language, range(40, 70))]
    before = side_of(prepare(old))
    after = side_of(prepare(new + old))
    assert {chat_id: after[chat_id] for chat_id in before} == before
    assert set(before.values()) == set(SIDES)
    assert side_of(prepare(old, seed=1)) != before


def test_the_shares_hold_in_each_language(prepare):
    sizes = {"en": 600, "ja": 300, "ko": 300}
    rows = [row for language, size in sizes.items() for row in chats_of_documents(language, range(size), 1)]
    result = prepare(rows)
    for language, size in sizes.items():
        for side, share in (("test_data", 0.2), ("validation_data", 0.1)):
            number = sum(row["language"] == language for row in result[side])
            # Four standard deviations of the binomial: sqrt(300 * 0.2 * 0.8) is 6.9
            assert abs(number - share * size) < 4 * (size * share * (1 - share)) ** 0.5, (language, side, number)


def test_a_small_language_still_gets_a_test_and_a_validation_side(prepare):
    rows = chats_of_documents("en", range(40)) + chats_of_documents("ko", range(3))
    for seed in range(20):
        result = prepare(rows, seed=seed)
        for side in ("validation_data", "test_data"):
            assert {row["language"] for row in result[side]} == {"en", "ko"}


def test_documents_that_share_a_question_or_a_chat_stay_together(prepare):
    rows = chats_of_documents("en", range(30))
    rows.append(chat("What is ONE?", "a", id="x", source_ids=["en-1"]))
    rows.append(chat("ｗｈａｔ  is one?", "b", id="y", source_ids=["en-2"]))  # the same question in full-width letters
    rows.append(chat("Compare them.", "c", id="z", source_ids=["en-2", "en-3"]))
    for seed in range(10):
        sides = side_of(prepare(rows, seed=seed))
        assert len({sides[f"en-{n}-0"] for n in (1, 2, 3)} | {sides[name] for name in "xyz"}) == 1


def test_a_duplicate_is_dropped_and_still_links_its_document(prepare):
    rows = chats_of_documents("ja", range(30), 1)
    rows += [
        chat("Ａは何時に開きますか。", "９時", id="first", source_ids=["ja-1"]),
        chat("Aは何時に開きますか。 ", "9時", id="again", source_ids=["ja-2"]),  # differs in width and white space only
    ]
    for seed in range(10):
        result = prepare(rows, seed=seed)
        sides = side_of(result)
        assert "again" not in sides and sides["first"] == sides["ja-1-0"] == sides["ja-2-0"]
    counts = json.loads((result["report"] / "report.json").read_text())["counts"]
    none = {"refused": 0, "low_quality": 0, "near_duplicate": 0, "guarded": 0}
    assert counts == {"read": 32, "kept": 31, "left_out": none | {"duplicate": 1}}
    (row,) = read(result["report"] / "quarantine.jsonl")
    assert (row["source"], row["line"], row["reason"]) == ("chats", 32, "the same as 'first'")


# --- guarded data


def test_chats_that_ask_a_guarded_question_are_left_out(prepare, tmp_path):
    rows = chats_of_documents("ko", range(30), 1)
    rows.append(
        {
            "id": "long",
            "messages": [
                {"role": "user", "content": "첫 질문"},
                {"role": "assistant", "content": "답"},
                {"role": "user", "content": "마지막 질문"},
                {"role": "assistant", "content": "답"},
            ],
        }
    )
    guarded = [
        {"id": "e1", "messages": [{"role": "user", "content": QUESTIONS["ko"].format("KO-7-0")}], "references": ["x"]},
        {
            "id": "e2",
            "messages": [
                {"role": "user", "content": QUESTIONS["ko"].format("ko-8-0")},  # an example, not what is asked
                {"role": "assistant", "content": "0:00"},
                {"role": "user", "content": "첫  질문"},
            ],
        },
    ]
    result = prepare(rows, guarded_data=write(tmp_path / "guarded", guarded))
    assert {row["id"] for row in rows} - set(side_of(result)) == {"ko-7-0", "long"}
    assert json.loads((result["report"] / "report.json").read_text())["counts"]["left_out"]["guarded"] == 2


def test_guarded_data_without_a_question_is_refused(prepare, tmp_path):
    guarded = write(tmp_path / "guarded", [{"messages": [{"role": "system", "content": "x"}]}])
    with pytest.raises(UserError, match="guarded:1: no user turn"):
        prepare(chats_of_documents("en", range(30)), guarded_data=guarded)


# --- what comes out


def test_the_chats_go_through_as_they_are_and_eval_items_ask_what_they_answer(prepare):
    rows = chats_of_documents("ja", range(40), 1)
    rows += [
        {
            "id": f"talk-{n}",
            "messages": [
                {"role": "system", "content": "短く答えてください。"},
                {"role": "user", "content": f"{n}番は？"},
                {"role": "assistant", "content": "北口です。"},
                {"role": "user", "content": f"{n}番の時間は？"},
                {"role": "assistant", "content": f"{n}時です。"},
            ],
            "origin": "seed",
            "source_ids": [],
            "language": "ja",
            "tags": {"question_type": "conversation"},
        }
        for n in range(40)
    ]
    result = prepare(rows)
    given = {row["id"]: row for row in rows}
    for side in SIDES:
        for row in result[side]:
            assert {name: row[name] for name in given[row["id"]]} == given[row["id"]]
            assert row["origin"] == ("seed" if row["id"].startswith("talk") else "supplied")
    assert [item["id"] for item in result["eval_items"]] == [row["id"] for row in result["test_data"]]
    items = {item["id"]: item for item in result["eval_items"]}
    talk = next(item for name, item in items.items() if name.startswith("talk"))
    number = talk["id"].removeprefix("talk-")
    assert talk["messages"] == given[talk["id"]]["messages"][:4]
    assert talk["references"] == [f"{number}時です。"]
    assert talk["slices"] == {"language": "ja", "question_type": "conversation", "held_out": "questions"}
    assert talk["source_ids"] == []
    short = next(item for name, item in items.items() if name.startswith("ja-"))
    assert short["source_ids"] == given[short["id"]]["source_ids"] != []
    assert short["slices"] == {"language": "ja", "question_type": "short", "held_out": "documents"}
    assert all(item["messages"][-1]["role"] == "user" for item in items.values())
    assert len({item["cluster"] for item in items.values()}) == len(items)  # here each chat is a group of its own


def test_chats_of_one_document_share_a_cluster_and_split_by_chat_holds_out_questions(prepare):
    rows = chats_of_documents("en", range(30), 4)
    items = prepare(rows)["eval_items"]
    clusters = {(item["cluster"], item["id"].rsplit("-", 1)[0]) for item in items}
    assert len({cluster for cluster, _ in clusters}) == len({document for _, document in clusters}) == len(clusters)
    by_chat = prepare(rows, split_by="chat")
    assert {item["slices"]["held_out"] for item in by_chat["eval_items"]} == {"questions"}
    documents = [{row["source_ids"][0] for row in by_chat[side]} for side in SIDES]
    assert documents[0] & documents[2]  # the same documents, other questions


def test_plain_training_data_are_filled_in(prepare):
    rows = [chat(QUESTIONS[language].format(n)) for language in QUESTIONS for n in range(30)]
    result = prepare(rows)
    found = [row for side in SIDES for row in result[side]]
    assert len({row["id"] for row in found}) == 90
    assert [sum(row["language"] == language for row in found) for language in QUESTIONS] == [30, 30, 30]
    assert all(row["origin"] == "supplied" and row["source_ids"] == [] for row in found)
    assert {item["slices"]["question_type"] for item in result["eval_items"]} == {"unspecified"}
    assert side_of(prepare(rows[::-1])) == side_of(result)  # the order of the file does not matter


def test_a_folder_of_shards_is_read(prepare, load_main, tmp_path):
    main = load_main("prepare_dataset")
    shards = tmp_path / "shards"
    shards.mkdir()
    write(shards / "1.jsonl", chats_of_documents("en", range(20)))
    write(shards / "2.jsonl", chats_of_documents("ko", range(20)))
    metrics = main.run(main.Args(chats=shards, **{name: tmp_path / "out" / name for name in OUTPUTS}))
    assert sum(metrics[f"data/num_{side}_chats"] for side in ("train", "validation", "test")) == 80


def test_max_num_test_items_is_shared_evenly_among_the_languages(prepare):
    rows = [*chats_of_documents("en", range(200), 1), *chats_of_documents("ja", range(60), 1)]
    rows += chats_of_documents("ko", range(15), 1)
    everything = prepare(rows)
    in_test = [sum(row["language"] == language for row in everything["test_data"]) for language in QUESTIONS]
    result = prepare(rows, max_num_test_items=17)
    kept = [sum(row["slices"]["language"] == language for row in result["eval_items"]) for language in QUESTIONS]
    assert sum(kept) == 17 and kept[2] == min(in_test[2], 6)
    assert abs(kept[0] - kept[1]) <= 1 and in_test[1] >= kept[1]
    assert result["train_data"] == everything["train_data"]  # what is cut off is not trained on
    left_out = json.loads((result["report"] / "report.json").read_text())["counts"]["left_out"]
    assert left_out["above_max_num_test_items"] == sum(in_test) - 17


def test_without_fractions_everything_is_training_data(prepare):
    result = prepare(chats_of_documents("en", range(5)), validation_fraction=0, test_fraction=0)
    assert [len(result[name]) for name in OUTPUTS[:4]] == [10, 0, 0, 0]


class Page(HTMLParser):
    """The cells of a page's tables, and what it would load from elsewhere."""

    def __init__(self):
        super().__init__()
        self.rows, self.loaded, self._in_cell = [], [], False

    def handle_starttag(self, tag, attributes):
        self.loaded += [value for name, value in attributes if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._in_cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._in_cell:
            self.rows[-1][-1] += data


def test_the_report_gives_the_numbers_and_loads_nothing(prepare):
    rows = chats_of_documents("en", range(30), 1) + chats_of_documents("ja", range(30), 1)
    rows += [{**rows[0], "id": "again"}, {**rows[1], "tags": {"question_type": "<b>bold</b>"}, "id": "other"}]
    rows[-1]["messages"] = chat("Another question?")["messages"]
    result = prepare(rows)
    assert sorted(path.name for path in result["report"].iterdir()) == [
        "lineage.json",
        "quarantine.jsonl",
        "report.html",
        "report.json",
    ]
    report = json.loads((result["report"] / "report.json").read_text())
    html = (result["report"] / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    sizes = [str(len(result[side])) for side in SIDES]
    assert ["all", *sizes] in page.rows
    assert '<div>the same as another chat</div>\n<div class="bar"><div class="lost"' in html
    assert ["ja", *(str(sum(row["language"] == "ja" for row in result[side])) for side in SIDES)] in page.rows
    assert page.loaded == [] and "http" not in html and "<b>" not in html
    lengths = [sum(len(message["content"]) for message in row["messages"]) for side in SIDES for row in result[side]]
    bins = report["lengths"]["bins"]
    edges = [0] + [bin_["below"] for bin_ in bins]
    for low, bin_ in zip(edges, bins, strict=False):
        expected = sum((low if low else 0) <= length < bin_["below"] for length in lengths)
        assert bin_["train"] + bin_["validation"] + bin_["test"] == expected


# --- bad input

BAD = {
    "not JSON": "{'messages': []}",
    "not a JSON object but a list": "[]",
    "a chat needs a non-empty list 'messages'": {"messages": []},
    "message 1 has the unknown role 'bot'": {"messages": [{"role": "bot", "content": "x"}]},
    "message 2 (assistant) has no text": chat("q", "  "),
    "no assistant turn": {"messages": [{"role": "user", "content": "x"}]},
    "no user turn before": {"messages": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}]},
    "'source_ids' is not": chat("q", source_ids="d1"),
    "'tags' is not": chat("q", tags=["short"]),
    "the id 'en-0-0' already": chat("another question", id="en-0-0"),
}


def test_bad_chats_are_refused_with_file_line_and_reason(prepare):
    rows = chats_of_documents("en", range(30), 1)
    result = prepare([*rows, "", *BAD.values()], max_error_fraction=0.25)  # 10 of 40
    quarantine = read(result["report"] / "quarantine.jsonl")
    by_line = {entry["line"]: entry for entry in quarantine}
    for line, (reason, row) in enumerate(BAD.items(), start=32):
        assert by_line[line]["source"] == "chats"
        assert by_line[line]["reason"].startswith(reason), (line, by_line[line])
        if line < 31 + len(BAD):  # the last is a chat, and shown as one
            assert by_line[line]["text"].strip() == (row if isinstance(row, str) else json.dumps(row))
    assert len(quarantine) == len(BAD)
    assert sorted(side_of(result)) == sorted(row["id"] for row in rows)
    assert json.loads((result["report"] / "report.json").read_text())["counts"]["read"] == 40


def test_above_max_error_fraction_the_step_stops_names_the_first_and_keeps_the_quarantine(run_component, tmp_path):
    chats = write(tmp_path / "chats.jsonl", [*chats_of_documents("en", range(30), 1), *BAD.values()])
    outputs = {name: tmp_path / "out" / name for name in OUTPUTS}
    result = run_component("prepare_dataset", chats=chats, max_error_fraction=0.2, **outputs)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(
        "prepare_dataset: error: 10 of 40 chats (the first: chats.jsonl:31: not JSON: "
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report"]
    assert len(read(outputs["report"] / "quarantine.jsonl")) == len(BAD)


@pytest.mark.parametrize(
    ("rows", "flags", "code", "message"),
    [
        ([chat("q1"), chat("q2")], {}, 1, "2 usable chats form 2 groups, too few to split (validation and test would"),
        ([chat("q", str(n)) for n in range(9)], {}, 1, "9 usable chats form 1 groups, too few to split"),
        ([], {}, 1, "0 usable chats form 0 groups, too few to split (train and validation and test would be empty)"),
        ([chat("q")], {"test_fraction": 0.6, "validation_fraction": 0.4}, 1, "leave nothing to train on"),
        ([chat("q")], {"test_fraction": -1}, 2, "--test_fraction: -1 is below the minimum 0"),
        ([chat("q")], {"split_by": "row"}, 2, "--split_by: 'row' is not one of document, chat"),
        ([chat("q")], {"max_num_test_items": 0}, 2, "--max_num_test_items: 0 is below the minimum 1"),
    ],
)
def test_what_cannot_be_split_is_one_clear_line(run_component, tmp_path, rows, flags, code, message):
    chats = write(tmp_path / "chats.jsonl", rows)
    outputs = {name: tmp_path / "out" / name for name in OUTPUTS}
    result = run_component("prepare_dataset", chats=chats, **flags, **outputs)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
    assert not outputs["train_data"].exists()


def test_two_runs_write_the_same_bytes(run_component, tmp_path):
    chats = write(
        tmp_path / "chats.jsonl", [row for language in QUESTIONS for row in chats_of_documents(language, range(20))]
    )
    runs = []
    for name in ("one", "two"):
        outputs = {port: tmp_path / name / port for port in OUTPUTS}
        result = run_component("prepare_dataset", chats=chats, **outputs)
        assert result.returncode == 0, result.stderr
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        runs.append({path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in files})
    assert runs[0] == runs[1]
    assert len(runs[0]) == 4 * 2 + 4  # each file with its lineage, and the report's four
    assert result.stdout.startswith("120 of 120 chats kept: train ")


def test_a_generic_later_question_links_nothing(load_main):
    """By hand: two chats share a document, an opening question, or all questions so far; never a later one alone."""
    load_main("prepare_dataset")
    from split_groups import group_keys

    first = group_keys(["d1"], ["what is a?", "and then?"], "document")
    other = group_keys(["d2"], ["what is b?", "and then?"], "document")
    same_opening = group_keys(["d3"], ["what is a?"], "document")
    assert not set(first) & set(other)
    assert len(set(first) & set(same_opening)) == 1
    assert len(set(first) & set(group_keys([], ["what is a?", "and then?"], "document"))) == 2
