"""What prepare_dataset leaves out for its content, how it mixes origins, and how it measures lengths."""

import json

import pytest

from slmkit import lineage
from slmkit.errors import UserError
from tests.components.test_prepare_dataset import OUTPUTS, chat, chats_of_documents, prepare, read, side_of, write

__all__ = ["prepare"]  # a fixture

LANGUAGES = ("en", "ja", "ko")
GUARDED = {  # a question of 8 words and more, of 12 letters and more
    "en": "How many volunteers work at the front desk on Sunday mornings?",
    "ja": "日曜日の朝に受付で働いているのは何人ですか。",
    "ko": "일요일 아침에 안내 창구에서 일하는 자원봉사자는 몇 명인가요?",
}
CONTEXT = {
    "en": "Oak Hall has a front desk. Volunteers work there in turns.",
    "ja": "樫の会館には受付があります。交代で働きます。",
    "ko": "참나무 회관에는 안내 창구가 있습니다. 교대로 일합니다.",
}
PASSAGE = {
    "en": "The bridge over the mill stream was built by the guild of weavers after the great storm.",
    "ja": "水車小屋の川にかかる橋は大嵐の後で織物職人の組合によって架けられました。",
    "ko": "물레방아 개울에 놓인 다리는 큰 폭풍이 지나간 뒤에 직조공 조합이 세운 것입니다.",
}


def report_of(result: dict) -> dict:
    return json.loads((result["report"] / "report.json").read_text(encoding="utf-8"))


def item(question: str, *references: str) -> dict:
    return {"id": question, "messages": [{"role": "user", "content": question}], "references": list(references)}


