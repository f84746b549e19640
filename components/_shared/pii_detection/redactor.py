"""Takes personal data out of a text: masked, hashed, or replaced by a stand-in."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import itemgetter

from pii_detection.detector import Detector
from pii_detection.findings import Finding, merge
from pii_detection.pseudonyms import Pseudonyms

ACTIONS = ("mask", "hash", "replace", "drop")
_MAX_PASSES = 4
_Span = tuple[int, int]


class LeftOverError(Exception):
    """Personal data are still found after the redaction: the text must not be used."""


class Redactor:
    """Redacts with ``action``; hashes and stand-ins of two redactors agree when their ``key`` does.

    ``drop`` gives None for a text in which something was found.
    """

    def __init__(self, detector: Detector, action: str, key: bytes = b"") -> None:
        if action not in ACTIONS:
            raise ValueError(f"action {action!r} is not one of {', '.join(ACTIONS)}")
        if action in ("hash", "replace") and not key:
            raise ValueError(f"action {action} needs a key")
        self._detector = detector
        self._action = action
        self._pseudonyms = Pseudonyms(key)

    def redact(self, text: str) -> tuple[str | None, list[Finding]]:
        """The text without what was found in it, and what was found, by its places in ``text``."""
        findings = self._detector.find(text)
        if not findings or self._action == "drop":
            return (None if findings else text), findings
        new, done, left = text, [], findings
        for _ in range(_MAX_PASSES):
            new, done = self._without(new, left, done)
            left = merge(_grown(finding, done) for finding in self._detector.find(new) if not _within(finding, done))
            if not left:
                return new, findings
        raise LeftOverError(f"{left[0].entity_type} is still found after {_MAX_PASSES} passes")

    def hash(self, value: str, entity_type: str) -> str:
        """The keyed hash by which a value can be told again, in 16 letters."""
        return self._pseudonyms.hash(value, entity_type)

    def _without(self, text: str, findings: list[Finding], done: list[_Span]) -> tuple[str, list[_Span]]:
        """The text with stand-ins for ``findings``, and where all stand-ins are in it, those of before as well."""
        edits = {(finding.start, finding.end): finding.entity_type for finding in findings}
        edits |= {span: "" for span in done if not _within(span, findings)}
        pieces, spans, length, place = [], [], 0, 0
        for (start, end), kind in sorted(edits.items()):
            old = text[start:end]
            new = self._stand_in(old, kind) if kind else old
            length += start - place
            spans.append((length, length + len(new)))
            pieces += (text[place:start], new)
            length += len(new)
            place = end
        return "".join(pieces) + text[place:], spans

    def _stand_in(self, value: str, entity_type: str) -> str:
        if self._action == "mask":
            return f"<{entity_type}>"
        if self._action == "hash":
            return f"<{entity_type}:{self._pseudonyms.hash(value, entity_type)}>"
        return self._pseudonyms.stand_in(value, entity_type)


def _within(inner: Sequence, spans: Sequence[Sequence]) -> bool:
    """Whether one of the sorted ``spans`` holds all of ``inner``; each begins with its start and its end."""
    index = bisect_right(spans, inner[0], key=itemgetter(0)) - 1
    return index >= 0 and inner[1] <= spans[index][1]


def _grown(finding: Finding, spans: Sequence[_Span]) -> Finding:
    """The finding with the whole of each stand-in that it touches."""
    touched = spans[
        bisect_right(spans, finding.start, key=itemgetter(1)) : bisect_left(spans, finding.end, key=itemgetter(0))
    ]
    if not touched:
        return finding
    return finding._replace(start=min(finding.start, touched[0][0]), end=max(finding.end, touched[-1][1]))
