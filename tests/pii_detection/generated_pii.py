"""Sentences in English, Japanese and Korean with personal data and look-alikes in them, at known places.

Nothing here comes from the detector: values follow the public specifications of their issuers, with check digits worked
out by their own formulas, and stand next to particles, in full width, with invisible characters and across lines.
"""

import random
import string
from collections.abc import Callable, Iterator
from typing import NamedTuple

Rng = random.Random


class Example(NamedTuple):
    text: str
    spans: list[tuple[int, int, str]]
    language: str
    style: str


def digits(rng: Rng, number: int, first: str = "0123456789") -> str:
    return rng.choice(first) + "".join(rng.choices("0123456789", k=number - 1))


def email(rng: Rng) -> str:
    name = rng.choice(
        ["taro.yamada", "k.suzuki", "minsu", "jiwoo.kim", "alice", "bob_smith", "o'neil", "h-tanaka+news", "x9"]
    )
    host = rng.choice(
        ["gmail.com", "yahoo.co.jp", "naver.com", "corp.example.org", "mail.go.kr", "t-online.de", "a.io"]
    )
    return f"{name}{rng.randint(1, 99)}@{host}"


def international_email(rng: Rng) -> str:
    name = rng.choice(["taro", "info", "minsu"])
    host = rng.choice(["例え.jp", "日本語.jp", "한국.kr", "münchen.de", "도메인.한국", "ドメイン.コム"])
    return f"{name}{rng.randint(1, 99)}@{host}"


def phone(rng: Rng, language: str) -> str:
    if language == "ja":
        kind = rng.randrange(6)
        if kind < 3:  # mobile
            parts = [rng.choice(["090", "080", "070"]), digits(rng, 4, "123456789"), digits(rng, 4)]
        elif kind == 3:
            parts = ["03", digits(rng, 4, "356"), digits(rng, 4)]
        elif kind == 4:
            parts = [rng.choice(["045", "052", "011", "092", "075"]), digits(rng, 3, "2346789"), digits(rng, 4)]
        else:
            parts = [rng.choice(["0467", "0463", "0852", "0267"]), digits(rng, 2, "2345"), digits(rng, 4)]
        return _written_phone(rng, parts, "81", bare=kind < 3)
    if language == "ko":
        kind = rng.randrange(5)
        if kind < 3:
            parts = ["010", digits(rng, 4, "23456789"), digits(rng, 4)]
        elif kind == 3:
            parts = ["02", digits(rng, rng.choice([3, 4]), "2345678"), digits(rng, 4)]
        else:
            parts = [rng.choice(["031", "051", "053", "042"]), digits(rng, 3, "23456789"), digits(rng, 4)]
        return _written_phone(rng, parts, "82", bare=kind < 3)
    area = rng.choice(["212", "415", "206", "312", "617", "305", "512", "702", "404", "303"])
    exchange = digits(rng, 3, "23456789").replace("11", "12")
    line = digits(rng, 4)
    return rng.choice(
        [
            f"({area}) {exchange}-{line}",
            f"{area}-{exchange}-{line}",
            f"{area}.{exchange}.{line}",
            f"+1 {area} {exchange} {line}",
            f"1-{area}-{exchange}-{line}",
            f"+1{area}{exchange}{line}",
            f"{area} {exchange} {line}",
            f"{area}/{exchange}-{line}",
        ]
    )


def _written_phone(rng: Rng, parts: list[str], country: str, *, bare: bool) -> str:
    ways = ["-".join(parts), "-".join(parts), " ".join(parts), ".".join(parts), f"({parts[0]}){parts[1]}-{parts[2]}"]
    ways += [f"+{country}-{parts[0][1:]}-{parts[1]}-{parts[2]}", f"+{country} {parts[0][1:]} {parts[1]} {parts[2]}"]
    if bare:
        ways += ["".join(parts), f"+{country}{''.join(parts)[1:]}"]
    return rng.choice(ways)


