"""The conversations of two windows of traffic, each counted once, because what repeats is no further evidence."""

import unicodedata
from dataclasses import dataclass

import numpy as np

_KEY_CHARS = 4_000  # of a message; what is alike so far is taken for the same


@dataclass(frozen=True)
class Conversations:
    """One row of each conversation of either window, in random order."""

    rows: list[dict]
    labels: np.ndarray  # int8: -1 only in the baseline, 1 only in the current window, 0 the same in both

    @property
    def num_baseline(self) -> int:
        return int((self.labels <= 0).sum())

    @property
    def num_current(self) -> int:
        return int((self.labels >= 0).sum())


def distinct(baseline: list[dict], current: list[dict], num_rows: int, seed: int) -> Conversations:
    """The conversations of ``num_rows`` random rows a side; with more rows on one side it would hold more repeats."""
    rng = np.random.default_rng([seed, num_rows])
    before, now = (_by_key([rows[i] for i in rng.permutation(len(rows))[:num_rows]]) for rows in (baseline, current))
    rows = now | before  # of what is in both the baseline's row: its blocks of time are told by its rows
    labels = np.array([(key in now) - (key in before) for key in rows], dtype=np.int8)
    order = rng.permutation(len(rows))
    found = list(rows.values())
    return Conversations([found[i] for i in order], labels[order])


def question(row: dict) -> str:
    """What the user said last; of a request without a user, what was said last."""
    messages = row["messages"]
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), messages[-1]["content"])


def _by_key(rows: list[dict]) -> dict[tuple[str, ...], dict]:
    """The first row of each conversation, known by its first two questions: one alone may be a mere "hello".

    An opening that some other row goes on from is a part of that conversation.
    """
    found: dict[tuple[str, ...], dict] = {}
    for row in rows:
        asked = [m["content"] for m in row["messages"] if m["role"] == "user"][:2] or [question(row)]
        found.setdefault(tuple(map(_folded, asked)), row)
    openings = {key[:1] for key in found if len(key) > 1}
    return {key: row for key, row in found.items() if key not in openings}


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text[:_KEY_CHARS]).casefold().split())
