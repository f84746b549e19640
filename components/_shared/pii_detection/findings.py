"""What is found: which characters of a text are what kind of personal data."""

from collections.abc import Iterable
from typing import NamedTuple

ENTITY_TYPES = (
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "IBAN_CODE",
    "IP_ADDRESS",
    "URL_CREDENTIALS",
    "API_KEY",
    "JP_MY_NUMBER",
    "JP_PASSPORT",
    "JP_DRIVER_LICENSE",
    "KR_RRN",
    "KR_FRN",
    "KR_BRN",
    "US_SSN",
)


class Finding(NamedTuple):
    """``text[start:end]`` is of ``entity_type``; ``score`` grows from 0 to 1 with what speaks for it."""

    start: int
    end: int
    entity_type: str
    score: float


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Sorted and free of overlaps: what overlaps becomes one, named as the most certain, then longest, part of it."""
    merged: list[Finding] = []
    best: list[tuple[float, int]] = []
    for finding in sorted(findings):
        rank = (finding.score, finding.end - finding.start)
        if merged and finding.start < merged[-1].end:
            last = merged[-1]
            winner, best[-1] = (finding, rank) if rank > best[-1] else (last, best[-1])
            merged[-1] = Finding(last.start, max(last.end, finding.end), winner.entity_type, winner.score)
        else:
            merged.append(finding)
            best.append(rank)
    return merged
