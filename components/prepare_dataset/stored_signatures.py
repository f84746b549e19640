"""MinHash signatures of the chats of a shard as a file, found again by the text that they belong to."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from minhash_signatures import NUM_PERMUTATIONS, SCHEME, sign

from slmkit import records
from slmkit.errors import UserError

_ROW = np.dtype([("text", "<u8"), (SCHEME, "u1", (NUM_PERMUTATIONS,))])


def text_keys(texts: Sequence[str]) -> np.ndarray:
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype="<u8")


def write_signatures(path: Path, blocks: Iterable[Sequence[str]]) -> int:
    """Sign the texts, write a row for each, and give back how many there are."""
    parts = [np.empty(0, dtype=_ROW)]
    for texts in blocks:
        rows = np.empty(len(texts), dtype=_ROW)
        rows["text"], rows[SCHEME] = text_keys(texts), sign(texts)
        parts.append(rows)
    rows = np.concatenate(parts)
    with records.whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, rows)
    return len(rows)


class StoredSignatures:
    """Signs texts as `sign` does, but looks up what a shard's file holds; of it only the keys stay in memory."""

    def __init__(self, folder: Path):
        paths = sorted(folder.rglob("*.npy"))
        if not paths:
            raise UserError(f"{folder}: no .npy file of signatures; give the output of signatures_parallel.yml")
        self._shards = [_load(path) for path in paths]
        self._starts = np.cumsum([0, *map(len, self._shards)])[:-1]
        keys = np.concatenate([shard["text"] for shard in self._shards])
        self._order = np.argsort(keys)
        self._keys = keys[self._order]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        found = np.empty((len(texts), NUM_PERMUTATIONS), dtype=np.uint8)
        keys = text_keys(texts)
        places = np.searchsorted(self._keys, keys)
        known = places < len(self._keys)
        known[known] = self._keys[places[known]] == keys[known]
        for number, row in zip(np.flatnonzero(known), self._order[places[known]], strict=True):
            shard = int(np.searchsorted(self._starts, row, side="right")) - 1
            found[number] = self._shards[shard][SCHEME][row - self._starts[shard]]
        if unknown := [text for text, is_known in zip(texts, known, strict=True) if not is_known]:
            found[~known] = sign(unknown)
        return found


def _load(path: Path) -> np.ndarray:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a file of signatures: {error}") from None
    if rows.dtype != _ROW:
        raise UserError(f"{path}: signatures of another scheme than {SCHEME}; make them again with this version")
    return rows
