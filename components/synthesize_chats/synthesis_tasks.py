"""What the teacher is asked in each mode: questions evolved from seeds, chats of personas, questions on a syllabus."""

import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from chat_inputs import Seed, Text, excerpts
from pydantic import BaseModel, ConfigDict, Field, field_validator
from taxonomy_tree import Leaf

MODES = ("taxonomy", "persona", "evolve")  # in this order: what one leaves over goes to the next, which can take more
OPERATIONS = ("add_constraint", "deepen", "concretize", "increase_reasoning", "complicate_input", "breadth")
MAX_QUESTIONS_PER_REQUEST = 10


class Exchange(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)

    @field_validator("question")
    @classmethod
    def one_paragraph(cls, question: str) -> str:
        """A blank line stands between a context and its question, and nowhere else."""
        return re.sub(r"\n\s*\n", "\n", question)


class Exchanges(BaseModel):
    exchanges: list[Exchange]


class Verdict(BaseModel):
    score: int = Field(ge=1, le=5)
    reason: str


@dataclass(frozen=True)
class Task:
    """One request and what its chats carry on."""

    mode: str
    operation: str
    language: str
    material: dict  # as the teacher sees it, beside mode, operation and language
    source_ids: tuple[str, ...]
    context: str = ""  # what answers are to be found in
    context_is_shown: bool = False
    parent_question: str = ""
    persona: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)
    num_exchanges: int = 1
    system: str = ""  # of the chat that comes out, from its seed

    @property
    def num_chats(self) -> int:
        """That the answer may give: on a syllabus each exchange is a chat."""
        return self.num_exchanges if self.mode == "taxonomy" else 1

    @property
    def made_from(self) -> str:
        return self.parent_question or self.persona.get("persona") or self.tags["taxonomy_path"]

    def messages(self, prompts: Mapping) -> list[dict[str, str]]:
        system = prompts[self.mode][self.language]
        if self.mode == "evolve":
            system = system.format(operation=prompts["operations"][self.operation][self.language])
        asked = {"mode": self.mode, "operation": self.operation, "language": self.language, **self.material}
        return [
            {"role": "system", "content": system + prompts["rules"][self.language]},
            {"role": "user", "content": json.dumps(asked, ensure_ascii=False)},
        ]

    def chats(self, exchanges: Sequence[Exchange]) -> Iterator[tuple[list[Exchange], bool]]:
        """The chats in an answer, and whether each was asked for."""
        if self.mode == "taxonomy":
            for position, exchange in enumerate(exchanges):
                yield [exchange], position < self.num_exchanges
            return
        yield list(exchanges[: self.num_exchanges]), True
        for exchange in exchanges[self.num_exchanges :]:
            yield [exchange], False


def evolve_tasks(seeds: Sequence[Seed], round_number: int) -> Iterator[Task]:
    """A mutation of each seed; the operations take turns."""
    for position, seed in enumerate(seeds):
        operation = OPERATIONS[(position + round_number) % len(OPERATIONS)]
        material: dict[str, object] = {"question": seed.question, "answer": seed.answer}
        if seed.context:
            material |= {"context": seed.context, "context_is_shown": seed.context_is_shown}
        yield Task(
            mode="evolve",
            operation=operation,
            language=seed.language,
            material=material,
            source_ids=seed.source_ids,
            context=seed.context,
            context_is_shown=seed.context_is_shown,
            parent_question=seed.question,
            tags={"parent_id": seed.id, "round": round_number + 1},
            system=seed.system,
        )


@dataclass(frozen=True)
class Subject:
    """What a persona may talk about; ``is_source`` when answers are to be found in it."""

    title: str
    text: str
    source_ids: tuple[str, ...]


def subjects_by_language(
    documents: Iterable[Text], seeds: Iterable[Seed], leaves: Iterable[Leaf], excerpt_chars: int, seed: int
) -> dict[str, list[Subject]]:
    """Excerpts of the documents; without these the contexts of the seeds; without these the concepts of the leaves."""
    found: dict[str, list[Subject]] = {}
    for text in documents:
        for part in excerpts(text.text, excerpt_chars):
            found.setdefault(text.language, []).append(Subject(text.title, part, (text.id,)))
    if not found:
        for row in {(row.language, row.context): row for row in seeds if row.context}.values():
            found.setdefault(row.language, []).append(Subject("", row.context, row.source_ids))
    if not found:
        for leaf in leaves:
            for concept in leaf.session.key_concepts:
                if concept.description:
                    subject = Subject(concept.concept, concept.description, (f"taxonomy:{leaf.path}",))
                    found.setdefault(leaf.language, []).append(subject)
    for subjects in found.values():
        random.Random(seed).shuffle(subjects)
    return found


def persona_tasks(
    personas: Sequence[dict],
    subjects: Mapping[str, Sequence[Subject]],
    num_chats_per_persona: int,
    num_turns: int,
    *,
    include_context: bool,
) -> Iterator[Task]:
    """Chats of each persona about what it comes from, or else about the next subject in its language."""
    own = {row.source_ids[0]: row for rows in subjects.values() for row in reversed(rows)}
    following = {language: itertools.cycle(rows) for language, rows in subjects.items()}
    for number in range(num_chats_per_persona):
        for persona in personas:
            language = persona["language"]
            subject = next((own[id] for id in persona["source_ids"] if number == 0 and id in own), None)
            if subject is None and language in following:
                subject = next(following[language])
            shown = {name: persona[name] for name in ("persona", "characteristics", "behavior")}
            material = {"persona": shown, "num_turns": num_turns}
            if subject:
                material |= {"title": subject.title, "context": subject.text}
            elif number:
                material["chat"] = number + 1  # another one on the persona's goals
            yield Task(
                mode="persona",
                operation="about_source" if subject else "about_goals",
                language=language,
                material=material,
                source_ids=subject.source_ids if subject else tuple(persona["source_ids"]) or (persona["id"],),
                context=subject.text if subject else "",
                context_is_shown=bool(subject) and include_context,
                persona=shown,
                tags={"persona_id": persona["id"]},
                num_exchanges=num_turns,
            )


def taxonomy_tasks(
    wanted: Iterable[tuple[Leaf, int]], asked_before: Mapping[str, list[str]], attempt: int
) -> Iterator[Task]:
    """For each leaf as many questions as it still needs."""
    for leaf, number in wanted:
        for start in range(0, number, MAX_QUESTIONS_PER_REQUEST):
            num_questions = min(MAX_QUESTIONS_PER_REQUEST, number - start)
            material = {
                "discipline": leaf.discipline,
                "subject": leaf.subject,
                **leaf.session.model_dump(),
                "num_questions": num_questions,
                "part": attempt * 100 + start // MAX_QUESTIONS_PER_REQUEST,
                "asked_before": asked_before.get(leaf.path, []),
            }
            yield Task(
                mode="taxonomy",
                operation="question",
                language=leaf.language,
                material=material,
                source_ids=(f"taxonomy:{leaf.path}",),
                tags={"taxonomy_path": leaf.path},
                num_exchanges=num_questions,
            )
