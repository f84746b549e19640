"""Why a question and its answer are refused: their language, or an answer that its source does not hold."""

import re
import unicodedata

from slmkit import textstats

# A real teacher rephrases: this share of an answer's words (pairs of characters in Japanese and Korean) must stand in
# the source, and each of its numbers and of the names that can be told by their script.
MIN_GROUNDED_FRACTION = 0.6

_TOKEN = re.compile(r"\d+(?:[.,:/-]\d+)*|[A-Za-zÀ-ÖØ-öø-ɏ]+|[가-힣]+|[ぁ-ヿ一-鿿々㐀-䶿]+")
_YES_OR_NO = re.compile(r"(?:yes|no|はい|いいえ|예|네|아니요|아니오)(?=[\s.,!、。！]|\Z)", re.IGNORECASE)
_NAME = re.compile(r"[A-ZÀ-ÖØ-Þ][A-Za-zÀ-ÖØ-öø-ɏ]+|[ァ-ヺー]{3,}")  # a capital says nothing where a sentence begins
_BEGINNING = re.compile(r"(?:\A|[.!?:。！？：\n])[\s\"'“‘「『(（*-]*\Z")
_HIRAGANA = re.compile(r"[ぁ-ゖ]+")
_KO_ENDING = re.compile(r"(?:입니다|이에요|예요|됩니다|합니다|습니다)\Z")
_STOPWORDS = frozenset(re.findall(r"\w+", "a an and are as at by for from in is it its of on or the to was were with"))


def reason_to_refuse(question: str, answer: str, question_type: str, source: str, language: str) -> str | None:
    """``wrong_language``, ``ungrounded``, or None when question and answer are good."""
    if any(found not in (language, "und") for found in (_own_language(part, source) for part in (question, answer))):
        return "wrong_language"
    if question_type in ("boolean", "conversation") and says_yes_or_no(answer):  # stands in no text: its question must
        grounded = is_grounded(question, source, MIN_GROUNDED_FRACTION / 2)
    else:
        grounded = is_grounded(answer, source)
    return None if grounded else "ungrounded"


def says_yes_or_no(answer: str) -> bool:
    return bool(_YES_OR_NO.match(answer))


def _own_language(text: str, source: str) -> str:
    """The language of what is not quoted from the source: names there may be in any script."""
    own = " ".join(token for token in _TOKEN.findall(text) if token not in source)
    return textstats.language(own) if len(own) > 3 else "und"  # too little to tell


def is_grounded(answer: str, source: str, min_fraction: float = MIN_GROUNDED_FRACTION) -> bool:
    """Whether the source holds the answer word for word, or its numbers, its names and enough of its words."""
    if holds(source, answer):
        return True
    plain = _plain(source)
    if any(_plain(name) not in plain for name in _names(answer)):
        return False
    held, units = set(_units(plain)), _units(_plain(answer))
    if not units or any(unit[0].isdigit() and unit not in held for unit in units):
        return False
    return sum(unit in held for unit in units) >= min_fraction * len(units)


def holds(text: str, part: str) -> bool:
    """Whether the part stands in the text, not within a longer word or number; width, case and spaces do not count."""
    text, part = _plain(text), _plain(part)
    pattern = _edge(part[:1], "(?<![0-9a-z])") + re.escape(part) + _edge(part[-1:], "(?![0-9a-z])")
    return bool(part) and re.search(pattern, text) is not None


def _names(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text)
    return [match[0] for match in _NAME.finditer(text) if not _BEGINNING.search(text[: match.start()])]


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _edge(character: str, boundary: str) -> str:
    return boundary if character.isascii() and character.isalnum() else ""


def _units(plain: str) -> list[str]:
    """Numbers, words, and pairs of characters in Japanese and Korean; grammar is left out."""
    units = []
    for token in _TOKEN.findall(plain):
        token = _KO_ENDING.sub("", token)
        if len(token) <= 1 or token[0].isdigit() or textstats.language(token) == "en":
            units += [token] if token and token not in _STOPWORDS else []
        else:
            pairs = [token[i : i + 2] for i in range(len(token) - 1)]
            units += [pair for pair in pairs if not _HIRAGANA.fullmatch(pair)]
    return units
