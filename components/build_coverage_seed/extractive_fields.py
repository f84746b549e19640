"""Questions about the fields of a listing and the cells of a table; the answers are the values."""

import itertools
import re

from slmkit import records, textstats

MAX_SHORT_CHARS = 80

# {key} and {title} are copied; in Korean the particle follows the last sound of the key.
FIELD_QUESTIONS = {
    "en": [
        "What is the {key} of {title}?",
        "Tell me the {key} of {title}.",
        "I need the {key} of {title}.",
        "Could you give me the {key} of {title}?",
    ],
    "ja": [
        "{title}の{key}は何ですか？",
        "{title}の{key}を教えてください。",
        "{title}の{key}が知りたいです。",
        "{title}の{key}はどうなっていますか？",
    ],
    "ko": [
        "{title}의 {key}{은/는} 무엇인가요?",
        "{title}의 {key}{을/를} 알려 주세요.",
        "{title}의 {key}{이/가} 궁금합니다.",
        "{title}의 {key}{은/는} 어떻게 되나요?",
    ],
}
BOOLEAN_QUESTIONS = {
    "en": ['Is "{key}" {yes} or {no} for {title}?', 'For {title}, is "{key}" {yes} or {no}?'],
    "ja": ["{title}の「{key}」は{yes}ですか、{no}ですか？", "{title}について、「{key}」は{yes}と{no}のどちらですか？"],
    "ko": ['{title}의 "{key}" 항목은 {yes}인가요, {no}인가요?', '{title}의 "{key}" 값은 {yes}와 {no} 중 무엇인가요?'],
}

_FIELD = re.compile(r"[ \t]*(?:[-*•][ \t]+)?([^:：\n*`{}<>|\x22]{1,40}?)[ \t]*(?::(?=[ \t])|：)[ \t　]*(\S.*?)[ \t]*")
_HEADING = re.compile(r"#{1,6}[ \t]+(.+?)[ \t]*#*")
_SERIAL = re.compile(r"(?:no\.?|#|id|index|row|s/n|번호|순번|연번|項番|番号|連番|通し番号)", re.IGNORECASE)
_NAME = re.compile(r"(?:.*\b)?(?:name|title)|.*(?:이름|명|名|名称|名前|タイトル|제목)", re.IGNORECASE)
_NO_NAME = re.compile(r"[#*`{].*|.*[.。!！?？:：]")
_BOOLEANS = [("Y", "N"), ("Yes", "No"), ("yes", "no"), ("TRUE", "FALSE"), ("True", "False"), ("true", "false")]
_BOOLEANS += [("はい", "いいえ"), ("有", "無"), ("あり", "なし"), ("예", "아니요"), ("있음", "없음"), ("O", "X")]
_OPPOSITES = {value: pair for pair in _BOOLEANS for value in pair}

Pair = dict[str, object]
Found = list[tuple[str, Pair]]  # what a pair is about, and the pair
Field = tuple[str, str, str]  # what it is about, key, value


def hashed(*parts: object) -> int:
    """A number that stands for the parts: choices by it are the same in each run."""
    return int(records.content_id(*map(str, parts)), 16)


def listed(title: str, lines: list[str]) -> list[Field]:
    """The fields of a text that is mostly "Key: value" lines; of another text, nothing."""
    fields, heading = [], title
    for line in lines:
        if match := _HEADING.fullmatch(line):
            heading = match[1]
        elif match := _FIELD.fullmatch(line):
            fields.append((heading, match[1], match[2]))
    if len(fields) < 2 or 2 * len(fields) < sum(1 for line in lines if line.strip()):
        return []
    if len({key for _, key, _ in fields}) < len(fields):  # a list of several things, each under its heading
        return [field for field in {field[:2]: field for field in fields}.values() if field[0]]
    title = title or _name([(key, value) for _, key, value in fields])
    return [(title, key, value) for _, key, value in fields if title]


def tabled(lines: list[str]) -> list[Field]:
    """The cells of Markdown tables: the first of a row names what it is about, the header names the value."""
    fields: dict[tuple[str, str], Field] = {}
    header: list[str] = []
    for before, line in itertools.pairwise(["", *lines]):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif set(line) <= set("|-: "):
            header = [cell.strip() for cell in before.strip().strip("|").split("|")]
        elif header and len(cells) == len(header):
            for key, value in zip(header[1:], cells[1:], strict=True):
                if cells[0] and key and value:
                    fields.setdefault((cells[0], key), (cells[0], key, value))
    return list(fields.values())


def _name(fields: list[tuple[str, str]]) -> str:
    short = [(key, value) for key, value in fields if len(value) <= MAX_SHORT_CHARS and not _NO_NAME.fullmatch(value)]
    named = [value for key, value in short if _NAME.fullmatch(key)]
    return next(iter([*named, *(value for _, value in short if textstats.language(value) != "und")]), "")


def field_pairs(fields: list[Field], language: str, seed: int) -> Found:
    found = []
    for title, key, value in fields:
        if value == title or _SERIAL.fullmatch(key):
            continue
        if value in _OPPOSITES:
            kind, wordings, (yes, no) = "boolean", BOOLEAN_QUESTIONS[language], _OPPOSITES[value]
        else:
            kind = "short" if len(value) <= MAX_SHORT_CHARS and len(textstats.sentences(value)) == 1 else "long"
            wordings, yes, no = FIELD_QUESTIONS[language], "", ""
        wording = wordings[hashed(title, key, seed, "wording") % len(wordings)]
        question = with_particle(wording, key).format(key=key, title=title, yes=yes, no=no)
        found.append((f"{title}\x1f{key}", {"question": question, "answer": value, "question_type": kind}))
    return found


def with_particle(wording: str, key: str) -> str:
    """Choose 은, 을, 이 after a final consonant and 는, 를, 가 after a vowel."""
    return re.sub(r"\{(.)/(.)\}", lambda match: match[1 if ends_in_consonant(key) else 2], wording)


def ends_in_consonant(word: str) -> bool:
    """Whether a Korean reads the word with a final consonant (batchim): hangul, digits and Latin letters by name."""
    last = next((character for character in reversed(word) if character.isalnum()), "")
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28 != 0
    return last in "013678" or last.lower() in "lmnr" if last else False