# --- guarded data


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_guarded_question_is_found_behind_a_context_and_within_a_sentence(prepare, tmp_path, language):
    question = GUARDED[language]
    rows = chats_of_documents(language, range(30), 1)
    rows += [
        chat(f"{CONTEXT[language]}\n\n{question}", id="behind a context"),
        chat(f"{CONTEXT[language]} {question} {CONTEXT[language]}", id="within a sentence"),
        chat("?", f"{CONTEXT[language]} {question}", id="in an answer"),
        chat(CONTEXT[language], id="context alone"),
    ]
    result = prepare(rows, guarded_data=write(tmp_path / "guarded", [item(question, "3")]))
    found = {row["id"] for row in rows} - side_of(result).keys()
    assert found == {"behind a context", "within a sentence", "in an answer"}
    report = report_of(result)
    assert report["counts"]["left_out"]["guarded"] == 3
    assert len(report["examples"]["guarded"]) == 3
    assert report["examples"]["guarded"][0]["repeats"] == question.casefold()
    rows_left_out = read(result["report"] / "quarantine.jsonl")
    assert [row["reason"] for row in rows_left_out] == ["repeats guarded data"] * 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_run_of_a_long_reference_is_found_and_a_short_reference_is_not(prepare, tmp_path, language):
    passage = PASSAGE[language]
    middle = passage[3:-3]
    rows = chats_of_documents(language, range(30), 1)
    rows += [chat(f"x {middle} y", id="copied"), chat("?", passage[: len(passage) // 2], id="half of it")]
    guarded = write(tmp_path / "guarded", [item("Who?", passage, "9:00")])
    assert {row["id"] for row in rows} - side_of(prepare(rows, guarded_data=guarded)).keys() == {"copied"}


def test_a_short_question_counts_only_as_a_whole_line(prepare, tmp_path):
    rows = chats_of_documents("en", range(30), 1)
    rows += [chat("Oak Hall.\n\nWho is it?", id="a line"), chat("Tell me who is it at the door.", id="a phrase")]
    guarded = write(tmp_path / "guarded", [item("Who is it?")])
    assert {row["id"] for row in rows} - side_of(prepare(rows, guarded_data=guarded)).keys() == {"a line"}


@pytest.mark.parametrize(("num_questions", "is_left_out"), [(10, True), (11, False)])
def test_a_form_of_words_that_many_guarded_items_share_is_no_match(prepare, tmp_path, num_questions, is_left_out):
    form = "Read the following text with care and answer the question with one of the letters A, B, C or D:"
    rows = [*chats_of_documents("en", range(30), 1), chat(f"{form} Why?", id="mine")]
    guarded = [item(f"{form} guarded question {'x' * number} of many") for number in range(num_questions)] * 2
    result = prepare(rows, guarded_data=write(tmp_path / "guarded", guarded))
    assert ("mine" not in side_of(result)) is is_left_out


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "guarded_data holds no record"),
        (["{"], "guarded:1: not JSON"),
        ([{"messages": []}], "guarded_data guarded:1: a chat needs a non-empty list 'messages'"),
        ([item("q"), {**item("q"), "references": "x"}], "guarded:2: 'references' is not a list of texts"),
    ],
)
def test_guarded_data_that_cannot_be_used_is_one_clear_line(prepare, tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        prepare(chats_of_documents("en", range(30)), guarded_data=write(tmp_path / "guarded", rows))


# --- rules of quality

GOOD = [
    ("What is the fee?", "$4"),
    ("電話番号は?", "000-555-0109"),
    ("요금은?", "무료"),
    ("Show it.", "```python\nprint(1)\n```"),
    ("A table?", "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"),
    ("Who says so?", "She said: “It’s a café, naïve Ângela.”"),
    ("Translate to Japanese: good morning, everyone", "皆さん、おはようございます。"),
    ("List them.", "\n".join(f"{number}. item number {number * 37} of the list" for number in range(40))),
]
BROKEN = {
    "no_content": [("Why?", "..."), ("Why?", "—")],
    "mostly_symbols": [("Why?", "=-=-=-=-=-=-=-=-=-=-=-=-= a")],
    "mojibake": [
        ("Where?", "At the caf\ufffd."),
        ("Where?", "At the cafÃ©."),
        ("Who?", "She saidâ€™s"),
        ("何?", "ã‚\x81"),
    ],
    "repetition": [("Why?", "I do not know. " * 60), ("なぜ?", "分かりません。" * 60)],
    "answer_equals_question": [("Why  is it?", "why is it?"), ("Oak Hall.\n\nWho runs it?", "Who runs it?")],
    "assistant_boilerplate": [
        ("Why?", "As an AI language model, I cannot say."),
        ("なぜ?", "AI言語モデルとして、お答えできません。"),
        ("왜?", "저는 AI 언어 모델로서 답할 수 없습니다."),
    ],
    "unclosed_code": [("Show it.", "```python\nprint(1)")],
}
OPTIONAL = {
    "another_language": [("Where is the community center?", "公民館は川のそばにあります。中庭が目印です。")],
    "too_short_answer": [("What is the fee?", "$4")],
    "too_long_answer": [("Why?", " ".join(map(str, range(5000))))],
}


@pytest.fixture
def rules(load_main):
    load_main("prepare_dataset")
    import quality_rules

    return quality_rules


@pytest.mark.parametrize("pair", GOOD)
def test_good_answers_break_no_rule(rules, pair):
    assert rules.broken_rule(chat(*pair), rules.chosen_rules("safe")) is None


@pytest.mark.parametrize(("name", "pair"), [(name, pair) for name, pairs in BROKEN.items() for pair in pairs])
def test_each_rule_finds_what_it_is_for(rules, name, pair):
    assert rules.broken_rule(chat(*pair), rules.chosen_rules("safe")) == name


@pytest.mark.parametrize(("name", "pair"), [(name, pair) for name, pairs in OPTIONAL.items() for pair in pairs])
def test_rules_that_are_not_right_for_all_data_are_asked_for_by_name(rules, name, pair):
    assert rules.broken_rule(chat(*pair), rules.chosen_rules("safe")) is None
    assert rules.broken_rule(chat(*pair), rules.chosen_rules(f" {name}, no_content")) == name
    assert rules.broken_rule(chat(*pair), rules.chosen_rules("all")) == name


def test_what_breaks_a_rule_is_counted_shown_and_quarantined(prepare):
    rows = chats_of_documents("en", range(30), 1)
    rows += [chat(*pair, id=f"{name} {n}") for name, pairs in BROKEN.items() for n, pair in enumerate(pairs)]
    result = prepare(rows)  # max_error_fraction is 0: these are chats, and no errors
    assert len(side_of(result)) == 30
    report = report_of(result)
    counts = {name: rule["chats"] for name, rule in report["quality_rules"].items() if rule["chats"]}
    assert counts == {name: len(pairs) for name, pairs in BROKEN.items()}
    assert report["counts"]["left_out"]["low_quality"] == sum(counts.values())
    reasons = [row["reason"].partition(":")[0] for row in read(result["report"] / "quarantine.jsonl")]
    assert reasons == [name for name, pairs in BROKEN.items() for _ in pairs]
    assert len(side_of(prepare(rows, quality_rules="none", near_duplicate_threshold=1))) == len(rows)


@pytest.mark.slow
def test_one_chat_of_50_mb_is_left_out_and_said(run_component, tmp_path):
    rows = [*chats_of_documents("en", range(30), 1), chat("Why?", "word " * 10_000_000, id="huge")]
    chats = write(tmp_path / "chats", rows)
    outputs = {name: tmp_path / name for name in OUTPUTS}
    done = run_component("prepare_dataset", chats=chats, **outputs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("30 of 31 chats kept") and "low quality 1" in done.stdout
    (row,) = read(outputs["report"] / "quarantine.jsonl")
    assert row["reason"] == "too_long_chat: longer than 1,000,000 characters" and len(row["text"]) == 200
    assert (outputs["report"] / "report.html").stat().st_size < 100_000


# --- the mixture


def origins(rows: list[dict]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row["origin"]] = found.get(row["origin"], 0) + 1
    return found


def mixed_rows() -> list[dict]:
    rows = chats_of_documents("en", range(400), 1)
    return [row | {"origin": ("seed", "evolve", "web", "old")[number % 4]} for number, row in enumerate(rows)]


def test_the_weights_say_how_often_a_chat_of_an_origin_is_trained_on(prepare):
    plain = prepare(mixed_rows())
    weights = "{seed: 2, evolve: 0.5, web: 0}"
    result = prepare(mixed_rows(), mixture_weights=weights)
    before, after = origins(plain["train_data"]), origins(result["train_data"])
    assert after["seed"] == 2 * before["seed"] and after["old"] == before["old"] and "web" not in after
    # Four standard deviations of the binomial: sqrt(70 * 0.25) is 4.2
    assert abs(after["evolve"] - before["evolve"] / 2) < 4 * (before["evolve"] / 4) ** 0.5
    ids = [row["id"] for row in result["train_data"]]
    assert len(set(ids)) == len(ids)
    for name in OUTPUTS[1:4]:
        assert result[name] == plain[name]
    report = report_of(result)
    rows = {row["origin"]: (row["weight"], row["before"], row["after"]) for row in report["mixture"]}
    assert rows == {
        name: (weight, before[name], after.get(name, 0))
        for name, weight in {"seed": 2, "evolve": 0.5, "web": 0, "old": 1}.items()
    }
    assert report["counts"]["left_out"]["mixture_weight"] == before["web"] + before["evolve"] - after["evolve"]
    assert report["counts"]["kept"] == 400 - report["counts"]["left_out"]["mixture_weight"]
    assert lineage.read(result["report"])["contents"] == {
        "num_chats": len(ids),
        "languages": {"en": len(ids)},
        "origins": {name: number for name, number in sorted(after.items()) if number},
    }
    again = prepare(mixed_rows()[::-1], mixture_weights='{"seed": 2, "evolve": 0.5, "web": 0}')
    assert sorted(row["id"] for row in again["train_data"]) == sorted(ids)
    other = prepare(mixed_rows(), mixture_weights=weights, seed=1)
    assert sorted(row["id"] for row in other["train_data"]) != sorted(ids)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("{seed: -1}", "-1 for 'seed' is not a number from 0 to 100"),
        ("{seed: .nan}", "nan for 'seed' is not a number"),
        ("{seed: true}", "True for 'seed' is not a number"),
        ("{seed: much}", "'much' for 'seed' is not a number"),
        ("{sed: 1}", "no chat has the origin 'sed'; the origins are evolve, old, seed, web"),
        ("{seed: 0, evolve: 0, web: 0, old: 0}", "every origin has the weight 0"),
        ("seed=1", "maps no origins to weights"),
        ("{seed: ", "maps no origins to weights"),
    ],
)
def test_weights_that_cannot_be_meant_are_one_clear_line(prepare, weights, message):
    with pytest.raises(UserError, match=message):
        prepare(mixed_rows(), mixture_weights=weights)


