"""Languages and sentences whose right answer a reader of the language gives."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.textstats import language, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The store opens at nine.", "en"),
        ("Le magasin ouvre à neuf heures.", "en"),  # Latin script is taken for English
        ("営業時間は9時からです。", "ja"),
        ("ﾌﾞﾗｲﾄｽﾄｱ", "ja"),
        ("BrightStore Centralは、最新の電子機器を幅広く提供しています。", "ja"),
        ("Python asyncio の使い方", "ja"),
        ("매장은 아홉 시에 엽니다.", "ko"),
        ("大韓民國 憲法 제1조", "ko"),
        ("LG전자 OLED TV를 판매합니다", "ko"),
        ("東京都千代田区", "ja"),  # no kana, yet JIS writes every character and nothing in it is Chinese only
        ("这家商店九点开门。", "zh"),
        ("這家商店九點開門", "zh"),
        ("The word 東京 means Tokyo, the capital of Japan.", "en"),
        ("https://example.com/very/long/address/in/latin/script を見てください", "ja"),
        ("02-5678-1234", "und"),
        ("", "und"),
        ("Магазин открывается в девять", "und"),
    ],
)
def test_language(text, expected):
    assert language(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "It costs 3.5 dollars. Open 9.30 to 18.00! Really?",
            ["It costs 3.5 dollars.", "Open 9.30 to 18.00!", "Really?"],
        ),
        ("Dr. Kim met Mr. J. Smith. They left.", ["Dr. Kim met Mr. J. Smith.", "They left."]),
        ("See Fig. 3 and No. 5, e.g. this. No. It is not.", ["See Fig. 3 and No. 5, e.g. this.", "No.", "It is not."]),
        (
            "Acme Inc. makes it. He works for Acme Inc. She does not.",
            ["Acme Inc. makes it.", "He works for Acme Inc.", "She does not."],
        ),
        (
            'He said "Go now." Then he left. (It was late.) Fine',
            ['He said "Go now."', "Then he left.", "(It was late.)", "Fine"],
        ),
        ('"Really?" he said. Well... maybe.', ['"Really?" he said.', "Well... maybe."]),
        ("Visit https://example.com/a.b?c=1. It is new", ["Visit https://example.com/a.b?c=1.", "It is new"]),
        ("Mail info@example.com. Use main.py. End", ["Mail info@example.com.", "Use main.py.", "End"]),
        ("1. Open the file.\n2. Read it.", ["1. Open the file.", "2. Read it."]),
        ("First line\nsecond line", ["First line", "second line"]),
        ("今日は晴れです。明日は雨？そうです！", ["今日は晴れです。", "明日は雨？", "そうです！"]),
        ("「行きます。」と言った。「はい。」彼は座った。", ["「行きます。」と言った。", "「はい。」", "彼は座った。"]),
        ("「はい。そうです。」と答えた。", ["「はい。そうです。」と答えた。"]),
        ("３．５倍です。https://example.jp/a?b。次", ["３．５倍です。", "https://example.jp/a?b。", "次"]),
        ("終わりです。といっても続きます。", ["終わりです。", "といっても続きます。"]),
        ("Yahoo!ニュースです。", ["Yahoo!ニュースです。"]),
        ("매장은 3.5층입니다. 어서 오세요! 감사합니다", ["매장은 3.5층입니다.", "어서 오세요!", "감사합니다"]),
        ("끝났습니다.다음입니다.", ["끝났습니다.", "다음입니다."]),
        ("2024. 7. 22. 오전 9:52에 열었다. 끝.", ["2024. 7. 22. 오전 9:52에 열었다.", "끝."]),
        ('"갑니다."라고 말했다. 끝.', ['"갑니다."라고 말했다.', "끝."]),
        ("", []),
        (" \n\n ", []),
        ("...", ["..."]),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


@given(st.text(alphabet="aB1 .!?\n。！？「」）)\"'あ漢한Dr:/h", max_size=80))
def test_nothing_but_white_space_is_left_out(text):
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(sentence and sentence == sentence.strip() and sentence in text for sentence in found)


def test_cost_grows_with_length_only():
    def seconds(text: str) -> float:
        started = time.process_time()
        sentences(text)
        return time.process_time() - started

    text = "e.g. 3.5 and Dr. no end " * 2_000  # not one boundary: the worst case for look-behind
    once = max(0.005, min(seconds(text) for _ in range(3)))
    assert any(seconds(text * 4) < 10 * once for _ in range(3))
