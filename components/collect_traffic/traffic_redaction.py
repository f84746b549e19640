"""Takes personal data and secrets out of a traffic record, in all of its texts."""

import functools
from typing import Any

from pii_detection import ENTITY_TYPES, Detector, Redactor
from slmkit.errors import UserError

_MAX_REMEMBERED, _MAX_REMEMBERED_LENGTH = 2048, 4096
_LONGEST = {"error": 300, "endpoint": 200, "deployment": 200, "model": 200, "finish_reason": 200}


class TrafficRedaction:
    """``num_findings`` counts what was found in the records so far."""

    def __init__(self, action: str, entity_types: str, regions: str) -> None:
        kinds = ENTITY_TYPES if entity_types.strip() == "all" else _names(entity_types)
        try:
            self._redactor = Redactor(Detector(kinds, _names(regions)), action)
        except ValueError as error:
            raise UserError(f"entity_types or regions: {error}") from None
        self.action, self.num_findings = action, 0
        # The same system prompt stands in each request, and clients ask again.
        self._remembered = functools.lru_cache(_MAX_REMEMBERED)(self._redacted)

    def redacted(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """The record without what was found in it; None where the action drops it.

        Raises whatever kept a text from being examined: the record must not be used then.
        """
        before = self.num_findings
        new = {
            **record,
            "messages": [{**message, "content": self._clean(message["content"])} for message in record["messages"]],
            "output": self._clean(record["output"]),
        }
        for name, length in _LONGEST.items():
            text = self._clean(record[name])
            new[name] = text and text[:length]  # cut afterwards: half a number would not be found
        return None if self.action == "drop" and self.num_findings > before else new

    def finds(self, text: str) -> bool:
        """Whether there is anything in it."""
        return self._remembered(text)[1] > 0

    def _clean(self, text: str | None) -> str | None:
        if not text:
            return text
        new, num = self._remembered(text) if len(text) <= _MAX_REMEMBERED_LENGTH else self._redacted(text)
        self.num_findings += num
        return new

    def _redacted(self, text: str) -> tuple[str | None, int]:
        new, findings = self._redactor.redact(text)
        return new, len(findings)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
