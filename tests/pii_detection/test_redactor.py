"""pii_detection.Redactor: no value stays, nothing else changes, and pseudonyms are consistent and cannot exist."""

import itertools
import re
import time

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pii_detection import ENTITY_TYPES, Detector, Finding, LeftOverError, Redactor
from tests.pii_detection.generated_pii import MAKERS, Rng, phone

DETECTOR = Detector()
KEY = b"a key for tests only"
ACTIONS = ("mask", "hash", "replace")


def redacted(text: str, action: str = "replace", key: bytes = KEY) -> str:
    return Redactor(DETECTOR, action, key).redact(text)[0]


def test_each_action():
    text = "メールはtaro@gmail.comまで"
    finding = Finding(4, 18, "EMAIL_ADDRESS", 0.95)
    assert Redactor(DETECTOR, "mask").redact(text) == ("メールは<EMAIL_ADDRESS>まで", [finding])
    assert Redactor(DETECTOR, "drop").redact(text) == (None, [finding])
    assert re.fullmatch(r"メールは<EMAIL_ADDRESS:[a-p]{16}>まで", redacted(text, "hash"))
    assert re.fullmatch(r"メールはuser-[0-9a-f]{10}@example\.comまで", redacted(text))
    for action in (*ACTIONS, "drop"):
        assert Redactor(DETECTOR, action, KEY).redact("何もない") == ("何もない", [])


@pytest.mark.parametrize(
    "action, key, message", [("erase", KEY, "'erase' is not one of"), ("hash", b"", "needs a key")]
)
def test_what_cannot_work_is_refused_at_once(action, key, message):
    with pytest.raises(ValueError, match=message):
        Redactor(DETECTOR, action, key)


def test_hashes_depend_on_key_type_and_value_alone():
    redactor = Redactor(DETECTOR, "mask", KEY)
    assert redactor.hash("090-1234-5678", "PHONE_NUMBER") == redactor.hash("０９０ー１２３４ー５６７８", "PHONE_NUMBER")
    assert redactor.hash("090-1234-5678", "PHONE_NUMBER") == redactor.hash("+81 90 1234 5678", "PHONE_NUMBER")
    assert redactor.hash("Taro@Gmail.com", "EMAIL_ADDRESS") == redactor.hash("taro@gmail.com", "EMAIL_ADDRESS")
    assert redactor.hash("aB3aB3", "API_KEY") != redactor.hash("ab3ab3", "API_KEY")
    assert redactor.hash("124-81-00998", "KR_BRN") != redactor.hash("124-81-00998", "US_SSN")
    assert redactor.hash("a@b.jp", "EMAIL_ADDRESS") != Redactor(DETECTOR, "mask", b"other").hash(
        "a@b.jp", "EMAIL_ADDRESS"
    )


def test_a_value_has_one_pseudonym_however_it_is_written():
    """In the layout of each place: the digits are the same, width and separators are kept."""
    new = redacted("電話090-1234-5678、０９０－１２３４－５６７８、090 1234 5678")
    first, wide, spaced = re.fullmatch(r"電話(\S{13})、(\S{13})、(\S{3} \S{4} \S{4})", new).groups()
    digits = first.replace("-", "")
    assert digits != "09012345678"
    assert wide.translate({ord("０") + n: str(n) for n in range(10)}) == first.replace("-", "－")
    assert spaced.replace(" ", "") == digits


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["en", "ja", "ko"]), st.integers(0, 10**6))
def test_telephone_pseudonyms_are_assigned_to_nobody(language, seed):
    value = phone(Rng(seed), language)
    new = redacted(f"tel:{value}").removeprefix("tel:")
    assert re.sub(r"\d", "0", new) == re.sub(r"\d", "0", value)
    try:
        number = phonenumbers.parse(new, {"en": "US", "ja": "JP", "ko": "KR"}[language])
    except phonenumbers.NumberParseException:
        return  # under a country code that there is not
    # phonenumbers takes 010-0xxx-xxxx for assigned, but the Korean plan begins at 010-2
    assert not phonenumbers.is_valid_number(number) or re.match(r"(\+82\D?|0)100", re.sub(r"[ .()-]", "", new))


def test_pseudonyms_leave_nothing_of_what_was_hidden_in_other_characters():
    assert re.fullmatch(r"旅券ZZ\d{7}", redacted("旅券T\u200bK１２３4567"))
    assert re.fullmatch(r"電話090-0\d{3}-\d{4}", redacted("電話090-⑫34-5678"))
    assert redacted("電話090-⑫34-5678") == redacted("電話090-1234-5678")


def luhn(number: str) -> bool:
    digits = [int(digit) for digit in number if digit.isdigit()][::-1]
    return sum(digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(digits)) % 10 == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6))
