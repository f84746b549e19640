"""score_multiple_choice, method generate: which choice an answer in words states, in three languages."""

import pytest

LATIN, KANA, HANGUL, DIGITS = list("ABCDE"), list("アイウエオ"), list("가나다라마"), list("12345")
ANIMALS = ["A dog", "a cat", "a hot dog", "the bird", "fish"]
PLACES = ["海", "山", "川", "森林", "林"]
CITIES = ["서울", "부산", "대구", "인천", "광주"]

STATED = [
    # English
    ("B", LATIN, ANIMALS, 1),
    ("b", LATIN, ANIMALS, 1),
    ("B.", LATIN, ANIMALS, 1),
    ("(B)", LATIN, ANIMALS, 1),
    ("**B**", LATIN, ANIMALS, 1),
    ("B) a cat", LATIN, ANIMALS, 1),
    ("Ｂ", LATIN, ANIMALS, 1),
    ("（Ｂ）", LATIN, ANIMALS, 1),
    ("The answer is (B)", LATIN, ANIMALS, 1),
    ("The correct answer is **B**.", LATIN, ANIMALS, 1),
    ("The correct answer is option C, since A is too large.", LATIN, ANIMALS, 2),
    ("Answer: D", LATIN, ANIMALS, 3),
    ("answer: d.", LATIN, ANIMALS, 3),
    ("Final answer: \\boxed{E}", LATIN, ANIMALS, 4),
    ("It is not A but B.", LATIN, ANIMALS, 1),
    ("The answer is not A, but rather C.", LATIN, ANIMALS, 2),
    ("Not A but B", LATIN, ANIMALS, 1),
    ("At first the answer is A. Thinking again, the answer is D.", LATIN, ANIMALS, 3),
    ("Option A is wrong, and E is correct.", LATIN, ANIMALS, 4),
    ("I would choose C.", LATIN, ANIMALS, 2),
    ("The answer is the bird", LATIN, ANIMALS, 3),
    ("The answer is A dog.", LATIN, ANIMALS, 0),
    ("Surely a hot dog!", LATIN, ANIMALS, 2),
    ("Fish", LATIN, ANIMALS, 4),
    ("the bird", [], ANIMALS, 3),
    ("The answer is 3.", LATIN, ["5", "4", "3", "8", "9"], 2),
    ("The answer is 3.", LATIN, ANIMALS, 2),
    ("The answer is 3.", DIGITS, ["5", "4", "8", "3", "9"], 2),
    ("3) 8", DIGITS, ["5", "4", "8", "3", "9"], 2),
    # Japanese
    ("C", LATIN, PLACES, 2),
    ("答え：ウ", KANA, PLACES, 2),
    ("答え：ウ", LATIN, PLACES, 2),
    ("答えはＣです。", LATIN, PLACES, 2),
    ("正解はウです。", KANA, PLACES, 2),
    ("正解は「ウ」です。", KANA, PLACES, 2),
    ("ｳ", KANA, PLACES, 2),
    ("③", LATIN, PLACES, 2),
    ("3番", LATIN, PLACES, 2),
    ("３番です", DIGITS, PLACES, 2),
    ("正解は③。", DIGITS, PLACES, 2),
    ("Aではなく、Bです。", LATIN, PLACES, 1),
    ("アではなくイが正しい。", KANA, PLACES, 1),
    ("Cが正解です。Aは違います。", LATIN, PLACES, 2),
    ("最も適切なものはどれかを考えると、Dを選びます。", LATIN, PLACES, 3),
    ("答えは森林です", LATIN, PLACES, 3),
    ("森林", LATIN, PLACES, 3),
    # Korean
    ("정답: C", LATIN, CITIES, 2),
    ("정답은 C입니다.", LATIN, CITIES, 2),
    ("정답은 다입니다.", HANGUL, CITIES, 2),
    ("정답: (다)", HANGUL, CITIES, 2),
    ("3번", LATIN, CITIES, 2),
    ("정답은 3번입니다.", DIGITS, CITIES, 2),
    ("③", DIGITS, CITIES, 2),
    ("다", HANGUL, CITIES, 2),
    ("C가 정답입니다.", LATIN, CITIES, 2),
    ("A가 아니라 B입니다.", LATIN, CITIES, 1),
    ("답은 대구입니다.", LATIN, CITIES, 2),
    ("대구", LATIN, CITIES, 2),
    # nothing stated
    ("", LATIN, ANIMALS, None),
    ("I do not know.", LATIN, ANIMALS, None),
    ("A or B", LATIN, ANIMALS, None),
    ("A friend of mine has seen many things.", LATIN, PLACES, None),
    ("a cat and fish", LATIN, ANIMALS, None),
    ("アメリカです", KANA, PLACES, None),
    ("The answer is 42.", LATIN, ANIMALS, None),
    ("나는 모르겠습니다", HANGUL, CITIES, None),
    ("The answer is Ben.", LATIN, ANIMALS, None),
    ("C", [], PLACES, None),
]


@pytest.fixture(scope="module")
def parser(load_main):
    load_main("score_multiple_choice")
    import stated_choice

    return stated_choice


@pytest.mark.parametrize(("answer", "labels", "choices", "expected"), STATED)
def test_stated(parser, answer, labels, choices, expected):
    assert parser.stated_choice(answer, choices, labels) == expected


EXACT = [
    ("B", LATIN, 1),
    (" Ｂ \n", LATIN, 1),
    ("(B).", LATIN, 1),
    ("B.", LATIN, 1),
    ("ウ。", KANA, 2),
    ("다", HANGUL, 2),
    ("b", LATIN, None),
    ("The answer is B", LATIN, None),
    ("ウ", LATIN, None),
    ("a cat", LATIN, None),
    ("a cat", [], 1),
    ("", LATIN, None),
]


@pytest.mark.parametrize(("answer", "labels", "expected"), EXACT)
def test_exact(parser, answer, labels, expected):
    assert parser.exact_choice(answer, ANIMALS, labels) == expected


HOSTILE = ["(" * 5000, "answer is " * 3000, "A, " * 5000, "正解は" * 5000, "not A but " * 2000, " " * 20000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(6))
def test_a_hostile_answer_takes_no_time(parser, text):
    import time

    started = time.process_time()
    parser.stated_choice(text, ANIMALS, LATIN)
    assert time.process_time() - started < 2
