"""Embeddings of texts without a model: hashed character n-grams, the same for every language, and their neighbours."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

NUM_FEATURES = 2**15
_BLOCK = 1024  # rows of similarities held at a time


def embed(texts: Sequence[str]) -> "csr_matrix":
    """(n, NUM_FEATURES) float32 with rows of length 1: signed hashes of the 2- to 4-grams within words.

    Characters are compatible-folded (NFKC) and lower-cased first. A Japanese text has no words: its n-grams run
    through. A row without any n-gram is zero. Counts are damped (1 + log), so that a repeated word does not dominate.
    """
    import unicodedata

    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    vectorizer = HashingVectorizer(
        analyzer="char_wb",
        ngram_range=(2, 4),
        n_features=NUM_FEATURES,
        norm=None,
        lowercase=False,
        preprocessor=lambda text: unicodedata.normalize("NFKC", text).casefold(),
        dtype=np.float32,
    )
    rows = vectorizer.transform(texts)
    rows.data = np.sign(rows.data) * (1 + np.log(np.maximum(np.abs(rows.data), 1)))
    return normalize(rows, copy=False)


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
