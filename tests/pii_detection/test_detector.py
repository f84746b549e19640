"""pii_detection.Detector: what is personal is found at its place in any writing, and look-alikes are left alone."""

import time

import pytest

from pii_detection import ENTITY_TYPES, Detector, Finding, merge
from tests.pii_detection.generated_pii import generate

DETECTOR = Detector()


def found(text: str, detector: Detector = DETECTOR) -> list[tuple[str, str]]:
    return [(text[finding.start : finding.end], finding.entity_type) for finding in detector.find(text)]


@pytest.mark.parametrize(
    "text, value, kind",
    [
        # next to particles, which \b takes for a part of the word
        ("電話は090-1234-5678です", "090-1234-5678", "PHONE_NUMBER"),
        ("전화번호는010-2345-6789입니다", "010-2345-6789", "PHONE_NUMBER"),
        ("メールはtaro@example.comまで", "taro@example.com", "EMAIL_ADDRESS"),
        ("메일은minsu@naver.com으로", "minsu@naver.com", "EMAIL_ADDRESS"),
        ("接続元は192.168.0.12です", "192.168.0.12", "IP_ADDRESS"),
        ("カードは4111111111111111です", "4111111111111111", "CREDIT_CARD"),
        # telephone numbers as they are written in the regions
        ("03-3212-5678まで", "03-3212-5678", "PHONE_NUMBER"),
        ("（03）3212-5678まで", "（03）3212-5678", "PHONE_NUMBER"),
        ("0467-22-1234", "0467-22-1234", "PHONE_NUMBER"),
        ("09012345678にかけて", "09012345678", "PHONE_NUMBER"),
        ("02-312-4567로", "02-312-4567", "PHONE_NUMBER"),
        ("call (212) 664-7665 x12 now", "(212) 664-7665 x12", "PHONE_NUMBER"),
        ("+81 (0)3-3212-5678", "+81 (0)3-3212-5678", "PHONE_NUMBER"),
        ("+821023456789", "+821023456789", "PHONE_NUMBER"),
        ("Tel0332125678", "0332125678", "PHONE_NUMBER"),
        ("tel 60-56-85-91", "60-56-85-91", "PHONE_NUMBER"),  # of no region that was asked for
        # other writings of the same
        ("０９０－１２３４－５６７８です", "０９０－１２３４－５６７８", "PHONE_NUMBER"),
        ("０９０ー１２３４ー５６７８です", "０９０ー１２３４ー５６７８", "PHONE_NUMBER"),
        ("090-1234-\n5678です", "090-1234-\n5678", "PHONE_NUMBER"),
        ("0\u200b90-12\u200b34-5678", "0\u200b90-12\u200b34-5678", "PHONE_NUMBER"),
        ("٠٩٠-١٢٣٤-٥٦٧٨", "٠٩٠-١٢٣٤-٥٦٧٨", "PHONE_NUMBER"),
        ("ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏｍまで", "ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏｍ", "EMAIL_ADDRESS"),
        ("連絡は太郎@例え.jpへ", "太郎@例え.jp", "EMAIL_ADDRESS"),
        ("홍길동@도메인.한국으로", "홍길동@도메인.한국", "EMAIL_ADDRESS"),
        ("josé.garcía@correo.es", "josé.garcía@correo.es", "EMAIL_ADDRESS"),
        ("taro%40example.com", "taro%40example.com", "EMAIL_ADDRESS"),
        ("ta\u00adro@exam\u2060ple.com.", "ta\u00adro@exam\u2060ple.com", "EMAIL_ADDRESS"),
        ("電話は 0 9 0 1 2 3 4 5 6 7 8 です", "0 9 0 1 2 3 4 5 6 7 8", "PHONE_NUMBER"),
        ("0\u03389\u03380-1234-5678", "0\u03389\u03380-1234-5678", "PHONE_NUMBER"),
        ("090-1234-5678\u0338です", "090-1234-5678\u0338", "PHONE_NUMBER"),
        ("taro[at]example(dot)com まで", "taro[at]example(dot)com", "EMAIL_ADDRESS"),
        ("t\u0430ro@example.com", "t\u0430ro@example.com", "EMAIL_ADDRESS"),  # a Cyrillic letter
        # check digits, each worked out by hand or published by the issuer as an example
        ("Pay 4111 1111 1111 1111 now", "4111 1111 1111 1111", "CREDIT_CARD"),
        ("amex 3782-822463-10005", "3782-822463-10005", "CREDIT_CARD"),
        ("GB29 NWBK 6016 1331 9268 19 please", "GB29 NWBK 6016 1331 9268 19", "IBAN_CODE"),
        ("口座はDE89370400440532013000です", "DE89370400440532013000", "IBAN_CODE"),
        ("de89370400440532013000", "de89370400440532013000", "IBAN_CODE"),
        ("マイナンバーは123456789018です", "123456789018", "JP_MY_NUMBER"),
        ("個人番号：1234-5678-9018", "1234-5678-9018", "JP_MY_NUMBER"),
        ("旅券番号TK1234567を確認", "TK1234567", "JP_PASSPORT"),
        ("免許証番号は301234567890です", "301234567890", "JP_DRIVER_LICENSE"),
        ("가입자 900101-1234568이", "900101-1234568", "KR_RRN"),
        ("주민번호 231014-3103645이", "231014-3103645", "KR_RRN"),  # without a check digit, since October 2020
        ("외국인등록번호는900101-5234563입니다", "900101-5234563", "KR_FRN"),
        ("(주)한빛 124-81-00998으로", "124-81-00998", "KR_BRN"),
        ("id 536-90-4399 ok", "536-90-4399", "US_SSN"),
        ("SSN: 536904399", "536904399", "US_SSN"),
        # the Internet
        ("at fe80::1ff:fe23:4567:890a.", "fe80::1ff:fe23:4567:890a", "IP_ADDRESS"),
        ("from 2001:db8:0:0:8:800:200c:417a port", "2001:db8:0:0:8:800:200c:417a", "IP_ADDRESS"),
        ("http://203.0.113.7:8080/x", "203.0.113.7", "IP_ADDRESS"),
        ("https://bob:s3cret@h.example.com/x", "bob:s3cret", "URL_CREDENTIALS"),
        ("?sv=2024&sig=Zm9vYmFyYmF6cXV4%3D&x=1", "Zm9vYmFyYmF6cXV4%3D", "URL_CREDENTIALS"),
        ("GET /v1?access_token=abcd1234efgh HTTP", "abcd1234efgh", "URL_CREDENTIALS"),
        # keys
        ("キーはAKIAIOSFODNN7EXAMPLEです", "AKIAIOSFODNN7EXAMPLE", "API_KEY"),
        ("ghp_" + "a1B2" * 9, "ghp_" + "a1B2" * 9, "API_KEY"),
        ("sk-proj-" + "Ab1_" * 12, "sk-proj-" + "Ab1_" * 12, "API_KEY"),
        ("AccountKey=" + "aB3+" * 21 + "aB==;Suffix=x", "aB3+" * 21 + "aB==", "API_KEY"),
        (
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
            "API_KEY",
        ),
        ("Server=x;Password=hunter2hunter2;", "hunter2hunter2", "API_KEY"),
        ("パスワードは「abc123def!」です", "abc123def!", "API_KEY"),
        (
            "-----BEGIN PRIVATE KEY-----\nDEK-Info: AES-128-CBC,A1\n\nMIIE\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nDEK-Info: AES-128-CBC,A1\n\nMIIE\n-----END PRIVATE KEY-----",
            "API_KEY",
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----",
            "API_KEY",
        ),
    ],
)
def test_found_at_its_place(text, value, kind):
    assert found(text) == [(value, kind)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "look (at) this. Meet us [at] noon",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "2024-01-05 12:30:45, 2024/1/5 and 1980-2024",
        "order 1234567890123 costs $1,234,567.89",
        "注文番号は2024010512345です。",
        "電話で2024-01-05と36.641907について聞いた。",
        "version 1.2.3.4, v10.20.30.40, ファームウェア10.20.30.40, 버전 10.20.30.40",
        "Mozilla/5.0 Chrome/120.0.0.0 Safari/537.36",
        "1.3.6.1.4.1.311 and 999.1.1.1",
        "std::vector<int> x = a[1::2]; face::feed",
        "icon@2x.png, @Override, a @ b, npm i pkg@1.2.3",
        "ISBN 978-4-10-101001-4 and JAN 4901234567894",
        "4111 1111 1111 1112",  # a wrong check digit
        "GB29 NWBK 6016 1331 9268 18",
        "123456789018",  # a My Number, but nothing says so
        "マイナンバーは123456789019です",
        "TK1234567",
        "900101-1234567",  # a wrong check digit, and nothing that speaks for a number without one
        "901301-1234568",  # no such month
        "8803180700119",  # a Korean barcode
        "000-12-3456, 666-12-3456, 912-12-3456, 123-00-4567",
        "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "d4111111111111111f",
        "https://example.com:8080/path?key=short&page=12345678",
        'password: "********", secret=${SECRET}, password is required',
        "task-force, sk-learn, desk-top-publishing-is-fun",
    ],
)
def test_look_alikes_are_left_alone(text):
    assert found(text) == []


