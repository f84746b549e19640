"""Find near-duplicate chats: MinHash bands joined by sorting, exact Jaccard verification, clusters by union-find."""

import hashlib
import re
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from minhash_signatures import BLOCK, NUM_BANDS, NUM_PERMUTATIONS, NUM_ROWS, jaccard, sign

# Each chat is compared with so many that follow it in a band's bucket: with all, unless the bucket is larger.
_WINDOW = 16
# Five standard deviations of a similarity that is estimated from 125 hashes: sqrt(0.7 * 0.3 / 125) is 0.04.
_ESTIMATE_MARGIN = 0.2
_MAX_REFUSED = 32  # exact comparisons of a chat that come to nothing
_MAX_KEPT_COMPARED = 32
_PAIRS_AT_ONCE = 1 << 16
# Bytes of UTF-8: 120 letters, or 40 kana or hangul. Above it lies a text, below it a question or a value.
_SHORT = 120
_TIE_BITS = np.uint64(24)
_SEPARATOR = "\x1f"
_DIGITS = re.compile(r"[0-9]+")
_PUNCTUATION = re.compile(r"[\s.,:;!?'\"。、…]+")


def alike(one: tuple[str, str], other: tuple[str, str], threshold: float) -> bool:
    """Whether two chats, each as what is asked and what is answered, teach the same.

    Both sides must be alike, because many questions are asked about one text and many questions have one answer.
    Lines that stand in both questions are left aside: a context that two chats share says nothing about whether they
    ask the same. The numbers must be the same. A short side is a question or a value, where another word makes
    another fact: it must be the same but for punctuation. A longer one must share its shingles.
    """
    if _must_agree(*one) != _must_agree(*other):
        return False
    asked, its_asked = _without_common_lines(one[0], other[0])
    if asked != its_asked:
        if _short(asked) is not None or _short(its_asked) is not None:
            if _short(asked) != _short(its_asked):
                return False
        elif jaccard(asked, its_asked) < threshold:
            return False
    return _short(one[1]) is not None or jaccard(one[1], other[1]) >= threshold


def _must_agree(asked: str, answered: str) -> str:
    """What of two chats must be equal before they can be near duplicates: the numbers, and a short side."""
    return f"{sorted(_DIGITS.findall(f'{asked} {answered}'))} {_short(asked)} {_short(answered)}"


def _short(side: str) -> str | None:
    """A short side without punctuation; None for a longer one."""
    words = _PUNCTUATION.sub("", side) if len(side) < 2 * _SHORT else side
    return words if len(words.encode("utf-8", "surrogatepass")) < _SHORT else None


def _without_common_lines(one: str, other: str) -> tuple[str, str]:
    lines, its_lines = one.split("\n"), other.split("\n")
    common = {*lines} & {*its_lines}
    return tuple("\n".join(line for line in found if line not in common) for found in (lines, its_lines))


def joined(asked: str, answered: str) -> str:
    """The text that stands for a chat, whose signature is sought."""
    return f"{asked}{_SEPARATOR}{answered}"


