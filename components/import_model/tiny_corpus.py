"""Text for the built-in tiny model: invented listings in English, Japanese and Korean, then prose that restates them."""

import random
import string
from dataclasses import dataclass

# The character sets that everyday text stays in: KS X 1001 and the first level of JIS X 0208.
HANGUL = [bytes((row, cell)).decode("euc_kr") for row in range(0xB0, 0xC9) for cell in range(0xA1, 0xFF)]
KANJI = [
    character
    for row in range(0xB0, 0xD0)
    for cell in range(0xA1, 0xFF)
    if len(character := bytes((row, cell)).decode("euc_jp", errors="ignore")) == 1
]
HIRAGANA = [chr(code) for code in range(0x3041, 0x3094)]
KATAKANA = [chr(code) for code in range(0x30A1, 0x30F7)] + ["ー"]
JA_KO_PUNCTUATION = list("、。・「」『』（）〜～：？！％／＋－，．々〒→·…–—’“”")

ONSETS = "b br c ch cl d dr f fl g gr h j k l m n p pr qu r s sh st t th tr v w y z".split()
VOWELS = "a e i o u ai ea ee ie oa oo ou".split()
CODAS = ["", "", "", "n", "r", "l", "s", "t", "m", "ck", "nd", "ng", "rd", "st", "x"]
ENGLISH = (
    "about account active address after age air all amount annual answer area assistant author available average back "
    "balance base best black blue board book box branch brand bridge bright budget building business capacity car card "
    "care category center central chair change check city class clean clear client closed code cold color company "
    "contact content core cost count country course cover credit customer daily data date day delivery department "
    "depth design desk detail device digital direct director display district door drive early east editor electronic "
    "email energy engine entry event every experience express extra factory fair family fast fax fee field file film "
    "final fire first fixed flat floor food form frame free fresh front fuel full garden gate general glass global gold "
    "good grade grand gray great green ground group guide hall hand head health heat height help high hill holiday home "
    "hotel hour house ice index inside item job key kind kitchen lake land language large last late latest lead left "
    "length level license life light limit line link list local location long lot low machine main manager map mark "
    "market material maximum meal measure member menu metal middle mill minimum mobile model month morning mountain "
    "music name new next night north note number office oil old online open opening option order origin other outdoor "
    "owner page paper park parking part partner payment people period person phone place plan plant play plaza point "
    "policy pool post power price primary product program project public quality quick range rate reading ready record "
    "red region rental repair report request research reserve rest return review right river road room route rule safe "
    "sales sample school score sea season seat second section sector security series service set shape shift ship shop "
    "short side sign silver single site size smart soft solar sound source south space special speed square staff stage "
    "stand standard star start state station status stock stop storage store street strong student style summer sun "
    "supplier support surface system table tax team tech term test time title tower town track trade traffic train "
    "travel tree type unit update upper user value version view village visit voice wall warranty water way web week "
    "weight west white wide wind window winter wood word work world yard year yellow young zip zone"
).split()
UNITS = {
    "en": "kg km m cm sqm % years months days hours people units rooms seats liters USD points pages".split(),
    "ja": "円 坪 名 個 年 か月 日 時間 台 階 席 室 冊 本 点 歳 kg km % 人 万円 回".split(),
    "ko": "원 평 명 개 년 개월 일 시간 대 층 석 실 권 병 점 세 kg km % 인 만원 회".split(),
}
KEYS = {
    "ja": (
        "住所 電話番号 価格 名称 担当者 営業時間 郵便番号 店長 面積 種類 色 重さ 期間 番号 部署 入社日 開始日 終了日 "
        "定員 料金 送料 備考 概要 所在地 最寄り駅 駐車場 定休日 型番 在庫 分類 仕入先 支払方法 メール 責任者 席数 設立年 "
        "開館時間 休館日 会場 主催 作者 対象 資本金 従業員数 容量 産地 連絡先 有効期限 サイズ カテゴリ サービス内容"
    ).split(),
    "ko": (
        "주소,전화번호,가격,이름,담당자,영업시간,우편번호,점장,면적,종류,색상,무게,기간,번호,부서,입사일,시작일,종료일,정원,"
        "요금,배송비,비고,개요,소재지,가까운 역,주차,휴무일,모델 번호,재고,분류,공급처,결제 방법,이메일,책임자,좌석 수,"
        "설립 연도,관람 시간,휴관일,장소,주최,저자,대상,자본금,직원 수,용량,원산지,연락처,유효 기간,크기,매장 규모,서비스"
    ).split(","),
}
FLAGS = {
    "en": "Yes No Y N None Open Closed Available".split(),
    "ja": "あり なし 可 不可 有 無 Y N はい いいえ".split(),
    "ko": "있음 없음 가능 불가 Y N 예 아니요".split(),
}
RESTATEMENTS = {
    "en": [
        "What is the {key} of {title}?\n{value}",
        "Tell me the {key} of {title}.\n{value}",
        "What is the {key}?\n{value}",
        "{key}?\n{value}",
        "The {key} of {title} is {value}.",
        "The {key} is {value}.",
        "{title} ({key}) - {value}",
    ],
    "ja": [
        "{title}の{key}は何ですか？\n{value}",
        "{title}の{key}を教えてください。\n{value}",
        "{key}は何ですか？\n{value}",
        "{key}は？\n{value}",
        "{title}の{key}は{value}です。",
        "{key}は{value}です。",
        "{title}の{key}：{value}",
    ],
    "ko": [
        "{title}의 {key}은(는) 무엇인가요?\n{value}",
        "{title}의 {key}을(를) 알려 주세요.\n{value}",
        "{key}은(는) 무엇인가요?\n{value}",
        "{key}은?\n{value}",
        "{title}의 {key}은(는) {value}입니다.",
        "{key}은(는) {value}입니다.",
        "{title}의 {key} - {value}",
    ],
}


