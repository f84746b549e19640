"""The embedded teacher, which is no model: templated questions, answers copied from the text."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator

from slmkit import textstats

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
PHRASE_QUESTIONS = {
    "en": ["What does the text say about {phrase}?", "What is said about {phrase}?"],
    "ja": ["「{phrase}」について、本文には何と書かれていますか？", "「{phrase}」について教えてください。"],
    "ko": ['"{phrase}"에 대해 본문은 무엇이라고 하나요?', '"{phrase}"에 대해 알려 주세요.'],
}
TITLED_PHRASE_QUESTIONS = {
    "en": ['What does "{title}" say about {phrase}?', 'According to "{title}", what is said about {phrase}?'],
    "ja": [
        "「{title}」では、「{phrase}」について何と述べていますか？",
        "「{title}」の「{phrase}」について教えてください。",
    ],
    "ko": ['"{title}"에서 "{phrase}"에 대해 무엇이라고 하나요?', '"{title}"의 "{phrase}"에 대해 알려 주세요.'],
}

_FIELD = re.compile(r"[ \t]*(?:[-*•][ \t]+)?([^:：\n*`{}<>|\x22]{1,40}?)[ \t]*(?::(?=[ \t])|：)[ \t　]*(\S.*?)[ \t]*")
_HEADING = re.compile(r"#{1,6}[ \t]+(.+?)[ \t]*#*")
_SERIAL = re.compile(r"(?:no\.?|#|id|index|row|s/n|번호|순번|연번|項番|番号|連番|通し番号)", re.IGNORECASE)
_NAME = re.compile(r"(?:.*\b)?(?:name|title)|.*(?:이름|명|名|名称|名前|タイトル|제목)", re.IGNORECASE)
_NO_NAME = re.compile(r"[#*`{].*|.*[.。!！?？:：]")
_BOOLEANS = [("Y", "N"), ("Yes", "No"), ("yes", "no"), ("TRUE", "FALSE"), ("True", "False"), ("true", "false")]
_BOOLEANS += [("はい", "いいえ"), ("有", "無"), ("あり", "なし"), ("예", "아니요"), ("있음", "없음"), ("O", "X")]
_OPPOSITES = {value: pair for pair in _BOOLEANS for value in pair}

Pair = dict[str, str]
Field = tuple[str, str, str]  # what it is about, key, value


def pairs_from(
    title: str, text: str, language: str, num_pairs: int, question_types: list[str], seed: int
) -> list[Pair]:
    """Pairs from the fields of a listing ("Key: value" lines), or from the tables and sentences of any other text."""
    lines = text.splitlines()
    fields = _listed(title, lines)
    found = _field_pairs(fields or _tabled(lines), language, seed)
    if not fields:
        prose = "\n".join(line for line in lines if not line.startswith(("|", "#")))
        found += _sentence_pairs(title, prose, language, seed)
    wanted = [(key, pair) for key, pair in found if pair["question_type"] in question_types]
    chosen = {key for key, _ in sorted(wanted, key=lambda item: _hash(title, item[0], seed, "chosen"))[:num_pairs]}
    return [pair for key, pair in wanted if key in chosen]


def _listed(title: str, lines: list[str]) -> list[Field]:
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


def _tabled(lines: list[str]) -> list[Field]:
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


def _field_pairs(fields: list[Field], language: str, seed: int) -> list[tuple[str, Pair]]:
    found = []
    for title, key, value in fields:
        if value == title or _SERIAL.fullmatch(key):
            continue
        if value in _OPPOSITES:
            kind, wordings, (yes, no) = "boolean", BOOLEAN_QUESTIONS[language], _OPPOSITES[value]
        else:
            kind = "short" if len(value) <= MAX_SHORT_CHARS and len(textstats.sentences(value)) == 1 else "long"
            wordings, yes, no = FIELD_QUESTIONS[language], "", ""
        wording = wordings[_hash(title, key, seed, "wording") % len(wordings)]
        question = _with_particle(wording, key).format(key=key, title=title, yes=yes, no=no)
        found.append((f"{title}\x1f{key}", {"question": question, "answer": value, "question_type": kind}))
    return found


def _with_particle(wording: str, key: str) -> str:
    """Choose 은, 을, 이 after a final consonant and 는, 를, 가 after a vowel."""
    return re.sub(r"\{(.)/(.)\}", lambda match: match[1 if ends_in_consonant(key) else 2], wording)


def ends_in_consonant(word: str) -> bool:
    """Whether a Korean reads the word with a final consonant (batchim): hangul, digits and Latin letters by name."""
    last = next((character for character in reversed(word) if character.isalnum()), "")
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28 != 0
    return last in "013678" or last.lower() in "lmnr" if last else False


_EN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9'-]*")
_STOPWORDS = frozenset(
    re.findall(
        r"\w+",
        "a about after all also an and any are as at be because been before both brought but by can could did do "
        "does each for from had has have he her his how i if in including into is it its just least like made make "
        "many may more most much must my need new no not now of on one only or other our out over same several "
        "should so some such t than that the their them then there these they this those through to too under up "
        "use used using very want was we were what when where which while who why will with would you your",
    )
)
_JA_PHRASE = re.compile(r"([一-鿿々ァ-ヺー]{2,}|[A-Za-z][A-Za-z0-9.-]+(?: [A-Za-z][A-Za-z0-9.-]+)*)(は|が|では|には)?")
_KO_PHRASE = re.compile(
    r"([가-힣A-Za-z0-9]{2,}?)((?:으로|에서|에게|까지|부터|에|로)(?:는|도|의)?|[은는이가을를의와과도])(?![가-힣])"
)
_KO_VERB_STEMS = ("하", "되", "므", "있", "없", "으", "지", "면", "고", "게", "며", "야", "했", "됐")
_BULLET = re.compile(r"\A(?:[-*+•◦]|\d+[.)])[ \t]+")
_STOPS = tuple(".。!！?？｡")


def _sentence_pairs(title: str, text: str, language: str, seed: int) -> Iterator[tuple[str, Pair]]:
    asked = {title}
    shortest = 30 if language == "en" else 12
    for sentence in textstats.sentences(_unwrapped(text)):
        sentence = _BULLET.sub("", sentence)
        said = sentence.rstrip("」』）)\"'”’")
        if not shortest <= len(sentence) <= 400 or not said.endswith(_STOPS) or said.endswith(("?", "？")):
            continue
        phrase = next((phrase for phrase in _phrases(sentence, text, language) if phrase not in asked), None)
        if phrase is None:
            continue
        asked.add(phrase)
        wordings = (TITLED_PHRASE_QUESTIONS if title else PHRASE_QUESTIONS)[language]
        wording = wordings[_hash(title, phrase, seed, "wording") % len(wordings)]
        question = wording.format(phrase=phrase, title=title)
        yield phrase, {"question": question, "answer": sentence, "question_type": "long"}


def _unwrapped(text: str) -> str:
    """Lines that a PDF broke within a sentence, put together again."""
    return re.sub(r"(?<=[a-z,])[ \t]*\n[ \t]*(?=[a-z(])", " ", text)


def _phrases(sentence: str, text: str, language: str) -> list[str]:
    """What the sentence may be about, best first: its subject, then its longest and rarest term."""
    sentence = re.sub(r"https?://\S+", " ", sentence)
    if language == "ja":
        matches = list(_JA_PHRASE.finditer(sentence))
        subjects = [match[1] for match in matches if match[2]]
        found = [match[1] for match in matches]
    elif language == "ko":
        matches = [match for match in _KO_PHRASE.finditer(sentence) if not match[1].endswith(_KO_VERB_STEMS)]
        subjects = [match[1] for match in matches if match[2] in tuple("은는이가")]
        found = [match[1] for match in matches]
    else:
        found = [re.sub(r"(?: \w+ed)+\Z", "", " ".join(run)) for run in _runs(sentence)]
        subjects = [phrase for phrase in found[:1] if " " in phrase]
    rest = sorted(found, key=lambda phrase: (-min(len(phrase), 30), text.count(phrase)))
    shortest = 4 if language == "en" else 2
    return [phrase for phrase in [*subjects, *rest] if len(phrase) >= shortest]


def _runs(sentence: str) -> Iterator[list[str]]:
    """Runs of up to three content words."""
    for clause in re.split(r"[^A-Za-z0-9' -]+", sentence):
        run: list[str] = []
        for word in [*clause.split(), "a"]:
            if _EN_WORD.fullmatch(word) and word.lower() not in _STOPWORDS and len(run) < 3:
                run.append(word)
            elif run:
                yield run
                run = []


def _hash(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:8])


_PROMPT = re.compile(
    r"<title>(?P<title>.*?)</title>\n<text>\n(?P<text>.*)\n</text>\n<language>(?P<language>\w+)</language>\n"
    r"<num_pairs>(?P<num_pairs>\d+)</num_pairs>\n<question_types>(?P<question_types>.*?)</question_types>\s*",
    re.DOTALL,
)


def answer(body: dict) -> str:
    """The pairs, as JSON, for the body of a chat-completions request."""
    prompt = _PROMPT.fullmatch(body["messages"][-1]["content"])
    if not prompt or prompt["language"] not in FIELD_QUESTIONS:
        raise ValueError("the prompt is not that of prompts.yml")
    types = prompt["question_types"].split(", ")
    arguments = prompt["title"], prompt["text"], prompt["language"], int(prompt["num_pairs"]), types
    return json.dumps({"pairs": pairs_from(*arguments, body.get("seed", 0))}, ensure_ascii=False)
