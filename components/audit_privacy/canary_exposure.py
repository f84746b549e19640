"""Exposure of planted canaries, after Carlini et al. 2019, from the synthetic texts alone.

There is no model to give a likelihood, so that a secret is ranked among random ones of its form by how much of it
stands in the texts: its windows of 2, 4, 8, ... characters, weighed by their length. It shows what was copied in
pieces; a model may have learnt a canary without any synthetic text that shows it.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
from text_windows import HashTable, Texts, plain

NUM_REFERENCES = 1023  # ten bits, at most
EXPECTED = 1 / math.log(2)  # of the exposure where ranks are random
_CLASSES = ("09", "az", "AZ", "가힣", "ぁゖ", "ァヺ", "一龥")


@dataclass(frozen=True)
class Canary:
    id: str
    exposure: float
    verbatim: bool


def expose(canaries: list[tuple[str, str]], texts: Texts) -> list[Canary]:
    """For canaries (id, secret)."""
    chooser = random.Random(0)
    longest = max(len(plain(secret)) for _, secret in canaries)
    tables = {}
    length = 2
    while length <= longest:
        tables[length] = HashTable(np.unique(texts.windows(length)[1]))
        length *= 2
    whole = "\0".join(["", texts.text(0, len(texts.codes)), ""])
    found = []
    for id, secret in canaries:
        references = [like(secret, chooser) for _ in range(NUM_REFERENCES)]
        scores = _scores([secret, *references], tables)
        greater, equal = int((scores[1:] > scores[0]).sum()), int((scores[1:] == scores[0]).sum())
        rank = 1 + greater + equal / 2
        exposure = math.log2(NUM_REFERENCES + 1) - math.log2(rank)
        found.append(Canary(id, exposure, plain(secret) in whole))
    return found


def like(secret: str, chooser: random.Random) -> str:
    """A random secret of the same form: digits for digits, letters for letters of their script."""
    return "".join(_another(character, chooser) for character in secret)


def _another(character: str, chooser: random.Random) -> str:
    for first, last in _CLASSES:
        if first <= character <= last:
            return chr(chooser.randint(ord(first), ord(last)))
    return character


def _scores(secrets: list[str], tables: dict[int, HashTable]) -> np.ndarray:
    drawn = Texts(secrets)
    scores = np.zeros(len(secrets))
    for length, table in tables.items():
        positions, hashes = drawn.windows(length)
        known = drawn.text_of[positions[table.find(hashes) >= 0]]
        scores += length * np.bincount(known, minlength=len(secrets))
    return scores
