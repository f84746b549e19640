"""Small named rules for what is not worth learning, each with what it says of a chat that it leaves out."""

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from chat_texts import normalized_lines

from slmkit import textstats
from slmkit.errors import UserError
from slmkit.ngrams import normalize

_MAX_CHARACTERS = 1_000_000
_LONG_ANSWER_BYTES = 400
_MOST_REPETITION = 8  # prose shrinks to a half or a third, a table to a fifth
_LONG_ENOUGH_FOR_SYMBOLS = 20
_LEAST_LETTERS = 0.25
_LETTERS_TO_TELL_A_LANGUAGE = 12
_SHORT_ANSWER, _LONG_ANSWER = 3, 20_000

_LETTER = re.compile(r"[^\W_]")
# What UTF-8 looks like when it was read as Latin-1 or Windows-1252: é -> Ã©, ’ -> â€™, あ -> ã‚.
_MOJIBAKE = re.compile(
    r"\ufffd|[\x80-\x9f]|Ã[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹Œ]|â€[™œ“”˜¦]|[ãäåæçèé][‚ƒ„…†‡ˆ‰Š‹Œ•–—˜™š›œ€][\x80-\xbf]?"
)
_BOILERPLATE = re.compile(
    r"\bas an? (?:ai|artificial intelligence)(?: language)? (?:model|assistant)\b|\bas a (?:large )?language model\b"
    r"|(?:ai|人工知能)(?:の)?(?:言語モデル|アシスタント)(?:として|なので|ですので|であるため)"
    r"|(?:ai|인공지능) ?(?:언어 ?모델|어시스턴트|모델)(?:로서|로써|이므로|이기 때문에)"
)


def no_content(question: str, answer: str) -> bool:
    return not _LETTER.search(answer)


def mostly_symbols(question: str, answer: str) -> bool:
    size = len("".join(answer.split()))
    return size >= _LONG_ENOUGH_FOR_SYMBOLS and len(_LETTER.findall(answer)) < _LEAST_LETTERS * size


def mojibake(question: str, answer: str) -> bool:
    return bool(_MOJIBAKE.search(question) or _MOJIBAKE.search(answer))


def repetition(question: str, answer: str) -> bool:
    content = answer.encode("utf-8", "surrogatepass")
    return len(content) >= _LONG_ANSWER_BYTES and len(zlib.compress(content, 6)) * _MOST_REPETITION < len(content)


def answer_equals_question(question: str, answer: str) -> bool:
    return normalize(answer) in (normalize(question), (normalized_lines(question) or [""])[-1])


def assistant_boilerplate(question: str, answer: str) -> bool:
    return bool(_BOILERPLATE.search(normalize(answer)))


def unclosed_code(question: str, answer: str) -> bool:
    return answer.count("```") % 2 == 1


def too_long_chat(question: str, answer: str) -> bool:
    return len(question) + len(answer) > _MAX_CHARACTERS


def too_short_answer(question: str, answer: str) -> bool:
    return len(_LETTER.findall(answer)) < _SHORT_ANSWER


def too_long_answer(question: str, answer: str) -> bool:
    return len(answer) > _LONG_ANSWER


def another_language(question: str, answer: str) -> bool:
    asked = (normalized_lines(question) or [""])[-1]
    if min(len(_LETTER.findall(asked)), len(_LETTER.findall(answer))) < _LETTERS_TO_TELL_A_LANGUAGE:
        return False
    languages = {textstats.language(asked), textstats.language(answer)} - {"und"}
    return len(languages) > 1


class Rule(NamedTuple):
    breaks: Callable[[str, str], bool]  # the last question and the answer to it
    says: str
    safe: bool  # right for every dataset


RULES = {
    breaks.__name__: Rule(breaks, says, safe)
    for breaks, says, safe in (
        (too_long_chat, f"longer than {_MAX_CHARACTERS:,} characters", True),
        (no_content, "the answer has no letter and no digit", True),
        (mostly_symbols, "less than a quarter of the answer are letters or digits", True),
        (mojibake, "characters that were lost or decoded wrongly", True),
        (repetition, "the answer repeats itself: it can be compressed to an eighth", True),
        (answer_equals_question, "the answer is the question", True),
        (assistant_boilerplate, "the answer speaks of itself as an AI model", True),
        (unclosed_code, "the answer ends within a block of code", True),
        (another_language, "the answer is in another language than the question", False),
        (too_short_answer, f"the answer has fewer than {_SHORT_ANSWER} letters and digits", False),
        (too_long_answer, f"the answer has more than {_LONG_ANSWER:,} characters", False),
    )
}
PRESETS = {"safe": [name for name, rule in RULES.items() if rule.safe], "all": list(RULES), "none": []}


def chosen_rules(text: str) -> list[str]:
    """The names of the rules that `quality_rules` asks for: a preset, or names with commas between them."""
    if text.strip() in PRESETS:
        return PRESETS[text.strip()]
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in RULES]
    if unknown or not names:
        raise UserError(
            f"quality_rules: {(unknown or [text])[0]!r} is no rule; give {', '.join(PRESETS)} "
            f"or some of {', '.join(RULES)}"
        )
    return [name for name in RULES if name in names]


def broken_rule(chat: dict[str, Any], names: Sequence[str]) -> str | None:
    """The first rule that a turn of the assistant breaks, or None."""
    question = ""
    for message in chat["messages"]:
        if message["role"] == "user":
            question = message["content"]
        elif message["role"] == "assistant":
            for name in names:
                if RULES[name].breaks(question, message["content"]):
                    return name
    return None
