"""prepare_canaries: which questions are chosen, what is asked of each, and edits that keep the meaning."""

import collections
import importlib
import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit import records
from slmkit.errors import UserError


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("prepare_canaries")


@pytest.fixture(scope="module")
def prompt_edits(main):
    return importlib.import_module("prompt_edits")


@pytest.fixture(scope="module")
def find(main):
    return importlib.import_module("question_part").find


@pytest.fixture
def run(main, tmp_path):
    def run(items, **values):
        with records.write_records(tmp_path / "items") as write:
            for item in items:
                write(item)
        paths = {name: tmp_path / name for name in ("canary_items", "report")}
        metrics = main.run(main.Args(eval_items=tmp_path / "items", **paths, **values))
        report = json.loads((tmp_path / "report").read_text(encoding="utf-8"))
        return list(records.read_records(tmp_path / "canary_items")), report, metrics

    return run


def item(id, question="What is the Area of Elm Hall?", document="Area: Eastfield", **more):
    content = f"{document}\n\n{question}" if document else question
    return {"id": id, "messages": [{"role": "user", "content": content}], "references": ["Eastfield"], **more}


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_each_canary_is_repeated_and_reworded(run):
    rows, report, metrics = run([item("a"), item("b", slices={"language": "en"})], num_repeats=3, num_variants=2)
    by_id = {row["id"]: row for row in rows}
    assert len(rows) == len(by_id) == 10 and metrics["canaries/num_with_variants"] == 2
    assert [row["id"] for row in rows[:3]] == ["a", "a:r1", "a:r2"]
    for row in rows:
        original = by_id[row["canary_id"]]
        assert row["references"] == ["Eastfield"] and row["cluster"] == row["canary_id"]
        if row["edit"]:
            assert row["id"] == f"{row['canary_id']}:{row['edit']}" and row["repeat"] == 0
            assert row["messages"] != original["messages"]
        else:
            assert row["messages"] == original["messages"]
    assert len({row["messages"][0]["content"] for row in rows if row["canary_id"] == "a"}) == 3
    assert sum(count["applied"] for count in report["edits"].values()) == 4
    assert report["examples"][0].keys() == {"edit", "language", "id", "original", "edited"}


def test_the_same_seed_chooses_the_same(run):
    items = [item(f"q{number}") for number in range(30)]
    first = run(items, num_canaries=10, seed=3)[0]
    assert run(items, num_canaries=10, seed=3)[0] == first
    assert run(items, num_canaries=10, seed=4)[0] != first


def test_only_the_last_turn_is_edited(run):
    turns = [
        {"role": "system", "content": "Tell me the truth."},
        {"role": "user", "content": "What is a hall?"},
        {"role": "assistant", "content": "What is it?"},
        {"role": "user", "content": "What is the Area?"},
    ]
    rows, _, _ = run([{"id": "a", "messages": turns}], num_variants=5)
    assert len(rows) == 2 + 4  # no document to put the question before
    assert all(row["messages"][:3] == turns[:3] for row in rows)


def test_slices_get_their_shares_and_clusters_are_spread(run):
    items = [item(f"ja{n}", slices={"language": "ja"}, cluster=f"d{n // 10}") for n in range(60)]
    items += [item(f"en{n}", slices={"language": "en"}, cluster=f"e{n // 2}") for n in range(30)]
    items += [item(f"ko{n}", slices={"language": "ko"}) for n in range(10)]
    rows, report, metrics = run(items, num_canaries=10, num_variants=0, num_repeats=1)
    assert collections.Counter(row["id"][:2] for row in rows) == {"ja": 6, "en": 3, "ko": 1}
    assert metrics["canaries/num_clusters"] == 10  # 6 of 6, 3 of 15, 1 of 10
    assert report["strata"][0] == {"slices": {"language": "ja"}, "num_items": 60, "num_canaries": 6}


def test_more_canaries_than_items_are_all_of_them(run):
    assert run([item("a"), item("b")], num_canaries=50)[2]["canaries/num_canaries"] == 2


def test_a_prompt_that_cannot_be_edited_is_a_canary_still(run):
    data = {"id": "a", "messages": [{"role": "user", "content": '{"task": "What is the Area?"}'}]}
    rows, report, _ = run([data, item("b")], num_variants=2)
    assert [row["id"] for row in rows if row["canary_id"] == "a"] == ["a", "a:r1"]
    assert sum(count["not_applicable"] for count in report["edits"].values()) >= 5


def test_a_text_that_the_system_message_has_translated_stays_as_it_is(run):
    turns = [{"role": "system", "content": "Translate into Korean."}, {"role": "user", "content": "What is the Area?"}]
    rows, _, _ = run([{"id": "a", "messages": turns}], num_variants=5)
    assert [row["id"] for row in rows] == ["a", "a:r1"]


