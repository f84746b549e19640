"""Redacts the chosen fields of records, and refuses each record that cannot be examined."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import name_recognizers
import redaction_key
from name_recognizers import NamedDetector, Text

from pii_detection import ENTITY_TYPES, Detector, LeftOverError, Redactor
from slmkit import records, textstats
from slmkit.errors import UserError

Write = Callable[[dict[str, Any]], None]
Located = tuple[records.Record, str, int]
_BATCH = 20  # records whose texts a name recognizer is given together
_NOT_TEXT = frozenset(("role", "type", "id", "tool_call_id"))  # within a field, such as in messages


class Settings(Protocol):
    """The inputs that the command component and the parallel one share."""

    action: str
    fields: str
    entity_types: str
    regions: str
    name_recognizer: str
    spacy_models: str
    language_endpoint: str | None
    key_secret_url: str | None


@dataclass
class Tally:
    """What the report says, in numbers that add up over shards."""

    records: Counter[str] = field(default_factory=Counter)  # read, changed, dropped, refused
    findings: Counter[str] = field(default_factory=Counter)  # by "type language"
    reasons: Counter[str] = field(default_factory=Counter)  # of refusals
    not_examined: Counter[str] = field(default_factory=Counter)  # fields with text that were not asked for
    without_names: Counter[str] = field(default_factory=Counter)  # records in languages without a name recognizer


class RecordRedactor:
    """What the settings ask for; ``UserError`` from the start when any part of it cannot work."""

    def __init__(self, settings: Settings) -> None:
        self.action = settings.action
        self.fields = names(settings.fields)
        if not self.fields:
            raise UserError("fields is empty: name at least one, such as text")
        kinds = ENTITY_TYPES if settings.entity_types.strip() == "all" else names(settings.entity_types)
        try:
            detector = Detector(kinds, names(settings.regions))
        except ValueError as error:
            raise UserError(f"entity_types or regions: {error}") from None
        self.entity_types = detector.entity_types
        recognizer = name_recognizers.load(settings.name_recognizer, settings.spacy_models, settings.language_endpoint)
        self._named = NamedDetector(detector, recognizer) if recognizer else None
        self._languages = recognizer.languages if recognizer else frozenset()
        self.key = redaction_key.load(settings.key_secret_url)
        self._redactor = Redactor(self._named or detector, settings.action, self.key.value)

    def redact(self, source: Path, write: Write, note: Write, refuse: Write) -> Tally:
        """Write the redacted records of ``source``, note each finding, and refuse what cannot be examined."""
        tally = Tally()

        def refuse_for(reason: str, record_id: Any, file: str, line: int) -> None:
            tally.records.update(("read", "refused"))
            tally.reasons[reason] += 1
            refuse({"id": record_id, "source": file, "line": line, "reason": reason})

        located = records.read_located(source, lambda bad: refuse_for(bad.reason, None, bad.source, bad.line))
        while batch := list(islice(located, _BATCH)):
            recognized = self._recognized([record for record, _, _ in batch])
            for record, file, line in batch:
                try:
                    if not recognized:
                        self._named.recognize(list(self._texts(record)))
                    new, findings = self._redacted(record)
                except UserError:
                    raise
                except (_NotExaminedError, LeftOverError) as error:
                    refuse_for(str(error), record.get("id"), file, line)
                    continue
                except Exception as error:  # whatever a recognizer raises; its message may quote the text
                    refuse_for(f"{type(error).__name__} while it was examined", record.get("id"), file, line)
                    continue
                self._count(tally, record, new, findings)
                for finding in findings:
                    note({"id": record.get("id"), "source": file, "line": line, **finding})
                if new is not None:
                    write(new)
        return tally

    def _recognized(self, batch: list[records.Record]) -> bool:
        """Whether the names in all the records were found; else each record is tried by itself."""
        if self._named is None:
            return True
        try:
            self._named.recognize([text for record in batch for text in self._texts(record)])
        except UserError:
            raise
        except Exception:
            return False
        return True

    def _texts(self, record: records.Record) -> Iterator[Text]:
        language = language_of(record)
        found: list[str] = []
        for name in self.fields:
            _changed(record.get(name), name, lambda where, text: found.append(text) or text)
        return ((text, language) for text in found)

    def _redacted(self, record: records.Record) -> tuple[records.Record | None, list[dict[str, Any]]]:
        """The record without what was found in it, or None when it is to be dropped; and what was found."""
        if not any(name in record for name in self.fields):
            raise _NotExaminedError(f"none of the fields {', '.join(self.fields)} is in it")
        noted: list[dict[str, Any]] = []

        def change(where: str, text: str) -> str:
            new, findings = self._redactor.redact(text)
            noted.extend(
                {
                    "field": where,
                    "entity_type": finding.entity_type,
                    "start": finding.start,
                    "end": finding.end,
                    "hash": self._redactor.hash(text[finding.start : finding.end], finding.entity_type),
                }
                for finding in findings
            )
            return text if new is None else new

        new = {name: _changed(value, name, change) if name in self.fields else value for name, value in record.items()}
        return (None if noted and self.action == "drop" else new), noted

    def _count(self, tally: Tally, record: records.Record, new: records.Record | None, findings: list) -> None:
        language = language_of(record) if findings or self._named else ""
        tally.records["read"] += 1
        tally.records["dropped"] += new is None
        tally.records["changed"] += new is not None and bool(findings)
        tally.findings.update(f"{finding['entity_type']} {language}" for finding in findings)
        tally.not_examined.update(
            name
            for name, value in record.items()
            if name not in self.fields and not isinstance(value, int | float | None)
        )
        if self._named and language not in self._languages:
            tally.without_names[language] += 1


class _NotExaminedError(Exception):
    pass


def names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def language_of(record: records.Record) -> str:
    if isinstance(record.get("language"), str):
        return record["language"]
    texts: list[str] = []
    for name, value in record.items():
        _changed(value, name, lambda where, text: texts.append(text) or text)
    return textstats.language("\n".join(texts)[:2000])


def _changed(value: Any, where: str, change: Callable[[str, str], str]) -> Any:
    """``value`` with all text in it changed; ``where`` says the way to it, such as messages[0].content."""
    if isinstance(value, str):
        return change(where, value)
    if isinstance(value, list):
        return [_changed(item, f"{where}[{place}]", change) for place, item in enumerate(value)]
    if isinstance(value, dict):
        return {
            name: item if name in _NOT_TEXT else _changed(item, f"{where}.{name}", change)
            for name, item in value.items()
        }
    return value