def test_several_in_one_text_and_never_overlapping():
    text = "taro@example.com / 090-1234-5678、4111-1111-1111-1111\n080-1111-2222"
    assert found(text) == [
        ("taro@example.com", "EMAIL_ADDRESS"),
        ("090-1234-5678", "PHONE_NUMBER"),
        ("4111-1111-1111-1111", "CREDIT_CARD"),
        ("080-1111-2222", "PHONE_NUMBER"),
    ]


def test_the_nearer_word_decides_between_equals():
    """123456789018 has the right check digit for a My Number, and the shape of a driver license."""
    assert found("マイナンバー、免許証番号は123456789018") == [("123456789018", "JP_MY_NUMBER")]
    assert found("免許証番号は303456789011、マイナンバーは別") == [("303456789011", "JP_DRIVER_LICENSE")]


def test_offsets_after_characters_of_other_sizes():
    """⑩ is two plain characters, a zero-width space none, ﾃﾞ two that are one."""
    text = "⑩\u200bﾃﾞﾝﾜ:０９０-1234-5678、⑩"
    (finding,) = DETECTOR.find(text)
    assert (finding.start, finding.end) == (7, 20)


def test_only_the_kinds_and_regions_that_were_asked_for():
    text = "03-3212-5678 taro@example.com"
    assert found(text, Detector(["EMAIL_ADDRESS"])) == [("taro@example.com", "EMAIL_ADDRESS")]
    assert found("→03-3212-5678", Detector(regions=("US",))) == []
    assert (
        found("→0912 345 678", Detector(regions=("TW",)))
        == []
        != found("手機 0912 345 678 tel", Detector(regions=("TW",)))
    )
    with pytest.raises(ValueError, match="'EMAIL' is not one of EMAIL_ADDRESS"):
        Detector(["EMAIL"])
    with pytest.raises(ValueError, match="'XX' is not the code of a region"):
        Detector(regions=("XX",))