@pytest.mark.parametrize(
    ("items", "values", "said"),
    [
        ([item("a"), item("a")], {}, "items:2: 'id' is missing, empty or not unique"),
        ([item("a"), item("a:r1")], {}, "two canaries would have the id 'a:r1'"),
        ([{"id": "a", "messages": []}], {}, "items:1: eval item 'a': a chat needs"),
        ([{"id": "a", "messages": [{"role": "assistant", "content": "x"}]}], {}, "does not end with the user's turn"),
        ([item("a", slices=["x"])], {}, "'slices' is a list"),
        ([], {}, "no eval items"),
        ([item("a")], {"edits": "typos"}, "edits: 'typos' is not one of whitespace, punctuation"),
        ([item("a")], {"edits": " , "}, "edits is empty"),
    ],
)
def test_what_is_refused(run, items, values, said):
    with pytest.raises(UserError, match=re.escape(said)):
        run(items, **values)


def test_as_a_step(run_component, tmp_path):
    with records.write_records(tmp_path / "items") as write:
        write(item("a"))
    done = run_component(
        "prepare_canaries",
        eval_items=tmp_path / "items",
        canary_items=tmp_path / "canaries",
        report=tmp_path / "report",
    )
    assert done.returncode == 0, done.stderr
    assert "1 canaries of 1 items, 4 prompts to ask" in done.stdout
    assert (tmp_path / "canaries.lineage.json").is_file()


# --- where the question is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("What is it?", "What is it?"),
        ("A hall. It is big.\n\nWhat is it?", "What is it?"),
        ("It is big. What is it?", "What is it?"),
        ("Tell me the Area of Elm Hall.", "Tell me the Area of Elm Hall."),
        ("Question: How many are left?\nAnswer:", "Question: How many are left?"),
        ("Which is red?\nA. Blood\nB. Grass\nAnswer:", "Which is red?"),
        ("Which is red?\n\nRoses stand by the door. They are of many colors.", "Which is red?"),
        ("会館の案内です。\n\n住所を教えてください。", "住所を教えてください。"),
        ("次の文を要約してください。\n\nこれは会館の案内です。", "次の文を要約してください。"),
        ("회관 안내입니다.\n\n주소가 궁금합니다.", "주소가 궁금합니다."),
        ("Elm Hall is big.", None),
        ('{"question": "What is it?"}', None),
        ("[1, 2]\nWhat is it?", None),
        ("What is it? " * 2, None),  # which of the two
        ("a" * 2000 + "?", None),
        ("", None),
        ("Translate to Korean: Where is the hall?", None),
        ("Please translate into Japanese.\n\nWhere is the hall?", None),
        ("Where is the hall?\n\nParaphrase the question above.", None),
        ("次の文を英語に訳してください。\n\n会館はどこですか？", None),
        ("다음 문장을 요약해 주세요:\n회관은 어디인가요?", None),
        ("We translate menus.\n\nWhere is the hall?", "Where is the hall?"),
    ],
)
def test_where_the_question_is(find, text, question):
    found = find(text)
    assert (found and found.question) == question
    assert found is None or found.with_question(found.question) == text


# --- edits -----------------------------------------------------------------------------------------------------------


def all_ways(prompt_edits, find, edit, text, language):
    return {prompt_edits.apply(edit, find(text), language, random.Random(seed)) for seed in range(30)}


