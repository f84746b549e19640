"""Which items were trained on: the share of a question's n-grams that stand in the training chats.

An item counts as contaminated when 70 % of its 8-grams were seen in training, as for PaLM (Chowdhery et al. 2022,
section 8; Llama 3 looks at 8-grams too). 8 English words are some 40 letters; Japanese, Korean and Chinese say the same
in 13 characters. A question that is shorter than one n-gram ("春は？") is found where a line of a chat is that question
and the chat holds the right answer as well.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slmkit import records
from slmkit.errors import UserError
from slmkit.ngrams import CHARACTER, WORD, among, ngram_hashes, normalize, unit_of, units_of

MAX_NUM_ITEMS = 10  # that may share an n-gram before it is a form of words ("which of the following is true of ...")
_BLOCK = 1 << 16  # units of training text that are looked up at once
_END = "\0"  # after each chat, so that no n-gram reaches into the next


class Overlap(NamedTuple):
    """Of one item: the shares of n-grams found in training, of the question and of it with its right answer."""

    question: float
    with_answer: float
    num_ngrams: int  # of the question; 0 when it was looked for as a line


class _Script:
    """The n-grams of all items in one kind of script, and which of them training has shown so far."""

    def __init__(self, unit, size: int):
        self.unit, self.size = unit, size
        self.items: list[int] = []
        self._hashes: list[np.ndarray] = []
        self._num_of_question: list[int] = []
        self._waiting: list[str] | str = "" if unit is CHARACTER else []

    def add(self, item: int, question: str, answer: str) -> bool:
        """Whether the question is long enough."""
        units = units_of(question, self.unit)
        if len(units) < self.size:
            return False
        self.items.append(item)
        self._hashes.append(ngram_hashes(units + units_of(answer, self.unit), self.size))
        self._num_of_question.append(len(units) - self.size + 1)
        return True

    def close(self) -> None:
        each = [np.unique(hashes) for hashes in self._hashes]
        self._distinct, num_items = np.unique(np.concatenate(each), return_counts=True)
        self._telling = num_items <= MAX_NUM_ITEMS
        self._seen = np.zeros(len(self._distinct), dtype=bool)
        bits = len(self._distinct).bit_length() + 4  # nearly all n-grams of a training stand nowhere: told by one look
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, dtype=bool)
        self._maybe[self._distinct >> self._shift] = True

    def look_up(self, text: str | None) -> None:
        """Take in the text of a chat; ``None`` after the last one."""
        if text is not None:
            self._waiting += units_of(text, self.unit)
            self._waiting += _END
        if len(self._waiting) > _BLOCK or text is None:
            hashes = ngram_hashes(self._waiting, self.size)
            hashes = hashes[self._maybe[hashes >> self._shift]]
            self._seen[np.searchsorted(self._distinct, hashes[among(hashes, self._distinct)])] = True
            self._waiting = self._waiting[:0]

    def overlaps(self) -> dict[int, Overlap]:
        found = {}
        for item, hashes, num in zip(self.items, self._hashes, self._num_of_question, strict=True):
            places = np.searchsorted(self._distinct, hashes)
            seen, telling = self._seen[places], self._telling[places]
            if not telling[:num].any():  # nothing but forms of words: then all of them together, with the answer
                telling = np.ones_like(telling)
                num = len(telling)
            found[item] = Overlap(float(seen[:num][telling[:num]].mean()), float(seen[telling].mean()), num)
        return found


def overlaps(
    asked: Sequence[tuple[str, str]], train_data: Path, ngram_words: int, ngram_characters: int
) -> tuple[list[Overlap], int]:
    """Of each (question, right answer) its overlap with the chats, and how many chats there were.

    Memory is that of the items; the chats are read once, one at a time.
    """
    scripts = {WORD: _Script(WORD, ngram_words), CHARACTER: _Script(CHARACTER, ngram_characters)}
    short: dict[str, list[int]] = defaultdict(list)
    plain = [(normalize(question), normalize(answer)) for question, answer in asked]
    for item, (question, answer) in enumerate(plain):
        if not scripts[unit_of(question)].add(item, question, answer):
            short[question].append(item)
    in_use = [script for script in scripts.values() if script.items]
    for script in in_use:
        script.close()

    found: dict[int, Overlap] = {item: Overlap(0.0, 0.0, 0) for items in short.values() for item in items}
    num_chats = 0
    for chat, source, line in records.read_located(train_data):
        text = _text(chat, source, line)
        num_chats += 1
        if short:
            for asked_line in {" ".join(one.split()) for one in text.splitlines()} & short.keys():
                for item in short[asked_line]:
                    if plain[item][1] in text:
                        found[item] = Overlap(1.0, 1.0, 0)
        for script in in_use:
            script.look_up(text)
    if not num_chats:
        raise UserError(f"{train_data}: train_data holds no chat; give the chats of the training, or leave it out")
    for script in in_use:
        script.look_up(None)
        found |= script.overlaps()
    return [found[item] for item in range(len(asked))], num_chats


def _text(chat: dict[str, Any], source: str, line: int) -> str:
    """All turns of a chat, normalized but for line breaks."""
    try:
        records.check_chat(chat)
    except ValueError as error:
        raise UserError(f"train_data {source}:{line}: {error}; correct or remove the line") from None
    return unicodedata.normalize("NFKC", "\n".join(turn["content"] for turn in chat["messages"])).casefold()
