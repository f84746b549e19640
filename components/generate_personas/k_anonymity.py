"""Generalize quasi-identifiers until each combination of them is shared by at least k personas, or refuse."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from slmkit.errors import UserError

_COARSE_AGE = {
    **{"under 18": "under 25", "18-24": "under 25", "25-34": "25-44", "35-44": "25-44"},
    **{"45-54": "45-64", "55-64": "45-64", "65 or over": "65 or over"},
}
_COARSE_OCCUPATION = {
    **dict.fromkeys(("management", "professional", "office", "service", "trade", "agriculture"), "in_paid_work"),
    **dict.fromkeys(("student", "unpaid_care", "retired", "not_working"), "not_in_paid_work"),
}
# Each level maps what the one before it left; an empty one leaves the value out.
LEVELS: dict[str, list[dict[str, str]]] = {
    "language": [],  # a persona without one is of no use
    "occupation_group": [_COARSE_OCCUPATION, {}],
    "age_band": [_COARSE_AGE, {}],
    "region": [{}],
    "experience": [{}],
}
_EXACT = {"occupation_group": "occupation", "region": "region"}  # what says more than the quasi-identifier does


@dataclass
class Anonymized:
    kept: list[dict]
    refused: list[dict]
    generalized: Counter[str] = field(default_factory=Counter)  # personas by quasi-identifier
    cells: Counter[tuple] = field(default_factory=Counter)  # of those kept


def parse_quasi_identifiers(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [name for name in names if name not in LEVELS]:
        raise UserError(f"quasi_identifiers: {unknown[0]!r} is not one of {', '.join(LEVELS)}")
    if not names or len(set(names)) < len(names):
        raise UserError("quasi_identifiers: name each once, and at least one; min_cell_size=1 turns them off")
    return names


def anonymize(personas: Sequence[dict], quasi_identifiers: Sequence[str], min_cell_size: int) -> Anonymized:
    """Coarsen the least important quasi-identifier of personas in small cells first; refuse those still in one.

    A persona whose sentence gives the exact value away is not coarsened in it: that would be for show.
    """
    rows = [{**persona, "characteristics": {**persona["characteristics"]}} for persona in personas]
    generalized: dict[str, set[int]] = {name: set() for name in quasi_identifiers}
    for name in reversed(quasi_identifiers):
        for level in LEVELS[name]:
            for position in _in_small_cells(rows, quasi_identifiers, min_cell_size):
                if _generalize(rows[position], name, level):
                    generalized[name].add(position)
    small = set(_in_small_cells(rows, quasi_identifiers, min_cell_size))
    kept = [row for position, row in enumerate(rows) if position not in small]
    return Anonymized(
        kept,
        [rows[position] for position in sorted(small)],
        Counter({name: len(positions - small) for name, positions in generalized.items()}),
        Counter(cell(row, quasi_identifiers) for row in kept),
    )


def cell(persona: dict, quasi_identifiers: Sequence[str]) -> tuple:
    return tuple(
        persona["language"] if name == "language" else persona["characteristics"][name] for name in quasi_identifiers
    )


def _in_small_cells(rows: Sequence[dict], quasi_identifiers: Sequence[str], min_cell_size: int) -> list[int]:
    cells = [cell(row, quasi_identifiers) for row in rows]
    sizes = Counter(cells)
    return [position for position, found in enumerate(cells) if sizes[found] < min_cell_size]


def _generalize(row: dict, name: str, level: dict[str, str]) -> bool:
    """Whether the value could be coarsened; the exact one goes with it."""
    values = row["characteristics"]
    exact = values.get(_EXACT.get(name, name))
    if values[name] is None or (exact and _plain(exact) in _plain(row["persona"])):
        return False
    coarser = level.get(values[name])
    changed = coarser != values[name]
    values[name] = coarser
    if name in _EXACT:
        values[_EXACT[name]] = None if name != _EXACT[name] else coarser
    return changed


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