def card(rng: Rng) -> str:
    prefix, length, groups = rng.choice(
        [
            ("4", 16, (4, 4, 4, 4)),
            ("51", 16, (4, 4, 4, 4)),
            ("2221", 16, (4, 4, 4, 4)),
            ("37", 15, (4, 6, 5)),
            ("3530", 16, (4, 4, 4, 4)),
            ("6011", 16, (4, 4, 4, 4)),
            ("36", 14, (4, 6, 4)),
            ("62", 16, (4, 4, 4, 4)),
        ]
    )
    body = prefix + digits(rng, length - 1 - len(prefix))
    total = 0
    for place, digit in enumerate(reversed(body)):
        product = int(digit) * (2 if place % 2 == 0 else 1)
        total += product // 10 + product % 10
    return _grouped(body + str(-total % 10), groups, rng.choice(["", " ", "-"]))


def _grouped(number: str, groups: tuple[int, ...], separator: str) -> str:
    parts, place = [], 0
    for size in groups:
        parts.append(number[place : place + size])
        place += size
    return separator.join(parts)


def iban(rng: Rng) -> str:
    letters = "".join(rng.choices(string.ascii_uppercase, k=4))
    country, account = rng.choice(
        [
            ("GB", letters + digits(rng, 14)),
            ("DE", digits(rng, 18)),
            ("NL", letters + digits(rng, 10)),
            ("ES", digits(rng, 20)),
            ("FR", digits(rng, 23)),
            ("CH", digits(rng, 17)),
            ("IT", letters[0] + digits(rng, 22)),
            ("NO", digits(rng, 11)),
        ]
    )
    rest = 0
    for char in account + country + "00":
        rest = int(f"{rest}{ord(char) - 55 if char.isalpha() else char}") % 97
    code = f"{country}{98 - rest:02d}{account}"
    return _grouped(code, (4,) * 9, " ").strip() if rng.random() < 0.5 else code


def ip_address(rng: Rng) -> str:
    if rng.random() < 0.6:
        return ".".join(str(rng.randint(11, 254)) for _ in range(4))
    groups = [f"{rng.randrange(1, 65536):x}" for _ in range(8)]
    return rng.choice(
        [":".join(groups), f"2001:{groups[0]}::{groups[1]}", f"fe80::{groups[2]}:{groups[3]}:{groups[4]}"]
    )


def _random(rng: Rng, number: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(rng.choices(alphabet, k=number))


def api_key(rng: Rng) -> str:
    return rng.choice(
        [
            "AKIA" + _random(rng, 16, string.ascii_uppercase + "234567"),
            "ghp_" + _random(rng, 36),
            "github_pat_" + _random(rng, 22) + "_" + _random(rng, 59),
            "sk-" + _random(rng, 48),
            "sk-proj-" + _random(rng, 80, string.ascii_letters + string.digits + "-_"),
            f"xoxb-{digits(rng, 12)}-{digits(rng, 12)}-{_random(rng, 24)}",
            "AIza" + _random(rng, 35, string.ascii_letters + string.digits + "-_"),
            _random(rng, 86, string.ascii_letters + string.digits + "+/") + "==",
            f"eyJ{_random(rng, 33)}.eyJ{_random(rng, 80)}.{_random(rng, 43, string.ascii_letters + '-_')}",
            "glpat-" + _random(rng, 20),
            "hf_" + _random(rng, 34, string.ascii_letters),
            "sk_live_" + _random(rng, 24),
        ]
    )


def my_number(rng: Rng) -> str:
    body = digits(rng, 11)
    rest = sum(int(digit) * weight for digit, weight in zip(body, (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2), strict=True)) % 11
    return _grouped(body + ("0" if rest <= 1 else str(11 - rest)), (4, 4, 4), rng.choice(["", " ", "-"]))


def passport(rng: Rng) -> str:
    return rng.choice("TMN") + rng.choice(string.ascii_uppercase) + digits(rng, 7)


def driver_license(rng: Rng) -> str:
    return rng.choice(["30", "62", "45", "10", "90"]) + digits(rng, 10)


def registration(rng: Rng, sexes: str, constant: int) -> str:
    """RRN (constant 11) or FRN (constant 13)."""
    since_2020 = rng.random() < 0.25
    year, sex = (rng.randint(21, 25), sexes[1]) if since_2020 else (rng.randint(50, 99), sexes[0])
    body = f"{year:02d}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}{sex}{digits(rng, 5)}"
    weights = [place % 8 + 2 for place in range(12)]
    check = (constant - sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True)) % 11) % 10
    last = str((check + rng.randint(1, 9)) % 10) if since_2020 else str(check)
    return f"{body[:6]}-{body[6:]}{last}"


