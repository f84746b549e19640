"""Keep guarded evaluation data out of training data: whole questions, and n-grams of questions and references."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from chat_texts import normalized_lines, questions

from slmkit import records
from slmkit.errors import UserError
from slmkit.ngrams import CHARACTER, WORD, among, ngram_hashes, normalize, unit_of

_MAX_NUM_ITEMS = 10  # that may share an n-gram before it counts as a form of words


class Units(NamedTuple):
    """What an n-gram counts in a script: `size` units, or all units of a question that has only `least`."""

    pattern: re.Pattern
    size: int
    least: int


# 13 words, and 8 for what is shorter, as for GPT-3 (Brown et al. 2020, appendix C). 13 English words are some 60
# letters; Japanese and Korean say the same in a third of the characters, and have no reliable words to count.
WORDS = Units(WORD, 13, 8)
CHARACTERS = Units(CHARACTER, 20, 12)


def units_of(text: str) -> Units:
    return CHARACTERS if unit_of(text) is CHARACTER else WORDS


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
                hit = np.flatnonzero(among(ngram_hashes(units_found[units], size), guarded))
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
