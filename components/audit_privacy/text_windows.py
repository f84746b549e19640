"""Texts as one array of code points, and the 64-bit hash of every n characters in it."""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

_END = "\0"  # after each text; `plain` leaves none within
_BASE = 0x9E3779B97F4A7C15
_FILTER_BITS = 26  # 64 MiB: most n-grams that stand nowhere are told by one look


def plain(text: str) -> str:
    """Compatible-folded (NFKC), lower case, white space as single spaces: what looks the same is the same."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().replace(_END, " ").split())


class Texts:
    """Plain texts in a row; text k is ``codes[starts[k]:ends[k]]``."""

    def __init__(self, texts: Sequence[str]):
        joined = "".join(text + _END for text in map(plain, texts))
        self.codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        self.ends = np.flatnonzero(self.codes == ord(_END))
        self.starts = np.concatenate([[0], self.ends[:-1] + 1]).astype(np.int64) if len(texts) else self.ends

    def __len__(self) -> int:
        return len(self.ends)

    @cached_property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    @cached_property
    def text_of(self) -> np.ndarray:
        """The text that each code point belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths + 1)

    def windows(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions at which n characters of one text begin, and the hash of each."""
        if len(self.codes) < n:
            return np.empty(0, np.int64), np.empty(0, np.uint64)
        whole = np.ones(len(self.codes), dtype=bool)
        for back in range(n):  # a window that begins here would run over the end of its text
            whole[np.maximum(self.ends - back, self.starts)] = False
        positions = np.flatnonzero(whole)
        return positions, hashes(self.codes, n)[positions]

    def text(self, start: int, length: int) -> str:
        return self.codes[start : start + length].tobytes().decode("utf-32-le", "surrogatepass")

    def blocks(self, num_characters: int) -> Iterator[tuple[int, int]]:
        """Ranges of texts of about so many characters, at least one text each."""
        first = 0
        while first < len(self):
            after = int(np.searchsorted(self.ends, self.starts[first] + num_characters, side="right"))
            after = max(after, first + 1)
            yield first, after
            first = after

    def part(self, first: int, after: int) -> "Texts":
        """The texts from ``first`` up to ``after``, without a copy of their characters."""
        part = object.__new__(Texts)
        begin = self.starts[first]
        part.codes = self.codes[begin : self.ends[after - 1] + 1]
        part.starts, part.ends = self.starts[first:after] - begin, self.ends[first:after] - begin
        return part


def hashes(codes: np.ndarray, n: int) -> np.ndarray:
    """A polynomial hash, modulo 2**64, of the n characters from each position; built by doubling the length."""
    with np.errstate(over="ignore"):
        doubled = codes.astype(np.uint64)  # splitmix64, so that near characters have far values
        doubled = (doubled ^ (doubled >> np.uint64(7))) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(_BASE)
        doubled ^= doubled >> np.uint64(31)
        doubled *= np.uint64(0x94D049BB133111EB)
        total, done, length = None, 0, 1
        while True:
            if n & length:
                total = doubled if total is None else _joined(total, doubled, done, length)
                done += length
            length *= 2
            if length > n:
                return total[: len(codes) - n + 1]
            doubled = _joined(doubled, doubled, length // 2, length // 2)


def _joined(left: np.ndarray, right: np.ndarray, num_left: int, num_right: int) -> np.ndarray:
    """The hashes of ``num_left`` characters and the ``num_right`` after them."""
    size = min(len(left), len(right) - num_left)
    return left[:size] * np.uint64(pow(_BASE, num_right, 2**64)) + right[num_left : num_left + size]


class HashTable:
    """Sorted distinct hashes with a filter before them; ``find`` gives the index of each, or -1."""

    def __init__(self, distinct: np.ndarray):
        self.distinct = distinct
        self._shift = np.uint64(64 - min(_FILTER_BITS, max(10, 4 + len(distinct).bit_length())))
        self._filter = np.zeros(1 << (64 - int(self._shift)), dtype=bool)
        self._filter[distinct >> self._shift] = True

    def find(self, wanted: np.ndarray) -> np.ndarray:
        found = np.full(len(wanted), -1, dtype=np.int64)
        if len(self.distinct):
            maybe = np.flatnonzero(self._filter[wanted >> self._shift])
            maybe = maybe[np.argsort(wanted[maybe])]  # neighbours in the table one after another: three times as fast
            index = np.minimum(np.searchsorted(self.distinct, wanted[maybe]), len(self.distinct) - 1)
            same = self.distinct[index] == wanted[maybe]
            found[maybe[same]] = index[same]
        return found
