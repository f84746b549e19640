"""Embeddings of texts without a model: hashed character n-grams, the same for every language, and their neighbours."""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

NUM_FEATURES = 2**15
_NGRAMS = (2, 3, 4)
_BLOCK_CHARS = 2**20  # of texts embedded at a time
_BLOCK = 1024  # rows of similarities held at a time


def embed(texts: Sequence[str]) -> "csr_matrix":
    """(n, NUM_FEATURES) float32 with rows of length 1: signed hashes of the 2- to 4-grams within words.

    Characters are compatible-folded (NFKC) and lower-cased first, a word is what stands between white space, with a
    space on both sides (as ``char_wb`` of scikit-learn has it). A Japanese text has no words: its n-grams run through.
    A row without any n-gram is zero. Counts are damped (1 + log), so that a repeated word does not dominate.
    """
    import numpy as np
    from scipy.sparse import csr_matrix, vstack

    blocks, block, num_chars = [], [], 0
    for text in texts:
        block.append(" ".join(unicodedata.normalize("NFKC", text).casefold().split()))
        num_chars += len(block[-1])
        if num_chars > _BLOCK_CHARS:
            blocks.append(_embed(block))
            block, num_chars = [], 0
    if block or not blocks:
        blocks.append(_embed(block))
    return vstack(blocks, format="csr", dtype=np.float32) if len(blocks) > 1 else csr_matrix(blocks[0])


def _embed(texts: Sequence[str]) -> "csr_matrix":
    """The rows of texts whose words are separated by one space."""
    import numpy as np
    from scipy.sparse import csr_matrix

    # Every word between its own two spaces, every text after the other; a gram that holds " " inside spans two words.
    padded = "".join(f" {text.replace(' ', '  ')} " for text in texts)
    codes = np.frombuffer(padded.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    lengths = np.fromiter((len(text) + text.count(" ") + 2 for text in texts), np.int64, len(texts))
    row_of = np.repeat(np.arange(len(texts)), lengths)
    is_space = codes == ord(" ")
    keys, signs = [], []
    hashes = codes
    crosses = np.zeros(len(codes), dtype=bool)
    for n in range(2, _NGRAMS[-1] + 1):
        # The hash of the n characters from each place, from that of n - 1.
        hashes = hashes[:-1] * np.uint64(0x9E3779B97F4A7C15) + codes[n - 1 :] + np.uint64(n)
        hashes ^= hashes >> np.uint64(29)
        inner = is_space[n - 2 : -1] & is_space[n - 1 :]  # two spaces in a row: the end of a word or of a text
        crosses = crosses[: len(hashes)] | inner[: len(hashes)]
        if n in _NGRAMS:
            whole = ~crosses
            mixed = hashes[whole] * np.uint64(0xBF58476D1CE4E5B9)
            keys.append(row_of[: len(hashes)][whole] * NUM_FEATURES + (mixed >> np.uint64(49)).astype(np.int64))
            signs.append(1.0 - 2.0 * ((mixed >> np.uint64(48)) & np.uint64(1)).astype(np.float32))
    cells, cell_of = np.unique(np.concatenate(keys), return_inverse=True)
    counts = np.bincount(cell_of, weights=np.concatenate(signs), minlength=len(cells))
    values = (np.sign(counts) * (1 + np.log(np.maximum(np.abs(counts), 1)))).astype(np.float32)
    rows, columns = np.divmod(cells, NUM_FEATURES)
    return unit_rows(csr_matrix((values, (rows, columns)), shape=(len(texts), NUM_FEATURES)))


def unit_rows(rows: "csr_matrix") -> "csr_matrix":
    """The rows divided by their lengths; a row of zeros stays one."""
    import numpy as np
    from scipy.sparse import csr_matrix

    row_of = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    lengths = np.sqrt(np.bincount(row_of, weights=rows.data.astype(np.float64) ** 2, minlength=rows.shape[0]))
    data = rows.data / np.where(lengths > 0, lengths, 1)[row_of]
    return csr_matrix((data.astype(rows.dtype), rows.indices, rows.indptr), shape=rows.shape)


def nearest(queries: "csr_matrix", references: "csr_matrix", k: int) -> tuple["np.ndarray", "np.ndarray"]:
    """For each query the cosine similarities (n, k), falling, and the indices (n, k) of its nearest references.

    Memory stays at a block of queries times all references.
    """
    import numpy as np

    if not 1 <= k <= references.shape[0]:
        raise ValueError(f"k={k} neighbours of {references.shape[0]} references")
    similarities = np.empty((queries.shape[0], k), dtype=np.float32)
    indices = np.empty((queries.shape[0], k), dtype=np.int64)
    columns = references.T.tocsr()
    for start in range(0, queries.shape[0], _BLOCK):
        block = (queries[start : start + _BLOCK] @ columns).toarray()
        top = np.argpartition(-block, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(block, top, axis=1), axis=1, kind="stable")
        indices[start : start + _BLOCK] = top = np.take_along_axis(top, order, axis=1)
        similarities[start : start + _BLOCK] = np.take_along_axis(block, top, axis=1)
    return similarities, indices