def business(rng: Rng) -> str:
    body = digits(rng, 9, "123456789")
    total = sum(int(digit) * weight for digit, weight in zip(body, (1, 3, 7, 1, 3, 7, 1, 3, 5), strict=True))
    return _grouped(body + str(-(total + int(body[8]) * 5 // 10) % 10), (3, 2, 5), "-")


def social_security(rng: Rng) -> str:
    area = rng.choice([rng.randint(1, 665), rng.randint(667, 899)])
    return f"{area:03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"


def url_secret(rng: Rng) -> str:
    return rng.choice([f"svc{rng.randint(1, 99)}:{_random(rng, 12)}", f"admin:{_random(rng, 9)}!"])


MAKERS: dict[str, Callable[[Rng], str]] = {
    "EMAIL_ADDRESS": lambda rng: international_email(rng) if rng.random() < 0.15 else email(rng),
    "CREDIT_CARD": card,
    "IBAN_CODE": iban,
    "IP_ADDRESS": ip_address,
    "API_KEY": api_key,
    "URL_CREDENTIALS": url_secret,
    "JP_MY_NUMBER": my_number,
    "JP_PASSPORT": passport,
    "JP_DRIVER_LICENSE": driver_license,
    "KR_RRN": lambda rng: registration(rng, rng.choice(["13", "24"]), 11),
    "KR_FRN": lambda rng: registration(rng, rng.choice(["57", "68"]), 13),
    "KR_BRN": business,
    "US_SSN": social_security,
}

# {} is the value; what stands next to it is as people write it, particles without a space among them.
SENTENCES: dict[str, dict[str, list[str]]] = {
    "en": {
        "EMAIL_ADDRESS": ["Please write to {}.", "Her address is <{}>, I think.", "cc:{};", "{} bounced again"],
        "PHONE_NUMBER": [
            "Call me at {} tomorrow.",
            "His number is {}.",
            "Reach the front desk on {}, ext. 12",
            "{} rang twice",
            "| 4471 | Ann Lee | {} | active |",
        ],
        "CREDIT_CARD": [
            "Charge it to {} please.",
            "The card {} was declined.",
            "Visa {}, expires 12/28",
            "{} is stolen",
        ],
        "IBAN_CODE": ["Send the refund to {}.", "IBAN: {}", "From account {} on Monday"],
        "IP_ADDRESS": ["Requests came from {}.", "{} - - GET /index.html", "The host {} is down"],
        "API_KEY": ["export TOKEN={}", "I pasted {} by mistake.", 'key: "{}"'],
        "URL_CREDENTIALS": ["git clone https://{}@git.corp.io/x.git", "postgres://{}@db.internal:5432/app"],
        "US_SSN": [
            "My SSN is {}.",
            "| 4471 | Ann Lee | {} | active |",
            "social security number {}",
            "Applicant {} was approved.",
        ],
        "JP_PASSPORT": ["Passport no. {} was issued in Tokyo."],
        "KR_RRN": ["Her resident registration number is {}."],
        "JP_MY_NUMBER": ["My Number: {}"],
        "KR_BRN": ["Invoice to Hanbit Co., {}."],
    },
    "ja": {
        "EMAIL_ADDRESS": ["メールは{}まで", "連絡先:{}です。", "{}に送ってください。", "担当（{}）へ"],
        "PHONE_NUMBER": [
            "電話は{}です。",
            "携帯{}にかけて",
            "TEL:{}",
            "{}までご連絡ください。",
            "番号は{}なので",
            "4471,山田太郎,{},在籍",
        ],
        "CREDIT_CARD": ["カード番号は{}です。", "{}で支払いました。", "クレジットカード{}を紛失"],
        "IBAN_CODE": ["送金先は{}です。", "IBANは{}まで"],
        "IP_ADDRESS": ["接続元は{}です。", "{}からのアクセスを遮断", "サーバー{}が停止"],
        "API_KEY": ["キーは{}です。", "誤って{}を公開した。"],
        "URL_CREDENTIALS": ["接続先はmongodb://{}@db.local:27017です。"],
        "JP_MY_NUMBER": [
            "マイナンバーは{}です。",
            "個人番号：{}",
            "個人番号（{}）を記入",
            "山田さんの番号{}を登録した。",
        ],
        "JP_PASSPORT": ["パスポート番号は{}です。", "旅券{}を更新した。", "本人確認書類：{}"],
        "JP_DRIVER_LICENSE": ["運転免許証番号は{}です。", "免許証の番号：{}", "本人確認書類：{}"],
    },
    "ko": {
        "EMAIL_ADDRESS": ["메일은{}으로 보내세요.", "이메일:{}입니다", "{}에게 전달"],
        "PHONE_NUMBER": [
            "전화번호는{}입니다.",
            "휴대폰{}로 연락",
            "{}으로 문자 주세요.",
            "연락처: {}",
            "4471,김민수,{},재직",
        ],
        "CREDIT_CARD": ["카드번호는{}입니다.", "{}로 결제했습니다.", "신용카드{}를 분실"],
        "IBAN_CODE": ["송금 계좌는{}입니다."],
        "IP_ADDRESS": ["접속 주소는{}입니다.", "{}에서 접근 시도"],
        "API_KEY": ["키는{}입니다.", "실수로 {}를 올렸다."],
        "URL_CREDENTIALS": ["주소는 redis://{}@cache.local:6379입니다."],
        "KR_RRN": ["주민등록번호는{}입니다.", "주민번호 {}으로 확인", "가입자 {}이 신청"],
        "KR_FRN": ["외국인등록번호는{}입니다.", "외국인등록증 {}을 제출"],
        "KR_BRN": ["사업자등록번호는{}입니다.", "(주)한빛 {}으로 발행"],
    },
}


def _isbn(rng: Rng) -> str:
    body = "9784" + digits(rng, 8)
    check = -sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(body)) % 10
    return f"{body[:3]}-{body[3]}-{body[4:6]}-{body[6:12]}-{check}"


def _barcode(rng: Rng) -> str:
    body = rng.choice(["49", "45", "88"]) + digits(rng, 10)
    return body + str(-sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(body)) % 10)


def _date(rng: Rng) -> str:
    year, month, day = rng.randint(1990, 2026), rng.randint(1, 12), rng.randint(1, 28)
    time = f" {rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
    return rng.choice(
        [f"{year}-{month:02d}-{day:02d}", f"{year}/{month}/{day}", f"{year}.{month}.{day}."]
    ) + rng.choice(["", time])


LOOKALIKES: dict[str, Callable[[Rng], str]] = {
    "order number": lambda rng: rng.choice(
        [digits(rng, 16, "789"), f"{digits(rng, 3)}-{digits(rng, 7)}-{digits(rng, 7)}"]
    ),
    "dated order": lambda rng: (
        f"{rng.randint(2019, 2026)}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}-{digits(rng, 7)}"
    ),
    "tracking number": lambda rng: _grouped(digits(rng, 12), (4, 4, 4), rng.choice(["", "-"])),
    "date": _date,
    "version": lambda rng: ".".join(str(rng.randint(0, 30)) for _ in range(4)),
    "price": lambda rng: f"{rng.choice('¥₩$')}{rng.randint(1, 999)},{digits(rng, 3)},{digits(rng, 3)}",
    "ISBN": _isbn,
    "barcode": _barcode,
    "part number": lambda rng: (
        f"{_random(rng, 2, string.ascii_uppercase)}-{digits(rng, 4)}-{digits(rng, 4)}-{digits(rng, 2)}"
    ),
    "identifier": lambda rng: "-".join(_random(rng, size, "0123456789abcdef") for size in (8, 4, 4, 4, 12)),
    "hash": lambda rng: _random(rng, 40, "0123456789abcdef"),
    "amount": lambda rng: f"{digits(rng, 7, '123456789')}.{digits(rng, 2)}",
    "coordinates": lambda rng: f"{rng.randint(33, 43)}.{digits(rng, 6)}, {rng.randint(127, 141)}.{digits(rng, 6)}",
    "time span": lambda rng: f"{rng.randint(1980, 2000)}-{rng.randint(2001, 2026)}",
    "time": lambda rng: f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}",
    "program": lambda rng: rng.choice(
        ["std::vector<int>", "a[1::2]", "@Override", "icon@2x.png", "x = y@z", "npm i pkg@1.2.3"]
    ),
}
LOOKALIKE_SENTENCES: dict[str, dict[str, list[str]]] = {
    "en": {
        "version": ["Upgrade to version {}.", "v{} fixes it", "Section {} applies."],
        "": [
            "Order {} has shipped.",
            "Item {} is in stock.",
            "See {} for details.",
            "{} was recorded.",
            "I was called about ticket {}.",
            "The card shop sent {}.",
            "| 12 | {} | 7 |",
        ],
    },
    "ja": {
        "version": ["バージョン{}に更新してください。", "ファームウェア{}を適用"],
        "": [
            "注文番号は{}です。",
            "{}を参照。",
            "商品コード{}の在庫",
            "記録は{}でした。",
            "電話で{}について聞いた。",
            "12,{},カード立て,7",
        ],
    },
    "ko": {
        "version": ["버전 {}으로 업데이트하세요.", "펌웨어 {} 적용"],
        "": [
            "주문번호는{}입니다.",
            "{}을 참고하세요.",
            "상품코드 {} 재고",
            "기록은 {}였습니다.",
            "전화로 {}에 대해 물었다.",
            "12,{},카드지갑,7",
        ],
    },
}
_WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
STYLES = ("plain", "full width", "invisible characters", "across lines")


