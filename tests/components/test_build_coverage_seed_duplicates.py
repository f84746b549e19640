"""Two wordings of a question are told from questions about two things: measured on questions about one library."""

import itertools
import sys

import pytest

# In a line, the answer and then wordings of one question; another line asks for something else.
QUESTIONS = {
    "en": [
        [
            "555-0101",
            "What is the phone number of Harbor Library?",
            "Which phone number does Harbor Library have?",
            "What number do I call to reach Harbor Library?",
        ],
        ["555-0102", "What is the fax number of Harbor Library?", "Which fax number does Harbor Library have?"],
        [
            "9:00",
            "When does Harbor Library open on weekdays?",
            "At what time does Harbor Library open on weekdays?",
            "What is the opening time of Harbor Library on weekdays?",
        ],
        ["19:00", "When does Harbor Library close on weekdays?", "At what time does Harbor Library close on weekdays?"],
        ["9:00", "When does Harbor Library open on Sundays?", "At what time does Harbor Library open on Sundays?"],
        ["Yes.", "Does Harbor Library have a parking lot?", "Is there a parking lot at Harbor Library?"],
        ["Yes.", "Does Harbor Library have a children's room?", "Is there a children's room at Harbor Library?"],
        [
            "82,000",
            "How many books does Harbor Library hold?",
            "What is the number of books that Harbor Library holds?",
        ],
        ["140", "How many seats does Harbor Library have?", "What is the number of seats in Harbor Library?"],
        ["Ada Stone", "Who founded Harbor Library?", "By whom was Harbor Library founded?"],
        ["1921", "When was Harbor Library founded?", "In which year was Harbor Library founded?"],
    ],
    "ja": [
        [
            "555-0101",
            "みなと図書館の電話番号は何ですか？",
            "みなと図書館の電話番号を教えてください。",
            "みなと図書館に電話をかけるときの番号は？",
        ],
        ["555-0102", "みなと図書館のファックス番号は何ですか？", "みなと図書館のファックス番号を教えてください。"],
        ["9時", "みなと図書館の平日の開館時間は何時ですか？", "みなと図書館は平日何時に開館しますか？"],
        ["19時", "みなと図書館の平日の閉館時間は何時ですか？", "みなと図書館は平日何時に閉館しますか？"],
        ["9時", "みなと図書館の日曜の開館時間は何時ですか？", "みなと図書館は日曜何時に開館しますか？"],
        ["はい。", "みなと図書館に駐車場はありますか？", "みなと図書館には駐車場がありますか？"],
        ["はい。", "みなと図書館に児童室はありますか？", "みなと図書館には児童室がありますか？"],
        ["8万2千冊", "みなと図書館の蔵書は何冊ですか？", "みなと図書館には本が何冊ありますか？"],
        ["140席", "みなと図書館の座席は何席ですか？", "みなと図書館には席が何席ありますか？"],
        ["石田花子", "みなと図書館を設立したのは誰ですか？", "みなと図書館は誰が設立しましたか？"],
        ["1921年", "みなと図書館が設立されたのはいつですか？", "みなと図書館はいつ設立されましたか？"],
    ],
    "ko": [
        [
            "555-0101",
            "항구도서관의 전화번호는 무엇인가요?",
            "항구도서관의 전화번호를 알려 주세요.",
            "항구도서관에 전화하려면 몇 번으로 걸어야 하나요?",
        ],
        ["555-0102", "항구도서관의 팩스번호는 무엇인가요?", "항구도서관의 팩스번호를 알려 주세요."],
        ["9시", "항구도서관의 평일 개관 시간은 언제인가요?", "항구도서관은 평일 몇 시에 문을 여나요?"],
        ["19시", "항구도서관의 평일 폐관 시간은 언제인가요?", "항구도서관은 평일 몇 시에 문을 닫나요?"],
        ["9시", "항구도서관의 일요일 개관 시간은 언제인가요?", "항구도서관은 일요일 몇 시에 문을 여나요?"],
        ["예.", "항구도서관에 주차장이 있나요?", "항구도서관에는 주차장이 있습니까?"],
        ["예.", "항구도서관에 어린이실이 있나요?", "항구도서관에는 어린이실이 있습니까?"],
        ["8만 2천 권", "항구도서관에는 책이 몇 권 있나요?", "항구도서관의 장서는 몇 권인가요?"],
        ["140석", "항구도서관의 좌석은 몇 석인가요?", "항구도서관에는 자리가 몇 개 있나요?"],
        ["김하나", "항구도서관을 설립한 사람은 누구인가요?", "항구도서관은 누가 설립했나요?"],
        ["1921년", "항구도서관은 언제 설립되었나요?", "항구도서관이 설립된 해는 언제인가요?"],
    ],
}


@pytest.mark.parametrize(("language", "found_of"), [("en", (13, 15)), ("ja", (9, 13)), ("ko", (8, 13))])
def test_wordings_of_one_question(load_main, language, found_of):
    """Wrong is only what nothing but its meaning tells apart: two opening times that are the same hour."""
    load_main("build_coverage_seed")
    same_fact = sys.modules["same_questions"].same_fact
    pairs = [(line, (q, answer)) for line, (answer, *asked) in enumerate(QUESTIONS[language]) for q in asked]
    alike, unlike = [], []
    for (line, pair), (other_line, other) in itertools.combinations(pairs, 2):
        (alike if line == other_line else unlike).append((same_fact(pair, other), {line, other_line}))
    assert (sum(same for same, _ in alike), len(alike)) == found_of
    assert all(lines == {2, 4} for same, lines in unlike if same)


@pytest.mark.parametrize(
    ("pair", "other", "expected"),
    [
        (
            ("What is the District of Rowan House?", "Old Town"),
            ("What is the Address of Rowan House?", "3 Rue, Old Town"),
            False,
        ),
        (("How many seats has room 12?", "20"), ("How many seats has room 13?", "20"), False),
        (('Is "Closed" Y or N for Rowan House?', "No"), ('For Rowan House, is "Closed" Y or N?', "No."), True),
        (("Does Rowan House have a garden?", "Yes."), ("Does Rowan House have a kitchen?", "Yes."), False),
        (("When was it built?", "In 1921."), ("When was it built?", "In 1930."), False),
    ],
)
def test_what_decides(load_main, pair, other, expected):
    load_main("build_coverage_seed")
    assert sys.modules["same_questions"].same_fact(pair, other) is expected