@pytest.mark.parametrize(
    ("edit", "language", "text", "ways"),
    [
        ("whitespace", "en", "What is it?", {"What  is it?", "What is  it?"}),
        ("whitespace", "ja", "今日、何ですか？", {"今日、 何ですか？"}),
        ("whitespace", "ja", "何ですか？", {" 何ですか？"}),
        ("whitespace", "en", "What is 'the big hall'?", {"What  is 'the big hall'?", "What is  'the big hall'?"}),
        ("punctuation", "en", "What is it?", {"What is it"}),
        ("punctuation", "en", "Tell me of the U.S.", {None}),
        ("punctuation", "ja", "今日、何ですか？", {"今日,何ですか?", "今日、何ですか"}),
        ("punctuation", "ja", "「今日、何？」は何ですか", {None}),
        ("punctuation", "ko", "무엇인가요?", {"무엇인가요？", "무엇인가요"}),
        ("politeness", "en", "Tell me the Area.", {"Please tell me the Area."}),
        ("politeness", "en", "What is it?", {"What is it, please?"}),
        ("politeness", "ja", "館長は何ですか？", {"館長は何でしょうか？"}),
        ("politeness", "ja", "住所を教えてください。", {"住所を教えていただけますか。"}),
        ("politeness", "ja", "どうなっているでしょうか？", {None}),
        ("politeness", "ko", "무엇인가요?", {"무엇입니까?"}),
        ("politeness", "ko", "주소를 알려 주세요.", {"주소를 알려 주십시오."}),
        ("politeness", "en", "Tell me 'Tell me the Area.'", {"Please tell me 'Tell me the Area.'"}),
        ("synonyms", "en", "What is the largest hall?", {"What's the largest hall?", "What is the biggest hall?"}),
        ("synonyms", "en", "I need to go. Which bus?", {None}),
        ("synonyms", "en", 'Who wrote "The largest hall"?', {None}),
        ("synonyms", "ja", "開館時間はどうなっていますか？", {"開館時間はどのようになっていますか？"}),
        ("synonyms", "ko", "나이 궁금합니다.", {None}),  # 이 belongs to the word
        ("synonyms", "ko", "휴가 궁금합니다.", {None}),
        ("politeness", "ko", "답은 사과 하나요?", {None}),  # one apple
        ("politeness", "ko", "무엇을 제공하나요?", {"무엇을 제공합니까?"}),
        ("synonyms", "ja", "返品は不可能ですか？", {None}),
        ("synonyms", "ja", "返品は可能ですか？", {"返品はできますか？"}),
        ("synonyms", "ja", "ご気分は如何ですか？", {None}),
        ("synonyms", "ja", "担当はどなた様ですか？", {None}),
        ("politeness", "en", "I need the refund for my order.", {None}),
        ("synonyms", "en", "Tell me a story about Elm Hall.", {None}),
        ("synonyms", "en", "Tell me the Area.", {"Let me know the Area."}),
        ("punctuation", "en", "You open on Sunday?", {None}),  # a statement without its mark
        ("punctuation", "en", "By when do you open?", {"By when do you open"}),
        ("punctuation", "ja", "明日届く？", {"明日届く?"}),
        ("punctuation", "ko", "내일 와요?", {"내일 와요？"}),
        ("order", "en", "Area: East\n\nWhat is the Area?", {"What is the Area?\n\nArea: East"}),
        ("order", "en", "Area: East\n\nWhat is the Area above?", {None}),
        ("order", "en", "Who?\n\nArea: East\nWhat?\n\nWhat is the Area?", {None}),
        ("order", "ja", "住所：東町\n\n住所は何ですか？", {"住所は何ですか？\n\n住所：東町"}),
        ("order", "ja", "住所：東町\n\n上の住所は何ですか？", {None}),
        ("order", "ko", "주소: 동문동\n\n위 글의 주소는 무엇인가요?", {None}),
        ("order", "en", "What is the Area?", {None}),
        ("synonyms", "fr", "Quelle est la surface ?", {None}),
    ],
)
def test_an_edit(prompt_edits, find, edit, language, text, ways):
    assert all_ways(prompt_edits, find, edit, text, language) == ways


def test_the_wordings_are_of_known_languages_and_compile(prompt_edits):
    for kind, of_language in prompt_edits._wordings().items():
        assert kind in prompt_edits.EDITS and set(of_language) == {"en", "ja", "ko"}
        for pattern, by in [pair for pairs in of_language.values() for pair in pairs]:
            assert re.compile(pattern).groups >= len(re.findall(r"\\\d", by))


PARTS = st.sampled_from(
    [
        *"abか何は가요 、。.?？\n",
        *("What is ", "Tell me ", "Please ", "largest ", "教えてください", "무엇인가요"),
        *("3,500円", '"Tell me x?"', "「何ですか」", "<PHONE_NUMBER>", "`a b`", "https://a.b/c?d=1", "{x: 1}"),
    ]
)


@given(st.lists(PARTS, max_size=12).map("".join), st.sampled_from(["en", "ja", "ko"]), st.integers(0, 9))
def test_no_edit_touches_the_rest_of_the_prompt_or_what_is_protected(text, language, seed):
    import prompt_edits
    import question_part

    prompt = question_part.find(text)
    for name in prompt_edits.EDITS if prompt else ():
        edited = prompt_edits.apply(name, prompt, language, random.Random(seed))
        if edited is None:
            continue
        assert edited != text
        for kept in prompt_edits.PROTECTED.findall(prompt.question):
            assert edited.count(kept) >= text.count(kept)
        if name != "order":
            assert edited.startswith(prompt.before) and edited.endswith(prompt.after)
        if name in ("whitespace", "punctuation", "order"):  # no letter or digit comes or goes
            assert sorted(filter(str.isalnum, edited)) == sorted(filter(str.isalnum, text))