def generate(num_examples: int, seed: int = 7) -> Iterator[Example]:
    """Half of the examples hold a value, half a look-alike; three in ten of the values are not plainly written."""
    rng = Rng(seed)
    for _ in range(num_examples):
        language = rng.choice(list(SENTENCES))
        if rng.random() < 0.5:
            kind = rng.choice(list(LOOKALIKES))
            sentences = LOOKALIKE_SENTENCES[language]
            sentence = rng.choice(sentences.get(kind, sentences[""]))
            yield Example(sentence.replace("{}", LOOKALIKES[kind](rng)), [], language, kind)
            continue
        kind = rng.choice(list(SENTENCES[language]))
        before, after = rng.choice(SENTENCES[language][kind]).split("{}")
        value = phone(rng, language) if kind == "PHONE_NUMBER" else MAKERS[kind](rng)
        style = rng.choices(STYLES, weights=(7, 1, 1, 1))[0]
        value, style = _styled(rng, value, style, kind, language)
        yield Example(before + value + after, [(len(before), len(before) + len(value), kind)], language, style)


def _styled(rng: Rng, value: str, style: str, kind: str, language: str) -> tuple[str, str]:
    if style == "full width" and language != "en" and kind not in ("API_KEY", "URL_CREDENTIALS"):
        return value.translate(_WIDE), style
    if style == "invisible characters":
        place = rng.randrange(1, len(value))
        return value[:place] + rng.choice("\u200b\u200d\u2060\ufeff\u00ad") + value[place:], style
    if (
        style == "across lines"
        and "-" in value[:-1]
        and kind in ("PHONE_NUMBER", "CREDIT_CARD", "KR_RRN", "JP_MY_NUMBER")
    ):
        return value.replace("-", "-\n", 1), style
    return value, "plain"
