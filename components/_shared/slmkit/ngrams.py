"""N-grams of a text as 64-bit hashes: of words, or of characters where a script has no words to count."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r"\w+")
CHARACTER = re.compile(r"[^\W_]")
_EAST_ASIAN = re.compile(r"[぀-ヿ㐀-鿿豈-﫿가-힣ᄀ-ᇿㄱ-ㆎ]")
_NO_CHARACTER = re.compile(r"[\W_]+")
_BASE = 0x9E3779B97F4A7C15
_SPREAD = 0xBF58476D1CE4E5B9


def normalize(text: str) -> str:
    """What two texts have in common that differ in width, letter case or white space only."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def unit_of(text: str) -> re.Pattern:
    """What an n-gram of the text is made of: ``CHARACTER`` in Japanese, Korean and Chinese, elsewhere ``WORD``."""
    return CHARACTER if len(_EAST_ASIAN.findall(text)) * 4 > len(text) else WORD


def units_of(text: str, unit: re.Pattern) -> list[str] | str:
    """The units of a text: a list of words, or its characters as one text, which is hashed without a loop."""
    return _NO_CHARACTER.sub("", text) if unit is CHARACTER else unit.findall(text)


def ngram_hashes(units: Sequence[str], size: int) -> np.ndarray:
    """A 64-bit hash of each run of `size` units; the same within one process only, and of texts or of lists only."""
    if len(units) < size:
        return np.empty(0, dtype=np.uint64)
    if isinstance(units, str):
        hashes = np.frombuffer(units.encode("utf-32-le", "surrogatepass"), dtype=np.uint32) * np.uint64(_SPREAD)
        hashes ^= hashes >> np.uint64(29)  # near characters get far values
    else:
        hashes = np.fromiter(map(hash, units), dtype=np.int64, count=len(units)).astype(np.uint64)
    num = len(units) - size + 1
    found = np.zeros(num, dtype=np.uint64)
    for place in range(size):
        found *= np.uint64(_BASE)
        found += hashes[place : place + num]
    return found


def among(hashes: np.ndarray, sorted_hashes: np.ndarray) -> np.ndarray:
    """Which of the hashes stand in `sorted_hashes`."""
    places = np.searchsorted(sorted_hashes, hashes)
    inside = places < len(sorted_hashes)
    inside[inside] = sorted_hashes[places[inside]] == hashes[inside]
    return inside
