"""Questions about the sentences of a text; the answers are the sentences."""

import re
from collections.abc import Iterator

from extractive_fields import Found, hashed

from slmkit import textstats

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


def sentence_pairs(title: str, text: str, language: str, seed: int) -> Found:
    found, asked = [], {title}
    for sentence in whole_sentences(text, language):
        phrase = next((phrase for phrase in _phrases(sentence, text, language) if phrase not in asked), None)
        if phrase is None:
            continue
        asked.add(phrase)
        wordings = (TITLED_PHRASE_QUESTIONS if title else PHRASE_QUESTIONS)[language]
        wording = wordings[hashed(title, phrase, seed, "wording") % len(wordings)]
        question = wording.format(phrase=phrase, title=title)
        found.append((phrase, {"question": question, "answer": sentence, "question_type": "long"}))
    return found


def whole_sentences(text: str, language: str) -> list[str]:
    """The sentences that end as statements do and are neither very short nor very long."""
    shortest = 30 if language == "en" else 12
    found = []
    for sentence in textstats.sentences(_unwrapped(text)):
        sentence = _BULLET.sub("", sentence)
        said = sentence.rstrip("」』）)\"'”’")
        if shortest <= len(sentence) <= 400 and said.endswith(_STOPS) and not said.endswith(("?", "？")):
            found.append(sentence)
    return found


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
