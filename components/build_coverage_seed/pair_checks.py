"""Why a question-answer pair is refused: its language, or an answer that its chunk does not hold."""

import re
import unicodedata

from slmkit import textstats

# A real teacher rephrases: this share of an answer's words (pairs of characters in Japanese and Korean) must stand in
# the chunk, and each of its numbers.
MIN_GROUNDED_FRACTION = 0.6

_TOKEN = re.compile(r"\d+(?:[.,:/-]\d+)*|[A-Za-zÀ-ÖØ-öø-ɏ]+|[가-힣]+|[ぁ-ヿ一-鿿々㐀-䶿]+")
_YES_OR_NO = re.compile(r"(?:yes|no|はい|いいえ|예|네|아니요|아니오)(?![a-z])", re.IGNORECASE)
_HIRAGANA = re.compile(r"[ぁ-ゖ]+")
_KO_ENDING = re.compile(r"(?:입니다|이에요|예요|됩니다|합니다|습니다)\Z")
_STOPWORDS = frozenset(re.findall(r"\w+", "a an and are as at by for from in is it its of on or the to was were with"))


def reason_to_refuse(question: str, answer: str, question_type: str, chunk: str, language: str) -> str | None:
    """``wrong_language``, ``ungrounded``, or None when the pair is good."""
    if any(found not in (language, "und") for found in (_own_language(part, chunk) for part in (question, answer))):
        return "wrong_language"
    if question_type == "boolean" and _YES_OR_NO.match(answer):  # stands in no text: then its question must
        grounded = is_grounded(question, chunk, MIN_GROUNDED_FRACTION / 2)
    else:
        grounded = is_grounded(answer, chunk)
    return None if grounded else "ungrounded"


def _own_language(text: str, chunk: str) -> str:
    """The language of what is not quoted from the chunk: names there may be in any script."""
    own = " ".join(token for token in _TOKEN.findall(text) if token not in chunk)
    return textstats.language(own) if len(own) > 3 else "und"  # too little to tell


def is_grounded(answer: str, chunk: str, min_fraction: float = MIN_GROUNDED_FRACTION) -> bool:
    """Whether the chunk holds the answer word for word, or its numbers and enough of its words."""
    answer, chunk = _plain(answer), _plain(chunk)
    if re.search(_edge(answer[:1], "(?<![0-9a-z])") + re.escape(answer) + _edge(answer[-1:], "(?![0-9a-z])"), chunk):
        return bool(answer)
    held = set(_units(chunk))
    units = _units(answer)
    if not units or any(unit[0].isdigit() and unit not in held for unit in units):
        return False
    return sum(unit in held for unit in units) >= min_fraction * len(units)


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