def test_other_pseudonyms_cannot_exist(seed):
    rng = Rng(seed)
    assert not luhn(redacted(f"card {MAKERS['CREDIT_CARD'](rng)}"))
    assert redacted(MAKERS["IBAN_CODE"](rng))[2:4] == "00"  # check digits are 02 to 98
    assert redacted(f"SSN {MAKERS['US_SSN'](rng)}")[4] == "9"
    assert redacted(f"주민번호 {MAKERS['KR_RRN'](rng)}")[7:9] == "13"  # as the month
    address = redacted(MAKERS["IP_ADDRESS"](rng))
    assert address.startswith("2001:db8:") or 240 <= int(address.split(".")[0]) <= 254


def test_pseudonyms_of_different_values_differ():
    values = [f"090-{n // 10000 + 1000}-{n % 10000:04d}" for n in range(3000)]
    assert len({redacted(value) for value in values}) == 3000


def test_a_value_that_shows_only_after_the_first_pass_is_redacted_too():
    """What stands right beside a number hides it; it must not show once that number is gone."""

    class Hiding:
        def find(self, text):
            secret = text.find("SECRET")
            first = text.find("A-")
            if first >= 0:
                return [Finding(first, first + 2, "US_SSN", 1.0)]
            return [Finding(secret, secret + 6, "API_KEY", 1.0)] if secret >= 0 else []

    assert Redactor(Hiding(), "mask").redact("xA-SECRET.") == ("x<US_SSN><API_KEY>.", [Finding(1, 3, "US_SSN", 1.0)])


def test_many_that_show_only_later_take_no_longer():
    class Layered:
        def find(self, text):
            layer = "x" if "x" in text else "z"
            return [Finding(m.start(), m.end(), "API_KEY", 1.0) for m in re.finditer(layer, text)]

    started = time.process_time()
    new, _ = Redactor(Layered(), "hash", KEY).redact("x z." * 20_000)
    assert not re.search("[xz]", new) and new.count("API_KEY") == 40_000
    assert time.process_time() - started < 10


def test_text_that_never_comes_clean_is_not_given_out():
    class Endless:
        def find(self, text):
            return [Finding(len(text) - 1, len(text), "API_KEY", 1.0)] if text.endswith("!") else []

    class Growing(Endless):
        def find(self, text):
            return [Finding(0, len(text), "API_KEY", 1.0), Finding(len(text), len(text) + 1, "API_KEY", 1.0)]

    with pytest.raises(LeftOverError, match="API_KEY is still found"):
        Redactor(Growing(), "mask").redact("x")


# --- properties

PLANTED = {
    "EMAIL_ADDRESS": "{}",
    "PHONE_NUMBER": "電話{}",
    "CREDIT_CARD": "카드 {}",
    "IBAN_CODE": "{}",
    "IP_ADDRESS": "host {}",
    "API_KEY": "{}",
    "URL_CREDENTIALS": "https://{}@db.local/",
    "JP_MY_NUMBER": "個人番号{}",
    "JP_PASSPORT": "旅券{}",
    "JP_DRIVER_LICENSE": "免許証{}",
    "KR_RRN": "주민번호{}",
    "KR_FRN": "외국인등록번호{}",
    "KR_BRN": "사업자번호{}",
    "US_SSN": "SSN {}",
}
OTHER = st.text(alphabet="あいうカタ漢字가나다는 、。\n()「」xyz", max_size=12)


@settings(max_examples=400, deadline=None)
@example("", "US_SSN", "", 999999, "hash")  # whose hash began with nine digits, beside "SSN"
@given(OTHER, st.sampled_from(ENTITY_TYPES), OTHER, st.integers(0, 10**6), st.sampled_from(ACTIONS))
def test_no_planted_value_stays_and_no_other_text_changes(before, kind, after, seed, action):
    rng = Rng(seed)
    value = phone(rng, rng.choice(["en", "ja", "ko"])) if kind == "PHONE_NUMBER" else MAKERS[kind](rng)
    start, end = PLANTED[kind].split("{}")
    before, after = f"{before}。{start}", f"{end}。{after}"
    redactor = Redactor(DETECTOR, action, KEY)
    new, findings = redactor.redact(before + value + after)
    assert value not in new
    assert new.startswith(before) and new.endswith(after)
    assert [finding.entity_type for finding in findings] == [kind]
    if action != "replace":  # pseudonyms have the shape of what they stand for
        assert redactor.redact(new) == (new, [])


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="0123456789０１-ー. @()+:/\nabAB電話tel円원\u200b⑩ﾃﾞ\u0301", max_size=60), st.sampled_from(ACTIONS)
)
def test_any_text_is_redacted_to_one_that_keeps_what_was_not_found(text, action):
    redactor = Redactor(DETECTOR, action, KEY)
    findings = DETECTOR.find(text)
    assert all(0 <= f.start < f.end <= len(text) for f in findings)
    assert all(one.end <= other.start for one, other in itertools.pairwise(findings))
    new, same = redactor.redact(text)
    assert same == findings
    if not findings:
        assert new == text