@dataclass(frozen=True)
class Listing:
    """One invented text: the lines of a listing, and the prose after it as pieces of (text, is it a value)."""

    lines: str
    prose: list[tuple[str, bool]]


class Writer:
    """Writes invented listings; every word comes from one seeded generator."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def listing(self, num_lines: int) -> Listing:
        r = self.random
        language = r.choice(("en", "ja", "ko"))
        title = self.name(language)
        pairs = {self.key(language): title}
        while len(pairs) < num_lines:
            pairs.setdefault(self.key(language), self.value(language))
        prose = []
        for key, value in r.sample(list(pairs.items()), num_lines):
            before, after = r.choice(RESTATEMENTS[language]).split("{value}")
            said = key.lower() if r.random() < 0.2 else key
            prose += [(before.format(key=said, title=title), False), (value, True), (f"{after}\n", False)]
        return Listing("".join(f"{key}: {value}\n" for key, value in pairs.items()) + "\n", prose)

    def key(self, language: str) -> str:
        r = self.random
        if language == "en":
            return " ".join(r.sample(ENGLISH, r.choice((1, 1, 2, 2, 3)))).title()
        if r.random() < 0.5:
            return r.choice(KEYS[language])
        return self.characters(KANJI if language == "ja" else HANGUL, 2, 4)

    def value(self, language: str) -> str:
        kinds = (self.number, self.amount, self.name, self.address, self.code, self.phrase, self.flag, self.time)
        return self.random.choices(kinds, weights=(2, 1, 2, 1, 1, 1, 1, 1))[0](language)

    def number(self, language: str) -> str:
        r = self.random
        groups = [self.digits(1, 5) for _ in range(r.choice((1, 2, 3, 3)))]
        return r.choice("---./ ").join(groups)

    def amount(self, language: str) -> str:
        r = self.random
        number = self.digits(1, 3) + r.choice(("", "", f".{self.digits(1, 1)}", f",{self.digits(3, 3)}"))
        if language != "en":
            return number + r.choice(UNITS[language])
        return r.choice((f"{number} {r.choice(UNITS['en'])}", f"${number}"))

    def name(self, language: str) -> str:
        r = self.random
        if language == "en" or r.random() < 0.1:
            words = " ".join(self.word().capitalize() for _ in range(r.randint(1, 3)))
            return words + r.choice(("", "", f" {self.digits(2, 2)}"))
        if language == "ja":
            scripts = (KANJI, KANJI, HIRAGANA, KATAKANA)
            return "".join(self.characters(r.choice(scripts), 2, 4) for _ in range(r.randint(1, 2)))
        return " ".join(self.characters(HANGUL, 2, 4) for _ in range(r.randint(1, 2)))

    def address(self, language: str) -> str:
        r = self.random
        if language == "en":
            return f"{self.digits(1, 5)} {self.name('en')}, {self.word().capitalize()}"
        if language == "ja":
            city, ward, town = (self.characters(KANJI, 1, 3) for _ in range(3))
            block = "-".join(str(r.randint(1, 30)) for _ in range(r.randint(2, 3)))
            return f"{city}市{ward}区{town}{block}" + r.choice(("", f" {r.randint(1, 9)}階"))
        city, district, road = (self.characters(HANGUL, 1, 4) for _ in range(3))
        return f"{city}시 {district}구 {road}로 {r.randint(1, 999)}"

    def code(self, language: str) -> str:
        r = self.random
        letters = "".join(r.choices(string.ascii_uppercase, k=r.randint(1, 3)))
        email = f"{self.word()}.{self.word()}@{self.word()}.com"
        return r.choice((f"{letters}-{self.digits(4, 4)}", f"{letters}{self.digits(3, 3)}", email))

    def phrase(self, language: str) -> str:
        r = self.random
        if language == "en":
            return " ".join(self.word() for _ in range(r.randint(2, 6)))
        if language == "ja":
            return "".join(self.characters(r.choice((KANJI, HIRAGANA)), 1, 3) for _ in range(r.randint(2, 5)))
        return " ".join(self.characters(HANGUL, 1, 4) for _ in range(r.randint(2, 4)))

    def flag(self, language: str) -> str:
        return self.random.choice(FLAGS[language])

    def time(self, language: str) -> str:
        r = self.random
        start, end = (f"{r.randint(0, 23):02d}:{r.choice(('00', '15', '30', '45'))}" for _ in range(2))
        return r.choice((start, start + r.choice("-~〜") + end))

    def word(self) -> str:
        r = self.random
        if r.random() < 0.4:
            return r.choice(ENGLISH)
        syllables = r.choice((1, 2, 2))
        return "".join(r.choice(ONSETS) + r.choice(VOWELS) + r.choice(CODAS) for _ in range(syllables))

    def digits(self, low: int, high: int) -> str:
        return "".join(self.random.choices(string.digits, k=self.random.randint(low, high)))

    def characters(self, script: list[str], low: int, high: int) -> str:
        return "".join(self.random.choices(script, k=self.random.randint(low, high)))
