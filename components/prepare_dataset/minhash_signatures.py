"""MinHash signatures of texts over character shingles, in whole blocks of texts by numpy, in any language."""

import functools
from collections.abc import Sequence

import numpy as np

NUM_BANDS, NUM_ROWS = 25, 5
NUM_PERMUTATIONS = NUM_BANDS * NUM_ROWS
# What two signatures must share to be comparable; it is written beside stored ones.
SCHEME = f"minhash-{NUM_BANDS}x{NUM_ROWS}-4-2-v1"
_SHINGLE = 4
_FIRST_EAST_ASIAN = 0x2E80  # radicals; kana, han and hangul stand above
BLOCK = 1 << 16  # code points to sign at once: the arrays stay in the processor's cache
_LONGEST = 1 << 20  # what stands behind the first million characters of a text is not compared
_BASE = np.uint32(0x9E3779B1)
# A random odd factor permutes the 32-bit numbers.
_FACTORS = np.random.default_rng(25).integers(0, 1 << 31, NUM_PERMUTATIONS, dtype=np.uint32) * 2 + 1


def shingle_hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The 32-bit hashes of all shingles of the texts, and where those of each text start.

    A shingle has four characters, and two where it begins with an East Asian one, which says about twice as much: with
    these a tenth of the words may change in English, Japanese or Korean, and the Jaccard similarity stays above 0.7.
    """
    margin = "\0" * (_SHINGLE - 1)  # so that no shingle reaches from one text into the next
    texts = [margin + text[:_LONGEST] for text in texts]
    starts = np.cumsum([0, *map(len, texts)])[:-1]
    joined = ("".join(texts) + margin).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, dtype=np.uint32)
    num = len(codes) - len(margin)
    pairs = codes[:num] * _BASE + codes[1 : num + 1]
    hashes = pairs * _BASE
    hashes += codes[2 : num + 2]
    hashes *= _BASE
    hashes += codes[3 : num + 3]
    np.copyto(hashes, ~pairs, where=codes[:num] >= _FIRST_EAST_ASIAN)  # ~: no shingle of four adds up to it
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # as in MurmurHash3: each bit changes all others
        hashes ^= hashes >> np.uint32(shift)
        hashes *= np.uint32(factor)
    hashes ^= hashes >> np.uint32(16)
    return hashes, starts


def sign(texts: Sequence[str]) -> np.ndarray:
    """A row of bytes for each text: the lowest byte of the smallest hash under each permutation.

    One byte is enough: two different shingles agree in it once in 256 times, and a band asks for five that agree.
    """
    hashes, starts = shingle_hashes(texts)
    permuted = np.empty_like(hashes)
    smallest = np.empty(len(texts), dtype=np.uint32)
    signatures = np.empty((NUM_PERMUTATIONS, len(texts)), dtype=np.uint8)
    for row, factor in zip(signatures, _FACTORS, strict=True):
        np.multiply(hashes, factor, out=permuted)
        np.minimum.reduceat(permuted, starts, out=smallest)
        row[:] = smallest & np.uint32(0xFF)
    return np.ascontiguousarray(signatures.T)


def jaccard(one: str, other: str) -> float:
    """The exact share of their shingles that two texts have in common."""
    first, second = _shingles(one), _shingles(other)
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


@functools.lru_cache(maxsize=128)  # a chat is compared with many
def _shingles(text: str) -> np.ndarray:
    return np.unique(shingle_hashes([text])[0])
