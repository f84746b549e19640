"""Text for the built-in tiny model: invented listings in en, ja and ko, and prose that restates them."""

import random
import string
from dataclasses import dataclass
from pathlib import Path

import yaml

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

WORDS = yaml.safe_load(Path(__file__).with_name("tiny_words.yml").read_text(encoding="utf-8"))


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
            before, after = r.choice(WORDS["restatements"][language]).split("{value}")
            said = key.lower() if r.random() < 0.2 else key
            prose += [(before.format(key=said, title=title), False), (value, True), (f"{after}\n", False)]
        return Listing("".join(f"{key}: {value}\n" for key, value in pairs.items()) + "\n", prose)

    def key(self, language: str) -> str:
        r = self.random
        if language == "en":
            return " ".join(r.sample(WORDS["english"], r.choice((1, 1, 2, 2, 3)))).title()
        if r.random() < 0.5:
            return r.choice(WORDS["keys"][language])
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
            return number + r.choice(WORDS["units"][language])
        return f"{number} {r.choice(WORDS['units']['en'])}" if r.random() < 0.5 else f"${number}"

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
        return self.random.choice(WORDS["flags"][language])

    def time(self, language: str) -> str:
        r = self.random
        start, end = (f"{r.randint(0, 23):02d}:{r.choice(('00', '15', '30', '45'))}" for _ in range(2))
        return r.choice((start, start + r.choice("-~〜") + end))

    def word(self) -> str:
        r = self.random
        if r.random() < 0.4:
            return r.choice(WORDS["english"])
        syllables = r.choice((1, 2, 2))
        return "".join(
            r.choice(WORDS["onsets"]) + r.choice(WORDS["vowels"]) + r.choice(WORDS["codas"]) for _ in range(syllables)
        )

    def digits(self, low: int, high: int) -> str:
        return "".join(self.random.choices(string.digits, k=self.random.randint(low, high)))

    def characters(self, script: list[str], low: int, high: int) -> str:
        return "".join(self.random.choices(script, k=self.random.randint(low, high)))
