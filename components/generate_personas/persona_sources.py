"""What personas are made from: a sample of the documents, and the scenarios of a YAML file."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from slmkit import checked_files, records, textstats

LANGUAGES = ("en", "ja", "ko")


@dataclass(frozen=True)
class Source:
    origin: str  # text, scenario or persona
    language: str
    material: dict  # as the teacher sees it
    source_ids: tuple[str, ...]
    parent_id: str | None = None


class _Strict(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True, extra="forbid")


class Scenario(_Strict):
    name: str = Field(min_length=1)
    language: Literal[LANGUAGES]
    description: str = Field(min_length=1)
    roles: list[str] = []
    topics: list[str] = []


class _Subject(BaseModel):  # of a taxonomy for synthesize_chats, which checks the rest
    subject: str = Field(min_length=1)
    description: str = ""
    sessions: list[dict] = []


class _Discipline(BaseModel):
    discipline: str = Field(min_length=1)
    language: Literal[LANGUAGES]
    description: str = ""
    subjects: list[_Subject] = []


class _ScenarioFile(_Strict):
    scenarios: list[Scenario] = []
    disciplines: list[_Discipline] = []

    @model_validator(mode="after")
    def holds_something(self) -> "_ScenarioFile":
        if not self.scenarios and not self.disciplines:
            raise ValueError("neither scenarios nor disciplines")
        return self


def sample_documents(
    path: Path, num_texts: int, text_chars: int, seed: int, counts: Counter[str], refuse: Callable[[dict], None]
) -> list[Source]:
    """Up to ``num_texts`` of the documents, each as likely, in one pass; what cannot be used is counted and refused."""
    choice = random.Random(seed)
    chosen: list[tuple[int, Source]] = []

    def refuse_document(reason: str, source: str, line: int, text: str) -> None:
        counts["documents"] += 1
        counts["documents_refused"] += 1
        refuse({"reason": reason, "source": source, "line": line, "text": text})

    def refuse_line(line: records.Refused) -> None:
        refuse_document(line.reason, line.source, line.line, line.text)

    for document, source, line in records.read_located(path, refuse_line):
        if not all(isinstance(document.get(name), str) and document[name].strip() for name in ("id", "text")):
            refuse_document("a document needs an id and a text", source, line, str(document)[:200])
            continue
        counts["documents"] += 1
        language = textstats.language(document["text"])
        if language not in LANGUAGES:
            counts["documents_in_other_languages"] += 1
            continue
        seen = counts["documents"] - counts["documents_refused"] - counts["documents_in_other_languages"]
        place = len(chosen) if len(chosen) < num_texts else choice.randrange(seen)
        if place < num_texts:
            material = {"title": str(document.get("title") or ""), "text": document["text"][:text_chars]}
            chosen[place : place + 1] = [(seen, Source("text", language, material, (document["id"],)))]
    return [source for _, source in sorted(chosen, key=lambda item: item[0])]


def read_scenarios(path: Path) -> list[Source]:
    """The scenarios of the file; of a taxonomy, each subject is one."""
    hint = "a scenario file holds scenarios, a list of name, language, description, roles and topics"
    found = checked_files.load(path, _ScenarioFile, hint)
    return [
        Source("scenario", scenario.language, scenario.model_dump(exclude={"language"}), (f"scenario:{scenario.name}",))
        for scenario in [*found.scenarios, *_subjects(found.disciplines)]
    ]


def _subjects(disciplines: list[_Discipline]) -> Iterator[Scenario]:
    for discipline in disciplines:
        for subject in discipline.subjects or [_Subject(subject=discipline.discipline)]:
            topics = [str(session["session"]) for session in subject.sessions if session.get("session")]
            description = subject.description or discipline.description or subject.subject
            yield Scenario(
                name=subject.subject, language=discipline.language, description=description, topics=topics or []
            )


def of_persona(persona: dict) -> Source:
    """What a persona that was found says about those close to it."""
    material = {name: persona[name] for name in ("persona", "characteristics", "behavior")}
    return Source("persona", persona["language"], material, tuple(persona["source_ids"]), persona["id"])
