"""Rank passages for questions: BM25 over search terms, embeddings of an endpoint, or both fused by their ranks."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from retrieval_tokens import search_terms

from slmkit.embedding_endpoint import EmbeddingEndpoint

if TYPE_CHECKING:
    import numpy as np

_RANK_OFFSET = 60  # of reciprocal rank fusion, as its authors found it (Cormack et al., SIGIR 2009)
_FUSED_DEPTH = 50  # ranks of each side that fusion looks at
_BLOCK = 1024  # questions compared with all passages at a time


class Retriever(Protocol):
    async def rank(self, questions: Sequence[str], depth: int) -> list[list[int]]:
        """For each question the indices of at most `depth` passages, the best first; what has nothing in common with
        the question is not among them."""


class Bm25:
    """BM25 as Lucene computes it (k1 1.5, b 0.75); passages that score the same keep their order."""

    def __init__(self, texts: Sequence[str], terms: Callable[[str], list[str]] = search_terms) -> None:
        import bm25s

        self._terms = terms
        self._index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        self._index.index([terms(text) or [""] for text in texts], show_progress=False)

    async def rank(self, questions: Sequence[str], depth: int) -> list[list[int]]:
        return [self._best(self._terms(question), depth) for question in questions]

    def _best(self, terms: list[str], depth: int) -> list[int]:
        import numpy as np

        if not terms:
            return []
        scores = self._index.get_scores(terms)
        return _highest(scores, np.flatnonzero(scores > 0), depth)


class Embeddings:
    """Cosine similarity of what an embedding endpoint gives for passage and question."""

    def __init__(self, texts: Sequence[str], endpoint: EmbeddingEndpoint) -> None:
        self._texts, self._endpoint = texts, endpoint

    async def rank(self, questions: Sequence[str], depth: int) -> list[list[int]]:
        import numpy as np

        passages, wanted = await self._endpoint(self._texts), await self._endpoint(questions)
        every = np.arange(len(passages))
        found = []
        for start in range(0, len(wanted), _BLOCK):
            similarities = wanted[start : start + _BLOCK] @ passages.T
            found += [_highest(row, every, depth) for row in similarities]
        return found


class Hybrid:
    """Reciprocal rank fusion: no scale has to fit another."""

    def __init__(self, *retrievers: Retriever) -> None:
        self._retrievers = retrievers

    async def rank(self, questions: Sequence[str], depth: int) -> list[list[int]]:
        deep = max(depth, _FUSED_DEPTH)
        rankings = [await retriever.rank(questions, deep) for retriever in self._retrievers]
        return [fused(of_question)[:depth] for of_question in zip(*rankings, strict=True)]


def fused(rankings: Sequence[Sequence[int]]) -> list[int]:
    scores: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, index in enumerate(ranking, start=1):
            scores[index] += 1 / (_RANK_OFFSET + rank)
    return sorted(scores, key=lambda index: (-scores[index], index))


def _highest(scores: "np.ndarray", among: "np.ndarray", depth: int) -> list[int]:
    """The indices of the highest scores; of equal ones the earlier first, whatever numpy's partition does."""
    import numpy as np

    if len(among) > depth:
        last = np.partition(scores[among], -depth)[-depth]
        among = among[scores[among] >= last]
    return among[np.lexsort((among, -scores[among]))][:depth].tolist()
