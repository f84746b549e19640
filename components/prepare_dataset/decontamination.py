"""Keep guarded evaluation data out of training data: whole questions, and n-grams of questions and references."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from chat_texts import normalize, normalized_lines, questions

from slmkit import records
from slmkit.errors import UserError

_MAX_NUM_ITEMS = 10  # that may share an n-gram before it counts as a form of words
_BASE = 0x9E3779B97F4A7C15
_EAST_ASIAN = re.compile(r"[぀-ヿ㐀-鿿豈-﫿가-힣ᄀ-ᇿㄱ-ㆎ]")


class Units(NamedTuple):
    """What an n-gram counts in a script: `size` units, or all units of a question that has only `least`."""

    pattern: re.Pattern
    size: int
    least: int


# 13 words, and 8 for what is shorter, as for GPT-3 (Brown et al. 2020, appendix C). 13 English words are some 60
# letters; Japanese and Korean say the same in a third of the characters, and have no reliable words to count.
WORDS = Units(re.compile(r"\w+"), 13, 8)
CHARACTERS = Units(re.compile(r"[^\W_]"), 20, 12)


def units_of(text: str) -> Units:
    return CHARACTERS if len(_EAST_ASIAN.findall(text)) * 4 > len(text) else WORDS


def ngram_hashes(units: Sequence[str], size: int) -> np.ndarray:
    """A 64-bit hash of each run of `size` units."""
    if len(units) < size:
        return np.empty(0, dtype=np.uint64)
    hashes = np.fromiter(map(hash, units), dtype=np.int64, count=len(units)).astype(np.uint64)
    num = len(units) - size + 1
    found = np.zeros(num, dtype=np.uint64)
    for place in range(size):
        found *= np.uint64(_BASE)
        found += hashes[place : place + num]
    return found


class GuardedData:
    """What must not be trained on; of the n-grams only their hashes are kept, eight bytes each.

    An n-gram that stands in more than ten guarded items is a form of words, such as the instruction of a benchmark or
    a passage that many questions are about, and says nothing about a single one.
    """

    def __init__(self, path: Path):
        self.num_items = 0
        self._questions: set[str] = set()
        self._gathered: dict[tuple[Units, int], list[np.ndarray]] = {}
        for item in _items(path):
            self._add(item)
        self._ngrams = {key: _of_few_items(parts) for key, parts in self._gathered.items()}
        del self._gathered
        if not self.num_items:
            raise UserError(f"{path}: guarded_data holds no record; give eval items or chats, or leave it out")

    def _add(self, item: dict[str, Any]) -> None:
        question = [message["content"] for message in item["messages"] if message["role"] == "user"][-1]
        found: dict[tuple[Units, int], list[np.ndarray]] = {}
        for text in {normalize(question)} - self._questions:  # the same question again makes it no form of words
            self._questions.add(text)
            units = units_of(text)
            parts = units.pattern.findall(text)
            if len(parts) >= units.least:
                size = min(units.size, len(parts))
                found.setdefault((units, size), []).append(ngram_hashes(parts, size))
        for text in map(normalize, references(item)):
            units = units_of(text)
            found.setdefault((units, units.size), []).append(ngram_hashes(units.pattern.findall(text), units.size))
        for key, hashes in found.items():
            self._gathered.setdefault(key, []).append(np.unique(np.concatenate(hashes)))
        self.num_items += 1

    def found_in(self, chat: dict[str, Any]) -> str | None:
        """The part of a chat that repeats guarded data, or None."""
        for question in questions(chat):
            if question in self._questions:
                return question
        for message in chat["messages"]:
            if message["role"] == "user":
                for line in normalized_lines(message["content"]):
                    if line in self._questions:
                        return line
            text = normalize(message["content"])
            units_found = {units: units.pattern.findall(text) for units in {units for units, _ in self._ngrams}}
            for (units, size), guarded in self._ngrams.items():
                hit = np.flatnonzero(_among(ngram_hashes(units_found[units], size), guarded))
                if len(hit):
                    joiner = " " if units is WORDS else ""
                    return joiner.join(units_found[units][hit[0] : hit[0] + size])
        return None


def references(item: dict[str, Any]) -> list[str]:
    """The answers of an eval item, or of a chat."""
    found = item.get("references")
    if found is None:
        return [message["content"] for message in item["messages"] if message["role"] == "assistant"][-1:]
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError("'references' is not a list of texts")
    return found


def _items(path: Path) -> Iterator[dict[str, Any]]:
    for item, file, line in records.read_located(path):
        try:
            records.check_chat(item)
            references(item)
            if not any(message["role"] == "user" for message in item["messages"]):
                raise ValueError("no user turn")
        except ValueError as error:
            raise UserError(f"guarded_data {file}:{line}: {error}; correct or remove the line") from None
        yield item


def _of_few_items(parts: Iterable[np.ndarray]) -> np.ndarray:
    """The sorted hashes that stand in few of the items."""
    hashes, num_items = np.unique(np.concatenate(parts), return_counts=True)
    return hashes[num_items <= _MAX_NUM_ITEMS]


def _among(hashes: np.ndarray, sorted_hashes: np.ndarray) -> np.ndarray:
    places = np.searchsorted(sorted_hashes, hashes)
    inside = places < len(sorted_hashes)
    inside[inside] = sorted_hashes[places[inside]] == hashes[inside]
    return inside