# --- lengths


def test_lengths_are_those_that_transformers_counts(prepare, small_model):
    from transformers import AutoTokenizer

    rows = [row for language in ("en", "ja", "ko") for row in chats_of_documents(language, range(20))]
    result = prepare(rows, tokenizer=small_model, max_length=30)
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    expected = sorted(
        len(tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"])
        for row in result["train_data"]
    )
    lengths = report_of(result)["lengths"]
    assert lengths["unit"] == "tokens, with the chat template"
    (row,) = [row for row in lengths["table"] if (row["side"], row["language"]) == ("train", "all")]
    assert (row["chats"], row["sum"], row["p100"]) == (len(expected), sum(expected), expected[-1])
    assert row["p50"] == expected[-(-len(expected) // 2) - 1]  # the smallest value that half of them do not exceed
    assert row["above_max_length_fraction"] == round(sum(n > 30 for n in expected) / len(expected), 6)
    assert sum(bin_["train"] for bin_ in lengths["bins"]) == len(expected)


def test_without_a_template_the_contents_are_counted_and_without_a_tokenizer_characters(prepare, small_model, tmp_path):
    rows = chats_of_documents("ko", range(30), 1)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_bytes((small_model / "tokenizer.json").read_bytes())
    units = [report_of(prepare(rows, tokenizer=tokenizer))["lengths"] for tokenizer in (tmp_path / "model", None)]
    assert "no chat template" in units[0]["unit"] and units[1]["unit"] == "characters"
    number = sum(len(message["content"]) for row in rows for message in row["messages"])
    assert sum(row["sum"] for row in units[1]["table"] if row["language"] == "all") == number


@pytest.mark.parametrize(
    ("files", "inputs", "message"),
    [
        ({}, {}, "the tokenizer folder holds no tokenizer.json"),
        ({"tokenizer.json": "{}"}, {}, "tokenizer.json: not a tokenizer"),
        ({}, {"tokenizer": None, "max_length": 5}, "max_length is counted in tokens: give the tokenizer"),
        ({"tokenizer_config.json": '{"chat_template": "{% if %}"}'}, {}, "the chat template cannot be read"),
        (
            {"tokenizer_config.json": '{"chat_template": "{{ raise_exception(\'no system turn\') }}"}'},
            {},
            "does not take a chat with the turns user, assistant: no system turn",
        ),
        ({"tokenizer_config.json": '{"chat_template": "{{ messages.__class__.__mro__ }}"}'}, {}, "unsafe"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_one_clear_line(prepare, small_model, tmp_path, files, inputs, message):
    folder = tmp_path / "model"
    folder.mkdir()
    if "tokenizer_config.json" in files:
        (folder / "tokenizer.json").write_bytes((small_model / "tokenizer.json").read_bytes())
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(UserError, match=message):
        prepare(chats_of_documents("en", range(30)), **({"tokenizer": folder} | inputs))
