"""Words near a number that say what kind of number it is, in English, Japanese and Korean."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

import yaml

_SETTINGS = yaml.safe_load(Path(__file__).with_name("context_words.yml").read_text(encoding="utf-8"))
_BEFORE, _AFTER = _SETTINGS["window"]["before"], _SETTINGS["window"]["after"]


def _any_of(words: Iterable[str]) -> str:
    """One pattern of all words; an ASCII word may stand next to kana or hangul but not inside another ASCII word."""
    patterns = []
    for word in sorted(words, key=len, reverse=True):
        pattern = re.escape(word).replace(r"\ ", r"[\s_-]?")
        patterns.append(rf"(?<![A-Za-z]){pattern}(?![A-Za-z])" if word[0].isascii() else pattern)
    return "|".join(patterns)


_WORDS = {kind: re.compile(_any_of(words), re.IGNORECASE) for kind, words in _SETTINGS["words"].items()}
_NOT_IP_ADDRESS = re.compile(rf"(?:{_any_of(_SETTINGS['not_ip_address'])})[\s:#.]{{0,3}}\Z", re.IGNORECASE)


@functools.lru_cache(maxsize=4096)
def _last_word(kind: str, text: str) -> int:
    """Where the last word for ``kind`` ends in ``text``, or -1."""
    return max((match.end() for match in _WORDS[kind].finditer(text)), default=-1)


def distance(kind: str, text: str, start: int, end: int) -> int | None:
    """How far the nearest word for ``kind`` is from ``text[start:end]``, in characters; None when none is near."""
    before = text[max(0, start - _BEFORE) : start]
    last = _last_word(kind, before)
    following = _WORDS[kind].search(text, end, end + _AFTER)
    found = [len(before) - last] if last >= 0 else []
    found += [following.start() - end] if following else []
    return min(found, default=None)


def is_version(text: str, start: int) -> bool:
    """Whether the dotted number at ``start`` is said to be a version or a section."""
    return bool(_NOT_IP_ADDRESS.search(text, max(0, start - 20), start))
