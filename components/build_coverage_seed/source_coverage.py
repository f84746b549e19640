"""How much of the source the seeds cover: k-NN coverage (Naeem et al. 2020) of its chunks, a number from 0 to 1.

A question is ten times shorter than a chunk, and their embeddings differ for that alone. So both are cut into passages
of one size. A passage's ball reaches to its k-th nearest passage in other chunks, copies left out, but not as far as
chance: half of a list of unrelated sentences tells how near that is, the other half checks it. A chunk is covered when
the ball of one of its passages holds a seed.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from slmkit import textstats
from slmkit.document_chunks import Chunk
from slmkit.text_embedding import embed, unit_rows

if TYPE_CHECKING:
    import numpy as np

PASSAGE_WIDTH = 100
MAX_PASSAGES = 10_000  # time grows with the square: the chunks beyond and their seeds are not measured
MIN_SIMILARITY_OF_COPIES = 0.95
CHANCE_QUANTILE = 0.9  # of the unrelated sentences; some may be related to a source after all
_EAST_ASIAN_WIDTH = 2.5  # a Japanese or Korean character says as much as so many Latin ones
_BLOCK = 256
UNRELATED = yaml.safe_load(Path(__file__).with_name("unrelated_sentences.yml").read_text(encoding="utf-8"))
Embed = Callable[[Sequence[str]], Awaitable[Any]]  # gives rows of length 1, dense or sparse


class NgramEmbedding:
    """``slmkit.text_embedding`` in which an n-gram weighs as much as it tells the passages of this source apart."""

    def __init__(self, passages: Sequence[str]) -> None:
        import numpy as np

        rows = embed(passages)
        frequency = np.bincount(rows.indices, minlength=rows.shape[1])
        weights = np.log((1 + rows.shape[0]) / (1 + frequency))
        self._weights = np.where(frequency > 0, weights, 0).astype(np.float32)  # "What is" matches nothing anyway

    async def __call__(self, texts: Sequence[str]) -> Any:
        from scipy.sparse import diags

        return unit_rows((embed(texts) @ diags(self._weights)).tocsr())


class SourceCoverage:
    """The passages of the chunks with their balls, and which of them the seeds added so far are in."""

    def __init__(self, chunks: Sequence[Chunk], num_neighbors: int, embed_by: Embed | None = None) -> None:
        """Take the chunks in their order, as many as can be measured; ``embed_by`` is an embedding other than ours."""
        self.chunks: list[Chunk] = []
        self.passages: list[str] = []
        self._first: list[int] = []  # passage of each chunk
        for chunk in chunks:
            parts = passages_of(chunk.text)
            if self.chunks and len(self.passages) + len(parts) > MAX_PASSAGES:
                break
            self._first.append(len(self.passages))
            self.chunks.append(chunk)
            self.passages += [part if chunk.title in part else f"{chunk.title} {part}" for part in parts]
        self._num_neighbors = num_neighbors
        self._embed = embed_by or NgramEmbedding(self.passages)

    async def prepare(self) -> None:
        """Measure the balls."""
        import numpy as np

        self._rows = await self._embed(self.passages)
        unrelated = await self._embed([sentence for sentences in UNRELATED.values() for sentence in sentences])
        chance = np.concatenate([block for _, block in _similarities(self._rows, unrelated)])
        owners = np.repeat(np.arange(len(self.chunks)), np.diff([*self._first, len(self.passages)]))
        floor = np.quantile(chance[:, ::2].max(axis=0), CHANCE_QUANTILE)
        radii = np.full(len(self.passages), floor, dtype=np.float32)
        k = self._num_neighbors
        for start, block in _similarities(self._rows, self._rows):
            own = owners[start : start + len(block), None] == owners[None, :]
            block[own | (block > MIN_SIMILARITY_OF_COPIES)] = -1
            if k <= block.shape[1]:
                kth = -np.partition(-block, k - 1, axis=1)[:, k - 1]
                radii[start : start + len(block)] = np.maximum(radii[start : start + len(block)], kth)
        self._radii = radii
        self._held = np.zeros(len(self.passages), dtype=bool)
        self.by_chance = float(self._of_chunks((chance[:, 1::2] >= radii[:, None]).any(axis=1)).mean())

    async def add(self, seeds: Sequence[tuple[Chunk, str]]) -> None:
        """Count what these seeds cover besides: questions with their answers, made of one of the measured chunks."""
        measured = set(self.chunks)
        passages = [passage for chunk, seed in seeds if chunk in measured for passage in passages_of(seed)]
        if not passages:
            return
        rows = await self._embed(passages)
        for start, block in _similarities(self._rows, rows):
            radii = self._radii[start : start + len(block), None]
            self._held[start : start + len(block)] |= (block >= radii).any(axis=1)

    def covered(self) -> "np.ndarray":
        """For each measured chunk whether it is covered."""
        return self._of_chunks(self._held)

    def uncovered(self) -> list[Chunk]:
        return [chunk for chunk, covered in zip(self.chunks, self.covered(), strict=True) if not covered]

    def share(self) -> float:
        return float(self.covered().mean())

    def summary(self) -> dict[str, float]:
        return {
            "coverage": self.share(),
            "passage_coverage": float(self._held.mean()),
            "coverage_by_unrelated_sentences": self.by_chance,
            "num_measured_chunks": len(self.chunks),
        }

    def _of_chunks(self, passages: "np.ndarray") -> "np.ndarray":
        import numpy as np

        return np.logical_or.reduceat(passages, self._first)


def passages_of(text: str) -> list[str]:
    """Sentences put together, or cut, to about the width of a passage."""
    passages: list[str] = []
    current = ""
    for sentence in textstats.sentences(text):
        for piece in _pieces(sentence):
            if current and _width(current) + _width(piece) > 1.2 * PASSAGE_WIDTH:
                passages.append(current)
                current = ""
            current = f"{current} {piece}".strip()
    return [*passages, current] if current or not passages else passages


def _pieces(sentence: str) -> Iterator[str]:
    while (width := _width(sentence)) > 2 * PASSAGE_WIDTH:
        size = max(1, int(len(sentence) * PASSAGE_WIDTH / width))
        yield sentence[:size]
        sentence = sentence[size:]
    yield sentence


def _width(text: str) -> float:
    return sum(1 if character < "\u2e80" else _EAST_ASIAN_WIDTH for character in text)


def _similarities(rows: Any, columns: Any) -> "Iterator[tuple[int, np.ndarray]]":
    """The cosines of a block of rows at a time with all columns, and the number of its first row."""
    import numpy as np

    turned = columns.T if isinstance(columns, np.ndarray) else columns.T.tocsr()
    for start in range(0, rows.shape[0], _BLOCK):
        block = rows[start : start + _BLOCK] @ turned
        yield start, np.asarray(block if isinstance(block, np.ndarray) else block.toarray())
