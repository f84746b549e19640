"""prepare_benchmark: what stands in the training chats is found, and a form of words is not taken for it."""

import json
import random

import pytest

from slmkit import records
from slmkit.errors import UserError

WORDS = 8
CHARACTERS = 13


@pytest.fixture(scope="module")
def contamination(load_main):
    load_main("prepare_benchmark")
    import contamination

    return contamination


@pytest.fixture
def overlaps(contamination, tmp_path):
    def run(asked: list[tuple[str, str]], *chats: tuple[str, ...]) -> list[tuple[float, float]]:
        path = tmp_path / "train"
        with records.write_records(path) as write:
            for number, turns in enumerate(chats):
                roles = ("user", "assistant") * len(turns)
                messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
                write({"id": str(number), "messages": messages})
        found, num_chats = contamination.overlaps(asked, path, WORDS, CHARACTERS)
        assert num_chats == len(chats)
        return [(overlap.question, overlap.with_answer) for overlap in found]

    return run


def test_a_question_of_ten_words_has_three_ngrams(overlaps):
    question = "one two three four five six seven eight nine ten"
    assert overlaps([(question, "x y")], ("Say: ONE two, three four five six seven eight!",)) == [(1 / 3, 1 / 5)]
    assert overlaps([(question, "x y")], (question.replace("six", "6"),)) == [(0, 0)]
    # The answer of another turn follows at once: all five n-grams of question and answer are there.
    assert overlaps([(question, "x y")], (question, "x y")) == [(1, 1)]
    assert overlaps([(question, "x y")], (question, "y x")) == [(1, 3 / 5)]


def test_characters_where_words_are_not_divided(overlaps):
    ja = "江戸幕府を開いた人物は誰ですか"  # 15 characters: three n-grams of 13
    assert overlaps([(ja, "徳川家康")], (f"質問です。{ja}？",)) == [(1, 3 / 7)]
    assert overlaps([(ja, "徳川家康")], (ja[:14],)) == [(2 / 3, 2 / 7)]
    ko = "훈민정음을 처음 만든 임금은 누구인가"  # 16 without the blanks, which may be set otherwise
    assert overlaps([(ko, "세종")], ("훈민 정음을 처음만든 임금은 누구인가?",)) == [(1, 4 / 6)]


def test_no_ngram_reaches_from_one_chat_into_the_next(overlaps):
    question = "one two three four five six seven eight"
    assert overlaps([(question, "9")], ("one two three four",), ("five six seven eight",)) == [(0, 0)]


def test_a_short_question_is_a_line_with_its_answer_in_the_same_chat(overlaps):
    asked = [("春は？", "あたたかい"), ("Who?", "Ada Lovelace")]
    assert overlaps(asked, ("春は？", "あたたかいです。")) == [(1, 1), (0, 0)]
    assert overlaps(asked, ("春は？", "寒い"), ("あたたかい",)) == [(0, 0), (0, 0)]  # in two chats
    assert overlaps(asked, ("これは春は？と言う", "あたたかい")) == [(0, 0), (0, 0)]  # within a line
    assert overlaps(asked, ("Hint\n ｗｈｏ? \nA. ada  lovelace", "ADA LOVELACE")) == [(0, 0), (1, 1)]


def test_a_form_of_words_is_no_sign(overlaps):
    form = "which of the following statements is true of the planet called"
    names = [f"alpha{n} beta{n} gamma{n} delta{n}" for n in range(11)]
    asked = [(f"{form} {name}", "x") for name in names]
    # Eleven questions begin so. Of 15 words 8 n-grams, and the first four are all form.
    assert overlaps(asked, (f"{form} home?",)) == [(0, 0)] * 11
    assert overlaps(asked[:10], (f"{form} home?",)) == [(4 / 8, 4 / 9)] * 10
    assert overlaps(asked, (asked[3][0],))[3] == (1, 4 / 5) and overlaps(asked, (asked[3][0],))[4] == (0, 0)


def test_against_a_search_that_holds_every_text_against_every_other(overlaps, contamination):
    chooser = random.Random(3)
    words = [f"w{n}" for n in range(30)]
    asked = [(" ".join(chooser.choices(words, k=chooser.randint(8, 14))), "end") for _ in range(60)]
    chats = []
    for question, _ in asked[:40]:
        parts = question.split()
        begin = chooser.randrange(len(parts))
        chats.append(" ".join([*chooser.choices(words, k=3), *parts[begin:], *chooser.choices(words, k=3)]))

    def share(question: str) -> float:
        parts = question.split()
        grams = [" ".join(parts[at : at + WORDS]) for at in range(len(parts) - WORDS + 1)]
        return sum(any(f" {gram} " in f" {chat} " for chat in chats) for gram in grams) / len(grams)

    contamination._BLOCK, block = 50, contamination._BLOCK  # so that the chats are looked up in several blocks
    try:
        found = overlaps(asked, *[(chat,) for chat in chats])
    finally:
        contamination._BLOCK = block
    assert [question for question, _ in found] == pytest.approx([share(question) for question, _ in asked])
    assert 0 < sum(question > 0 for question, _ in found) < 60


@pytest.fixture
def prepare(load_main, tmp_path):
    main = load_main("prepare_benchmark")
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [
        {"question": f"Number {n}: how many of the {n} red apples in basket {n} are left?", "answer": f"#### {n}"}
        for n in range(4)
    ]
    (raw / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(train: list[dict], **flags) -> tuple[list[dict], dict]:
        with records.write_records(tmp_path / "train") as write:
            for row in train:
                write(row)
        args = main.Args("gsm8k", tmp_path / "items", tmp_path / "report", raw, train_data=tmp_path / "train", **flags)
        metrics = main.run(args)
        items = list(records.read_records(args.eval_items))
        return items, json.loads((args.report / "report.json").read_text("utf-8")), metrics, args

    return run


def chat(text: str) -> dict:
    return {"id": "c", "messages": [{"role": "user", "content": text}]}


def test_items_are_marked_and_counted_and_none_is_dropped(prepare):
    items, report, metrics, args = prepare([chat("number 2: How many of the 2 red apples in basket 2 are left? Hm")])
    assert [item["slices"]["contaminated"] for item in items] == ["no", "no", "yes", "no"]
    assert report["contamination"]["question_fraction"] == metrics["data/contaminated_fraction"] == 0.25
    assert [row["id"] for row in report["contamination"]["examples"]] == [items[2]["id"]]
    page = (args.report / "report.html").read_text("utf-8")
    assert "25.0% contaminated" in page and items[2]["id"] in page


def test_too_much_contamination_stops_and_says_what_to_do(prepare, tmp_path):
    text = "Number 2: how many of the 2 red apples in basket 2 are left?"
    assert prepare([chat(text)], max_contaminated_fraction=0.25)
    (tmp_path / "items").unlink()
    with pytest.raises(UserError, match=r"25\.0% of the items stand in train_data.*guarded_data"):
        prepare([chat(text)], max_contaminated_fraction=0.2)
    assert not (tmp_path / "items").exists()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([], "train_data holds no chat"),
        ([{"text": "x"}], "train_data train:1: a chat needs a non-empty list 'messages'"),
    ],
)
def test_training_data_that_cannot_be_read(prepare, train, message):
    with pytest.raises(UserError, match=message):
        prepare(train)
