"""The same question in other words about it: what changes is the form of the prompt, never the facts in it."""

import re
from typing import Any

from slmkit.textstats import language

_GREETING_AND_THANKS = {
    "en": ("hey, quick one:", "thanks!"),
    "ja": ("ねえ、ちょっと教えて。", "よろしく！"),
    "ko": ("저기요, 하나만 물어볼게요.", "고마워요!"),
}


def reworded(messages: list[dict[str, Any]], style: str) -> list[dict[str, Any]]:
    """The chat with the last message of the user in this style."""
    last = max((number for number, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        return messages
    return [
        {**message, "content": in_style(message["content"], style)} if number == last else message
        for number, message in enumerate(messages)
    ]


def in_style(text: str, style: str) -> str:
    """Prompts give what they are about first and the question in the last paragraph."""
    if style == "one_line":
        return " ".join(text.split())
    *context, question = re.split(r"\n\s*\n", text.strip())
    if style == "casual":
        greeting, thanks = _GREETING_AND_THANKS.get(language(question), _GREETING_AND_THANKS["en"])
        question = f"{greeting} {question} {thanks}"
    return text if style == "plain" else "\n\n".join([question, *context])
