"""A taxonomy as in GLAN (arXiv 2402.13064): discipline, subject, session, key concepts; a teacher fills gaps."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from slmkit import checked_files
from slmkit.chat_client import AnswerError, ChatClient

LANGUAGES = ("en", "ja", "ko")


class _Strict(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True, extra="forbid")


class Concept(_Strict):
    concept: str = Field(min_length=1)
    description: str = ""


class Session(_Strict):
    session: str = Field(min_length=1)
    key_concepts: list[Concept] = Field(min_length=1)


class Subject(_Strict):
    subject: str = Field(min_length=1)
    description: str = ""
    sessions: list[Session] = []


class Discipline(_Strict):
    discipline: str = Field(min_length=1)
    language: Literal[LANGUAGES]
    description: str = ""
    subjects: list[Subject] = []


class Taxonomy(_Strict):
    disciplines: list[Discipline] = Field(min_length=1)


class Subjects(_Strict):
    """What a teacher says the subjects of a discipline are."""

    subjects: list[Concept] = Field(min_length=1, max_length=30)


class Syllabus(_Strict):
    sessions: list[Session] = Field(min_length=1, max_length=30)


@dataclass(frozen=True)
class Leaf:
    """A session: what questions are asked about."""

    discipline: str
    subject: str
    session: Session
    language: str

    @property
    def path(self) -> str:
        return " / ".join((self.discipline, self.subject, self.session.session))


def read_taxonomy(path: Path) -> Taxonomy:
    """The taxonomy of a YAML file; ``UserError`` with the line of what is wrong in it."""
    hint = (
        "a taxonomy holds disciplines, each with a language and subjects, those with sessions, those with key_concepts"
    )
    return checked_files.load(path, Taxonomy, hint)


def gaps(taxonomy: Taxonomy) -> Iterator[str]:
    """What only a model could fill in, or could not be answered without one."""
    for discipline in taxonomy.disciplines:
        if not discipline.subjects:
            yield f"discipline {discipline.discipline!r} has no subjects"
        for subject in discipline.subjects:
            if not subject.sessions:
                yield f"subject {subject.subject!r} has no sessions"
            for session in subject.sessions:
                for concept in session.key_concepts:
                    if not concept.description:
                        yield f"key concept {concept.concept!r} has no description"


def given_leaves(taxonomy: Taxonomy) -> list[Leaf]:
    """The sessions that stand in the file."""
    return [
        Leaf(discipline.discipline, subject.subject, session, discipline.language)
        for discipline in taxonomy.disciplines
        for subject in discipline.subjects
        for session in subject.sessions
    ]


async def leaves(
    client: ChatClient, taxonomy: Taxonomy, prompts: dict, seed: int, failed: Callable[[str, str], None]
) -> AsyncIterator[Leaf]:
    """All sessions; subjects and syllabi that the file leaves out are asked for first."""

    async def subjects_of(discipline: Discipline) -> list[Subject]:
        if discipline.subjects:
            return discipline.subjects
        material = {"discipline": discipline.discipline, "description": discipline.description}
        _, found = await client.complete_structured(
            _messages(prompts["subjects"], discipline.language, material), Subjects, seed=seed
        )
        return [Subject(subject=row.concept, description=row.description) for row in found.subjects] if found else []

    async def sessions_of(pair: tuple[Discipline, Subject]) -> list[Session]:
        discipline, subject = pair
        if subject.sessions:
            return subject.sessions
        material = {"discipline": discipline.discipline, **subject.model_dump(exclude={"sessions"})}
        _, found = await client.complete_structured(
            _messages(prompts["syllabus"], discipline.language, material), Syllabus, seed=seed
        )
        return found.sessions if found else []

    pairs = []
    async for discipline, found in client.each(taxonomy.disciplines, subjects_of):
        if isinstance(found, AnswerError) or not found:
            failed(discipline.discipline, str(found or "the teacher gave no subjects"))
        else:
            pairs += [(discipline, subject) for subject in found]
    async for (discipline, subject), found in client.each(pairs, sessions_of):
        if isinstance(found, AnswerError) or not found:
            failed(f"{discipline.discipline} / {subject.subject}", str(found or "the teacher gave no sessions"))
            continue
        for session in found:
            yield Leaf(discipline.discipline, subject.subject, session, discipline.language)


def _messages(prompt: dict[str, str], language: str, material: dict) -> list[dict[str, str]]:
    user = json.dumps({"language": language, **material}, ensure_ascii=False)
    return [{"role": "system", "content": prompt[language]}, {"role": "user", "content": user}]
