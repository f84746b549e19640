"""Personal data before and after: what a detector finds in real and in synthetic texts, and what reappears."""

import hashlib
import re
import secrets
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from text_windows import HashTable, Texts, hashes, plain

from pii_detection import Detector

_PREFIX_CHARS = 6  # values are looked for by these; a shorter one is no personal datum
_NEIGHBOR = re.compile(r"[0-9a-z]")


@dataclass
class Comparison:
    """Counts by type. ``reappearing`` counts distinct values; ``texts`` are the synthetic texts that hold one."""

    real: Counter[str] = field(default_factory=Counter)
    synthetic: Counter[str] = field(default_factory=Counter)
    reappearing: Counter[str] = field(default_factory=Counter)
    texts: set[int] = field(default_factory=set)


class PersonalData:
    """The values found in the real texts, kept in memory only and compared by a hash with a key of this run."""

    def __init__(self, allowed_values: Iterable[str] = ()):
        self._detector = Detector()
        self._key = secrets.token_bytes(32)
        self._allowed = {self._hash(value) for value in allowed_values}

    def compare(self, real: Sequence[str], synthetic: Sequence[str]) -> Comparison:
        found = Comparison()
        types_of: dict[bytes, str] = {}
        spellings: set[str] = set()
        for text in real:
            for finding in self._detector.find(text):
                value = text[finding.start : finding.end]
                found.real[finding.entity_type] += 1
                if (hashed := self._hash(value)) not in self._allowed:
                    types_of.setdefault(hashed, finding.entity_type)
                    spellings.add(plain(value))
        again: set[bytes] = set()
        for number, text in enumerate(synthetic):
            for finding in self._detector.find(text):
                found.synthetic[finding.entity_type] += 1
                if (hashed := self._hash(text[finding.start : finding.end])) in types_of:
                    again.add(hashed)
                    found.texts.add(number)
        # As written, a value needs no words around it by which a detector would know it.
        for number, value in _standing_in(spellings, Texts(synthetic)):
            again.add(self._hash(value))
            found.texts.add(number)
        found.reappearing = Counter(types_of[hashed] for hashed in again)
        return found

    def masked(self, text: str, num_characters: int) -> str:
        """The beginning of a text without what the detector finds, nor any digit."""
        parts, end = [], 0
        for finding in self._detector.find(text):
            parts += [text[end : finding.start], f"<{finding.entity_type}>"]
            end = finding.end
        shown = re.sub(r"\d", "#", "".join([*parts, text[end:]]))
        return shown if len(shown) <= num_characters else shown[:num_characters] + " …"

    def _hash(self, value: str) -> bytes:
        """The same for one value in two spellings: 02-123-4567 is 02 123 4567."""
        folded = unicodedata.normalize("NFKC", value).casefold()
        bare = "".join(c for c in folded if c.isalnum() or c in "@.")
        return hashlib.blake2b(bare.strip(".").encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()


def _standing_in(values: set[str], texts: Texts) -> Iterable[tuple[int, str]]:
    """The texts that hold a value, not as a part of a longer number or word."""
    values = {value for value in values if len(value) >= _PREFIX_CHARS}
    if not values or len(texts.codes) < _PREFIX_CHARS:
        return
    by_prefix: dict[str, list[str]] = {}
    for value in values:
        by_prefix.setdefault(value[:_PREFIX_CHARS], []).append(value)
    prefixes = np.array([[ord(c) for c in prefix] for prefix in by_prefix], dtype=np.uint32)
    table = HashTable(np.unique(np.concatenate([hashes(row, _PREFIX_CHARS) for row in prefixes])))
    for at in np.flatnonzero(table.find(hashes(texts.codes, _PREFIX_CHARS)) >= 0).tolist():
        for value in by_prefix.get(texts.text(at, _PREFIX_CHARS), ()):
            after = at + len(value)
            before = texts.text(at - 1, 1) if at else ""
            edges = (before, value[0]), (texts.text(after, 1), value[-1])
            whole = not any(_NEIGHBOR.match(outer) and _NEIGHBOR.match(inner) for outer, inner in edges)
            if whole and texts.text(at, len(value)) == value:
                yield int(texts.text_of[at]), value
