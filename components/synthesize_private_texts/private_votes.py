"""Private records vote for the candidates they are nearest to; the votes leave this module with noise only.

The noise is the Gaussian rounded to whole numbers. Since a count is a whole number, adding it is the same as rounding
the sum of count and Gaussian noise, so that every guarantee of the Gaussian mechanism holds (post-processing), and no
low bits of a floating-point number are released by which Mironov (2012) told counts apart. What is left of floating
point, 53 random bits a draw from the operating system, changes the probability of any set by less than 1e-15 a draw,
which is far below any useful delta. The discrete Gaussian would need an accounting of its own.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from slmkit import records, text_embedding
from slmkit.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

_SYSTEM = random.SystemRandom()


class Voters:
    """One vote each: a record, or a person, whose records vote together by their mean."""

    def __init__(self, private_documents: Path, person_field: str | None):
        texts, persons = [], []
        # Not even the place of a bad line is told: it says how many records there are.
        for record in records.read_records(private_documents, on_error=_refuse):
            texts.append(_text(record))
            persons.append(_person(record, person_field) if person_field else str(len(persons)))
        self._rows = _by_person(texts, persons)

    def noisy_votes(self, candidates: Sequence[str], sigma: float) -> list[int]:
        """The votes for each candidate, with noise; what they were without it is kept nowhere."""
        counts = _counts(self._rows, candidates)
        return [int(count) + rounded_gaussian(sigma) for count in counts]


def rounded_gaussian(sigma: float) -> int:
    return round(_SYSTEM.gauss(0.0, sigma))


def _counts(voters: "csr_matrix", candidates: Sequence[str]) -> "np.ndarray":
    import numpy as np

    if not voters.shape[0]:  # an empty corpus must look like any other
        return np.zeros(len(candidates), dtype=np.int64)
    _, nearest = text_embedding.nearest(voters, text_embedding.embed(candidates), 1)
    return np.bincount(nearest[:, 0], minlength=len(candidates))


def _by_person(texts: list[str], persons: list[str]) -> "csr_matrix":
    import numpy as np
    from scipy.sparse import csr_matrix

    numbers = {person: number for number, person in enumerate(dict.fromkeys(persons))}
    if not texts:
        return csr_matrix((0, text_embedding.NUM_FEATURES), dtype=np.float32)
    columns = np.arange(len(texts))
    owner = csr_matrix(
        (np.ones(len(texts), np.float32), ([numbers[person] for person in persons], columns)),
        shape=(len(numbers), len(texts)),
    )
    return text_embedding.unit_rows(owner @ text_embedding.embed(texts))


def _text(record: dict) -> str:
    messages = record.get("messages")
    if isinstance(messages, list):
        record = {"text": "\n".join(str(m.get("content", "")) for m in messages if isinstance(m, dict))}
    if not isinstance(record.get("text"), str):
        _refuse()
    return record["text"]


def _person(record: dict, person_field: str) -> str:
    if not isinstance(record.get(person_field), str | int):
        _refuse(f" or has no {person_field!r} (person_field)")
    return str(record[person_field])


def _refuse(_: object = "") -> NoReturn:
    why = _ if isinstance(_, str) else ""
    raise UserError(
        f"private_documents: a record cannot be read, has neither text nor messages{why}; which one is not said, since "
        "a log is not private: check the file where it is kept"
    )
