"""What texts copied from sources: the share of their n-grams that a source holds, and the longest span of each."""

import math
from dataclasses import dataclass

import numpy as np
from text_windows import HashTable, Texts

MAX_PLACES = 32  # a span that begins with an n-gram of more places is followed from so many of them
_BLOCK_CHARS = 2**21
_PAIRS_AT_ONCE = 2**21


@dataclass(frozen=True)
class Overlap:
    """For each text: the share of its n-grams found, and its longest span, where it begins and in which source."""

    share: np.ndarray
    longest: np.ndarray
    at: np.ndarray  # in the characters of all texts
    source: np.ndarray  # -1 without a span


class SourceIndex:
    """The n-grams of the sources; those of ``common`` or of enough sources are boilerplate, and no copy of anything."""

    def __init__(self, sources: Texts, n: int, min_common: int, common: np.ndarray | None = None):
        self.sources, self.n = sources, n
        positions, hashes = sources.windows(n)
        order = np.argsort(hashes)
        hashes, self._places = hashes[order], positions[order]
        del order, positions
        first = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if len(hashes) else np.empty(0, int)
        self._first = first
        self._counts = np.diff(first, append=len(hashes)).astype(np.int32)
        self._table = HashTable(hashes[first])
        self.is_common = self._num_sources() >= min_common
        if common is not None:
            known = self._table.find(common)
            self.is_common[known[known >= 0]] = True

    def common(self) -> np.ndarray:
        """The hashes of the boilerplate."""
        return self._table.distinct[self.is_common]

    def _num_sources(self) -> np.ndarray:
        """In how many sources each n-gram stands."""
        repeated = np.flatnonzero(self._counts > 1)
        places = self._places[np.repeat(self._counts > 1, self._counts)]
        group = np.repeat(repeated, self._counts[repeated])
        pairs = np.unique(group * len(self.sources) + self.sources.text_of[places])
        found = np.ones(len(self._counts), dtype=np.int32)
        found[repeated] = np.bincount(pairs // max(len(self.sources), 1), minlength=len(found))[repeated]
        return found

    def overlap(self, texts: Texts) -> Overlap:
        parts = []
        for first, after in texts.blocks(_BLOCK_CHARS):
            part = self._overlap(texts.part(first, after))
            parts.append(Overlap(part.share, part.longest, part.at + texts.starts[first], part.source))
        if not parts:
            return Overlap(np.empty(0), *(np.empty(0, np.int64),) * 3)
        fields = ((getattr(part, name) for part in parts) for name in ("share", "longest", "at", "source"))
        return Overlap(*(np.concatenate(list(field)) for field in fields))

    def _overlap(self, texts: Texts) -> Overlap:
        positions, hashes = texts.windows(self.n)
        index = self._table.find(hashes)
        common = index >= 0
        common[common] = self.is_common[index[common]]
        found = (index >= 0) & ~common
        own = np.bincount(texts.text_of[positions[~common]], minlength=len(texts))
        copied = np.bincount(texts.text_of[positions[found]], minlength=len(texts))
        # A span ends with its text, or before the n-gram that is boilerplate is whole.
        limit = texts.ends[texts.text_of].copy()
        stops = np.where(common, positions + self.n - 1, len(texts.codes))
        limit[positions] = np.minimum(limit[positions], np.minimum.accumulate(stops[::-1])[::-1])
        longest, at, source = self._longest(texts, positions[found], index[found], limit)
        return Overlap(copied / np.maximum(own, 1), longest, at, source)

    def _longest(self, texts: Texts, positions: np.ndarray, index: np.ndarray, limit: np.ndarray):
        """The longest span of each text: every place of every n-gram that begins one is followed to its end."""
        longest, at = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
        source = np.full(len(texts), -1, np.int64)
        places = np.minimum(self._counts[index], MAX_PLACES)
        # Within a span its beginning is enough, unless of the n-gram before, and not of this one, a place was left out.
        left_out = self._counts[index] > MAX_PLACES
        follows = np.zeros(len(positions), dtype=bool)
        follows[1:] = (np.diff(positions) == 1) & (~left_out[:-1] | left_out[1:])
        totals = np.cumsum(places)
        begin = 0
        while begin < len(positions):
            done = totals[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(totals, done + _PAIRS_AT_ONCE, side="right")))
            rows = np.repeat(np.arange(begin, end), places[begin:end])
            nth = np.arange(len(rows)) - np.repeat(totals[begin:end] - places[begin:end] - done, places[begin:end])
            place, position = self._places[self._first[index[rows]] + nth], positions[rows]
            before = self.sources.codes[place - 1] == texts.codes[position - 1]
            starts = ~(follows[rows] & before & (place > 0))
            place, position = place[starts], position[starts]
            length = self._extended(texts, position, place, limit[position])
            order = np.lexsort((-position, length, texts.text_of[position]))
            text = texts.text_of[position[order]]
            last = order[np.flatnonzero(np.diff(text, append=-1))]
            text = texts.text_of[position[last]]
            better = last[length[last] > longest[text]]
            text = texts.text_of[position[better]]
            longest[text], at[text] = length[better], position[better]
            source[text] = self.sources.text_of[place[better]]
            begin = end
        return longest, at, source

    def _extended(self, texts: Texts, position: np.ndarray, place: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """How far the characters from ``position`` are those from ``place``, the first n being so."""
        length = np.full(len(position), self.n, np.int64)
        running = np.arange(len(position))
        while len(running):
            running = running[position[running] + length[running] < limit[running]]
            same = (
                texts.codes[position[running] + length[running]] == self.sources.codes[place[running] + length[running]]
            )
            running = running[same]
            length[running] += 1
        return length


def min_common(num_texts: int, fraction: float, min_documents: int) -> int:
    """In how many texts an n-gram must stand to be boilerplate."""
    return max(min_documents, math.ceil(fraction * num_texts))