class NearDuplicates:
    """Chats as they come, kept on disk; in memory there are 16 bytes a chat, and 60 while clusters are sought."""

    def __init__(self, folder: Path, threshold: float, sign_texts: Callable[[Sequence[str]], np.ndarray] = sign):
        self._threshold, self._sign = threshold, sign_texts
        self._texts = (folder / "texts").open("w+b")
        self._signatures = (folder / "signatures").open("w+b")
        self._ends = array("Q")
        self._must_agree = array("Q")
        self._unsigned: list[str] = []
        self._unsigned_size = 0

    def add(self, asked: str, answered: str) -> int:
        """Remember a chat; its number, from 0."""
        text = joined(asked, answered)
        self._texts.write(text.encode("utf-8", "surrogatepass"))
        self._ends.append(self._texts.tell())
        agree = _must_agree(asked, answered).encode("utf-8", "surrogatepass")
        self._must_agree.append(int.from_bytes(hashlib.blake2b(agree, digest_size=8).digest()))
        self._unsigned.append(text)
        self._unsigned_size += len(text)
        if self._unsigned_size >= BLOCK:
            self._sign_rest()
        return len(self._ends) - 1

    def _sign_rest(self) -> None:
        if self._unsigned:
            self._signatures.write(self._sign(self._unsigned).tobytes())
        self._unsigned, self._unsigned_size = [], 0

    def close(self) -> None:
        self._texts.close()
        self._signatures.close()

    def sides(self, number: int) -> tuple[str, str]:
        """What is asked and what is answered in a chat that was added."""
        start = self._ends[number - 1] if number else 0
        self._texts.seek(start)
        asked, _, answered = (
            self._texts.read(self._ends[number] - start).decode("utf-8", "surrogatepass").partition(_SEPARATOR)
        )
        return asked, answered

    def _alike(self, one: int, other: int) -> bool:
        return alike(self.sides(one), self.sides(other), self._threshold)

    def clusters(self) -> list[dict[int, int]]:
        """The clusters of two and more chats: the number of each, in order, and that of the one that stays for it.

        A chain of small changes ends far from where it began. So a chat gives way only to one that it is itself alike;
        otherwise it stays, for its own number.
        """
        self._sign_rest()
        self._signatures.flush()
        if len(self._ends) < 2:
            return []
        signatures = np.memmap(self._signatures, dtype=np.uint8, mode="r").reshape(-1, NUM_PERMUTATIONS)
        parents = self._linked(signatures)
        members: dict[int, list[int]] = {}
        sizes = np.bincount(parents, minlength=len(parents))
        for number in np.flatnonzero(sizes[parents] > 1).tolist():
            members.setdefault(int(parents[number]), []).append(number)
        found = []
        for numbers in members.values():
            stays: dict[int, int] = {}
            kept: list[int] = []
            for number in numbers:
                stays[number] = next((k for k in kept[:_MAX_KEPT_COMPARED] if self._alike(k, number)), number)
                if stays[number] == number:
                    kept.append(number)
            found.append(stays)
        return found

    def _linked(self, signatures: np.ndarray) -> np.ndarray:
        """The smallest number of each chat's cluster.

        In a band, chats that agree in its five bytes, and in what must agree, stand side by side after sorting; in a
        crowded bucket those first that agree in the next three bytes as well. Each is compared with a window of those
        that follow it, so the work grows with the number of chats even where all look the same.
        """
        num = len(signatures)
        parents = np.arange(num)
        must_agree = np.frombuffer(self._must_agree, dtype=np.uint64)
        refused = np.empty(0, dtype=np.int64)
        num_refused = np.zeros(num, dtype=np.uint16)
        for band in range(NUM_BANDS):
            keys = _band_keys(signatures, band, must_agree)
            order = np.argsort(keys, kind="stable")
            keys = keys[order] >> _TIE_BITS
            refused_here: list[int] = []
            for step in range(1, min(_WINDOW, num - 1) + 1):
                found = np.flatnonzero(keys[step:] == keys[:-step])
                if not len(found):
                    break
                one, other = np.sort([order[found], order[found + step]], axis=0)
                new = (parents[one] != parents[other]) & ~np.isin(one * num + other, refused)
                one, other = one[new], other[new]
                worth = self._looks_alike(signatures, one, other)
                for first, second in zip(one[worth].tolist(), other[worth].tolist(), strict=True):
                    root, its_root = sorted((_root(parents, first), _root(parents, second)))
                    if root == its_root or max(num_refused[first], num_refused[second]) >= _MAX_REFUSED:
                        continue
                    if self._alike(first, second):
                        parents[its_root] = root
                    else:
                        refused_here.append(first * num + second)
                        num_refused[first] += 1
                        num_refused[second] += 1
                _flatten(parents)
            refused = np.union1d(refused, np.array(refused_here, dtype=np.int64))
        return parents

    def _looks_alike(self, signatures: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Which pairs are worth the exact comparison, by the share of hashes that agree."""
        least = NUM_PERMUTATIONS * (self._threshold - _ESTIMATE_MARGIN)
        agree = np.empty(len(one), dtype=bool)
        for start in range(0, len(one), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            agree[part] = (signatures[one[part]] == signatures[other[part]]).sum(axis=1) >= least
        return agree


def _band_keys(signatures: np.ndarray, band: int, must_agree: np.ndarray) -> np.ndarray:
    """40 bits that are the same for chats of a bucket, and 24 bits to order it by."""
    places = np.arange(band * NUM_ROWS, band * NUM_ROWS + 8) % NUM_PERMUTATIONS
    keys = np.ascontiguousarray(signatures[:, places]).view(">u8").ravel().astype(np.uint64)
    buckets = ((keys >> _TIE_BITS) + must_agree) * np.uint64(0x9E3779B97F4A7C15)
    return (buckets >> _TIE_BITS << _TIE_BITS) | (keys & np.uint64((1 << 24) - 1))


def _root(parents: np.ndarray, number: int) -> int:
    while (parent := int(parents[number])) != number:
        number = parent
    return number


def _flatten(parents: np.ndarray) -> None:
    while (parents != (above := parents[parents])).any():
        parents[:] = above
