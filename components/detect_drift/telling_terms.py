"""The words by which a person sees what users ask more, or less, than before."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NUM_TERMS = 6
_MIN_DEVIATIONS = 3.0  # of a share's change, in standard errors: thousands of words are looked at
# Words in Latin script and hangul; in Japanese runs of kanji and of katakana, since hiragana is mostly grammar.
_WORD = re.compile(r"[^\W\d_぀-ヿ㐀-鿿가-힣]{3,}|[가-힣]{2,}|[一-鿿々]{2,}|[ァ-ヺー]{2,}")
_LONGEST = 24
_OVERLAP = 0.8
_TEXT_CHARS = 2_000


@dataclass(frozen=True)
class Term:
    text: str
    baseline: float  # share of the conversations that hold it
    current: float

    def __str__(self) -> str:
        return f"{self.text} ({self.baseline:.0%} -> {self.current:.0%})"


def telling_terms(texts: Sequence[str], labels: Iterable[int]) -> tuple[list[Term], list[Term]]:
    """The terms that are in more of the current texts, and those in fewer, the most certain first."""
    held_by: dict[str, set[int]] = defaultdict(set)
    for i, text in enumerate(texts):
        for match in _WORD.finditer(text[:_TEXT_CHARS].casefold()):
            held_by[match.group()[:_LONGEST]].add(i)
    before, now = set(), set()
    for i, label in enumerate(labels):
        before |= {i} if label <= 0 else set()
        now |= {i} if label >= 0 else set()

    def deviation(term: Term, num: int) -> float:
        pooled = (num + 1) / (len(texts) + 2)
        error = math.sqrt(pooled * (1 - pooled) * (1 / len(before) + 1 / len(now)))
        return (term.current - term.baseline) / error

    found = []
    for word, held in held_by.items():
        term = Term(word, len(held & before) / len(before), len(held & now) / len(now))
        if abs(certain := deviation(term, len(held))) >= _MIN_DEVIATIONS:
            found.append((certain, term))
    found.sort(key=lambda one: (-round(abs(one[0]), 1), -len(one[1].text), one[1].text))
    more, less = ([term for certain, term in found if (certain > 0) == up] for up in (True, False))
    return _different(more, held_by), _different(less, held_by)


def _different(terms: list[Term], held_by: dict[str, set[int]]) -> list[Term]:
    """The first NUM_TERMS that do not stand in the texts of one before them: of a sentence one word is enough."""
    chosen: list[Term] = []
    for term in terms:
        held = held_by[term.text]
        if len(chosen) < NUM_TERMS and all(
            len(held & held_by[one.text]) < _OVERLAP * min(len(held), len(held_by[one.text])) for one in chosen
        ):
            chosen.append(term)
    return chosen
