"""Edits of a prompt that keep its meaning: whitespace, punctuation, politeness, order, synonyms; in en, ja and ko."""

import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import question_part
import yaml
from question_part import Prompt

# What must stay as it is, letter by letter: quotations, code, placeholders, data, addresses, numbers.
PROTECTED = re.compile(
    r"""
    `[^`]*` | ["“][^"”\n]*["”] | 「[^」]*」 | 『[^』]*』 | (?<!\w)'[^'\n]+'(?!\w) | ‘[^’\n]*’
    | <[^<>\n]+> | \{[^{}]*\} | \[[^\[\]]*\] | https?://\S+ | \S+@\S+ | \S*[\\/_=$#%^&*+|~]\S*
    | [^\W\d]*\d(?:[^\s、。，．？！]*\d)?[^\W\d]*
    """,
    re.VERBOSE,
)
_POINTS = re.compile(  # at what stands elsewhere in the prompt, which another order would make wrong
    r"\b(?:above|below|following|preceding|previous|earlier|next|last|first|this|that|these|those|it)\b"
    r"|上|下|前|後|次|以|この|その|これ|それ|위|아래|앞|뒤|다음|이전|(?<!\S)[이그] |이것|그것",
    re.IGNORECASE,
)
# Without its question mark, any other question is a statement.
_ASKS_WITHOUT_MARK = re.compile(
    r"(?:\A|[,:] )(?:[a-z]{2,5} )?(?:what|which|who|whom|whose|when|where|why|how)\b"
    r"|\A(?:is|are|was|were|do|does|did|can|could|will|would|should|may|has|have|had)\b"
    r"|か\Z|何|誰|だれ|いつ|どこ|どう|どの|どれ|どちら|どんな|いくら|いくつ|なぜ|なに"
    r"|(?:니까|나요|까요|[인은한던]가요)\Z|무엇|무슨|뭐|뭔|언제|어디|누구|누가|얼마|왜|어떻게|어떤|어느|몇",
    re.IGNORECASE,
)
_STOP = r"(?<![.A-Z])[.。．?？!！]\Z"
_WIDTHS = {"?": "？", "!": "！", ",": "、", ".": "。"}
_WIDTHS |= {wide: narrow for narrow, wide in _WIDTHS.items()}
_WORDINGS = Path(__file__).with_name("edit_wordings.yml")

Edit = Callable[[Prompt, str, random.Random], str | None]


def apply(name: str, prompt: Prompt, language: str, rng: random.Random) -> str | None:
    """The edited turn; None where the edit has no place, or would change nothing."""
    edited = EDITS[name](prompt, language, rng)
    return None if edited == prompt.with_question(prompt.question) else edited


def whitespace(prompt: Prompt, language: str, rng: random.Random) -> str:
    """A second space where there is one, a space after a Japanese comma, or else a space before the question."""
    places = [*_free(r"(?<=\S) (?=\S)", prompt.question), *_free("(?<=、)", prompt.question)]
    at = rng.choice(places).start() if places else 0
    return prompt.with_question(f"{prompt.question[:at]} {prompt.question[at:]}")


def punctuation(prompt: Prompt, language: str, rng: random.Random) -> str | None:
    """The stop at the end, and in ja and ko any other mark, in the other width; or no stop where it may go."""
    question = prompt.question
    ways = [question[: stop.start()] for stop in _free(_STOP, question)]
    ways = [way for way in ways if question[-1] not in "?？" or _ASKS_WITHOUT_MARK.search(way)]
    if language in ("ja", "ko"):
        marks = "[?？!！、]|[。．.]$" if language == "ja" else "[?？!！]$"
        places = {match.start() for match in _free(marks, question)}
        ways.append("".join(_WIDTHS.get(mark, mark) if at in places else mark for at, mark in enumerate(question)))
    ways = [way for way in ways if way != question]
    return prompt.with_question(rng.choice(ways)) if ways else None


def politeness(prompt: Prompt, language: str, rng: random.Random) -> str | None:
    return _reworded("politeness", prompt, language, rng)


def synonyms(prompt: Prompt, language: str, rng: random.Random) -> str | None:
    return _reworded("synonyms", prompt, language, rng)


def order(prompt: Prompt, language: str, rng: random.Random) -> str | None:
    """The question before the document instead of behind it, unless it points at where things stand."""
    document = prompt.before.rstrip()
    stands_alone = prompt.before.endswith("\n\n") and not prompt.after.strip()
    if not stands_alone or not document or _POINTS.search(prompt.question) or question_part.find(document):
        return None
    return f"{prompt.question}\n\n{document}{prompt.after}"


EDITS: dict[str, Edit] = {edit.__name__: edit for edit in (whitespace, punctuation, politeness, order, synonyms)}


def _reworded(kind: str, prompt: Prompt, language: str, rng: random.Random) -> str | None:
    """One wording of the table for another, at one place outside of what is protected."""
    found = [
        prompt.with_question(prompt.question[: match.start()] + match.expand(by) + prompt.question[match.end() :])
        for pattern, by in _wordings()[kind].get(language, [])
        for match in list(_free(pattern, prompt.question))[:1]
    ]
    return rng.choice(found) if found else None


def _free(pattern: str, text: str) -> Iterator[re.Match]:
    """The matches that touch nothing protected."""
    spans = [match.span() for match in PROTECTED.finditer(text)]
    for match in re.finditer(pattern, text):
        if not any(start < max(match.end(), match.start() + 1) and match.start() < end for start, end in spans):
            yield match


@cache
def _wordings() -> dict[str, dict[str, list[list[str]]]]:
    return yaml.safe_load(_WORDINGS.read_text(encoding="utf-8"))
