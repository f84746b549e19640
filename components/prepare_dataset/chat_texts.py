"""What of a chat is compared with other chats, without the differences that mean nothing."""

import unicodedata
from typing import Any

from slmkit.ngrams import normalize


def normalized_lines(text: str) -> list[str]:
    lines = unicodedata.normalize("NFKC", text).casefold().splitlines()
    return [line for line in (" ".join(line.split()) for line in lines) if line]


def questions(chat: dict[str, Any]) -> list[str]:
    return [normalize(message["content"]) for message in chat["messages"] if message["role"] == "user"]


def asked_and_answered(chat: dict[str, Any]) -> tuple[str, str]:
    """The two sides of a chat, normalized line by line: what the assistant said, and everything else."""
    sides: tuple[list[str], list[str]] = ([], [])
    for message in chat["messages"]:
        sides[message["role"] == "assistant"].extend(normalized_lines(message["content"]))
    return "\n".join(sides[0]), "\n".join(sides[1])
