"""The questions asked so far, by context, to find those that are asked again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slmkit import text_embedding

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_MERGE_AT = 64


class SeenQuestions:
    """The same question about two contexts is two questions, so that only those of one context are compared."""

    def __init__(self) -> None:
        self._rows: dict[str, list[csr_matrix]] = {}

    def add_all(self, questions: Sequence[tuple[str, str]]) -> None:
        """Pairs of context and question."""
        rows = text_embedding.embed([question for _, question in questions]) if questions else []
        positions: dict[str, list[int]] = {}
        for position, (context, _) in enumerate(questions):
            positions.setdefault(context, []).append(position)
        for context, found in positions.items():
            self._rows.setdefault(context, []).append(rows[found])

    def add_if_new(self, context: str, question: str, max_similarity: float) -> bool:
        """Whether none of those seen is as similar; then it is seen from now on."""
        from scipy.sparse import vstack

        row = text_embedding.embed([question])
        blocks = self._rows.setdefault(context, [])
        if any((block @ row.T).max() >= max_similarity for block in blocks):
            return False
        blocks.append(row)
        if len(blocks) >= _MERGE_AT:
            blocks[:] = [vstack(blocks, format="csr")]
        return True