def test_merge_covers_all_and_takes_the_name_of_the_most_certain():
    assert merge(
        [Finding(4, 9, "B", 0.5), Finding(0, 5, "A", 0.9), Finding(8, 12, "C", 0.7), Finding(12, 13, "D", 1)]
    ) == [
        Finding(0, 12, "A", 0.9),
        Finding(12, 13, "D", 1),
    ]


@pytest.mark.parametrize(
    "piece",
    [
        *("1", "1 ", "1-", "090-", "256.", "1.1.1.", "１", "+1", "(", "電話1", "call 12 3456 ", "4111 1111 1111 1111 "),
        *("a", "a.", "@", "a@", "a@b.", "@a.", ":", "::", "1:", "://", "://a:", "://:", "?key=", "GB29", "GB29 "),
        *("eyJ", "eyJa.", "sk-", "password:", "-----BEGIN PRIVATE KEY-----", "0\u200b", "e\u0301"),
    ],
)
def test_time_grows_with_the_text_and_not_faster(piece):
    """A megabyte of what a pattern might stumble over, against a tenth of it; once in three times, for a collection of
    garbage may fall into one."""

    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        started = time.process_time()
        DETECTOR.find(text)
        return time.process_time() - started

    small = min(seconds(100_000) for _ in range(3))
    assert any(seconds(1_000_000) < 30 * small + 0.2 for _ in range(3))


def test_generated_values_are_found():
    """A floor under what tests/benchmarks/pii.py measures, by other examples than those it takes."""
    examples = list(generate(1500, seed=1))
    values = missed = wrong = 0
    for example in examples:
        findings = DETECTOR.find(example.text)
        for start, end, kind in example.spans:
            values += 1
            missed += not any(f.entity_type == kind and f.start <= start and end <= f.end for f in findings)
        wrong += sum(not any(f.start < end and start < f.end for start, end, _ in example.spans) for f in findings)
    assert values > 600
    assert missed / values < 0.05
    assert wrong / values < 0.02
    assert {kind for example in examples for _, _, kind in example.spans} == set(ENTITY_TYPES)
