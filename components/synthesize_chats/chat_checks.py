"""Why a synthesized chat is refused: language, leaks, refusals, no gain over its parent, an answer out of thin air."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml
from synthesis_tasks import Exchange, Task

from slmkit import text_embedding, textstats

# Measured on the sample seeds in three languages: rule mutations lie below 0.9 and add at least three words (pairs of
# characters in Japanese and Korean); politeness, punctuation and spelling lie above or add fewer.
MAX_PARENT_SIMILARITY = 0.9
MIN_NEW_UNITS = 3
# A teacher rephrases: this share of an answer's words (pairs of characters in Japanese and Korean) is in the context.
MIN_GROUNDED_FRACTION = 0.5
MIN_LEAKED_CHARS = 24

_WORDINGS = yaml.safe_load(Path(__file__).with_name("refused_wordings.yml").read_text(encoding="utf-8"))
_LEAK, _REFUSAL, _UNANSWERABLE = (
    re.compile("|".join(_WORDINGS[kind]), re.IGNORECASE) for kind in ("leak", "refusal", "unanswerable")
)
_WORD = re.compile(r"\d+(?:[.,:/-]\d+)*|[A-Za-zÀ-ÖØ-öø-ɏ]+|[가-힣]+|[ぁ-ヿ一-鿿々㐀-䶿]+")
_HIRAGANA = re.compile(r"[ぁ-ゖー]+")
_COMMON = frozenset(
    re.findall(r"\w+", "a an and are as at be by for from in is it its of on or that the this to was with")
)


def reason_to_refuse(task: Task, exchanges: Sequence[Exchange], prompts: Iterable[str]) -> str | None:
    """The first check that the chat does not pass, or None."""
    question = exchanges[0].question
    known = _plain(" ".join(_texts(task.material)))
    for exchange in exchanges:
        if any(
            _own_language(text, known) not in (task.language, "und") for text in (exchange.question, exchange.answer)
        ):
            return "wrong_language"
        if any(_LEAK.search(text) or _leaks(text, prompts, known) for text in (exchange.question, exchange.answer)):
            return "prompt_leak"
        if _REFUSAL.search(exchange.answer):
            return "refusal"
        if task.context and _UNANSWERABLE.search(exchange.answer):
            return "unanswerable"
    if task.parent_question:
        if _plain(question) == _plain(task.parent_question):
            return "identical"
        if not has_gain(question, task.parent_question, adds=task.operation != "breadth"):
            return "no_information_gain"
    if task.context:
        reasoned = task.operation == "increase_reasoning"  # its numbers may be worked out
        if not all(
            is_grounded(row.answer, f"{task.context}\n{row.question}", numbers=not reasoned) for row in exchanges
        ):
            return "ungrounded"
    return None


def has_gain(question: str, parent: str, *, adds: bool) -> bool:
    """Whether the question is another one and, where the operation adds to it, says enough that is new."""
    new = set(_units(_plain(question))) - set(_units(_plain(parent)))
    return similarity(question, parent) < MAX_PARENT_SIMILARITY and (not adds or len(new) >= MIN_NEW_UNITS)


def similarity(text: str, other: str) -> float:
    rows = text_embedding.embed([text, other])
    return float((rows[0] @ rows[1].T).sum())


def is_grounded(answer: str, context: str, *, numbers: bool = True) -> bool:
    """Whether the context holds enough of the answer's words and, unless told otherwise, each of its numbers."""
    answer, context = _plain(answer), _plain(context)
    held = set(_units(context))
    units = _units(answer)
    if numbers and any(unit[0].isdigit() and unit not in held for unit in units):
        return False
    if not units:
        return answer in context
    return sum(unit in held for unit in units) >= MIN_GROUNDED_FRACTION * len(units)


def _own_language(text: str, known: str) -> str:
    """The language of what is not quoted from the material: names there may be in any script."""
    own = " ".join(word for word in _WORD.findall(text) if _plain(word) not in known)
    return textstats.language(own) if len(own) > 3 else "und"  # too little to tell


def _leaks(text: str, prompts: Iterable[str], known: str) -> bool:
    """Whether the text repeats a stretch of the teacher's instructions that the material does not hold."""
    text = _plain(text)
    for line in prompts:
        line = _plain(line)
        for start in range(0, len(line) - MIN_LEAKED_CHARS + 1, MIN_LEAKED_CHARS // 2):
            part = line[start : start + MIN_LEAKED_CHARS]
            if part in text and part not in known:
                return True
    return False


def _texts(material: object) -> Iterable[str]:
    if isinstance(material, str):
        yield material
    elif isinstance(material, Mapping):
        for part in material.values():
            yield from _texts(part)
    elif isinstance(material, list):
        for part in material:
            yield from _texts(part)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _units(plain: str) -> list[str]:
    """Numbers, words without the commonest, and pairs of characters in Japanese and Korean without grammar."""
    units: list[str] = []
    for word in _WORD.findall(plain):
        if word[0].isdigit() or word.isascii() or len(word) == 1:
            units += [word] if word not in _COMMON else []
        else:
            pairs = (word[i : i + 2] for i in range(len(word) - 1))
            units += [pair for pair in pairs if not _HIRAGANA.fullmatch(pair)]
    return units
