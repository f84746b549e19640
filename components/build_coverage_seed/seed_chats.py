"""The pairs that a teacher gave about each chunk, checked, and the chats made of them."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

from pair_checks import reason_to_refuse
from pydantic import BaseModel, ConfigDict, Field
from same_questions import same_fact

from slmkit import records
from slmkit.document_chunks import Chunk

QUESTION_TYPES = ("short", "boolean", "long", "summary", "conversation")
ABOUT_ONE_FACT = ("short", "boolean", "long")
MAX_FOLLOW_UPS = 2
Refuse = Callable[[dict], None]


class Turn(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)


class Pair(Turn):
    question_type: Literal[QUESTION_TYPES]
    follow_ups: list[Turn] = Field(default_factory=list)

    def turns(self) -> list[Turn]:
        return [self, *self.follow_ups] if self.question_type == "conversation" else [self]

    def text(self) -> str:
        """What is asked and answered, without the context."""
        return "\n".join(f"{turn.question} {turn.answer}" for turn in self.turns())


class Pairs(BaseModel):
    pairs: list[Pair]


class SeedChats:
    """Keeps the good pairs of each chunk and refuses the others with the reason."""

    def __init__(
        self,
        question_types: list[str],
        num_pairs_per_chunk: int,
        include_context: bool,
        counts: Counter[str],
        refuse: Refuse,
    ) -> None:
        self.kept: dict[Chunk, list[Pair]] = {}
        self.question_types = question_types
        self._num_pairs_per_chunk = num_pairs_per_chunk
        self._include_context = include_context
        self._counts = counts
        self._refuse = refuse
        self._seen: set[str] = set()

    def take(self, chunk: Chunk, pairs: list[Pair]) -> list[Pair]:
        """Check the pairs of one answer, keep the good ones and give them back."""
        before = self.kept.setdefault(chunk, [])
        taken: list[Pair] = []
        for position, pair in enumerate(pairs):
            self._counts["pairs"] += 1
            if position >= self._num_pairs_per_chunk:
                reason = "surplus"
            else:
                reason = self._reason_to_refuse(chunk, pair, before + taken)
            if reason:
                self._counts[f"pairs_{reason}"] += 1
                self._refuse(refused(chunk, reason) | pair.model_dump(exclude_defaults=True))
                continue
            self._seen.add(records.content_id(*self._asked(chunk, pair)))
            self._counts.update(["chats", f"chats_{chunk.language}", f"chats_{pair.question_type}"])
            taken.append(pair)
        before += taken
        return taken

    def chats(self, chunks: list[Chunk]) -> Iterator[dict]:
        """A chat for each pair, in the order of the chunks."""
        for chunk in chunks:
            for pair in self.kept.get(chunk, []):
                yield self._chat(chunk, pair)

    def _reason_to_refuse(self, chunk: Chunk, pair: Pair, others: list[Pair]) -> str | None:
        if pair.question_type not in self.question_types:
            return "type_not_asked_for"
        if pair.question_type == "conversation" and not 1 <= len(pair.follow_ups) <= MAX_FOLLOW_UPS:
            return "no_conversation"
        if records.content_id(*self._asked(chunk, pair)) in self._seen:
            return "duplicate"
        source = f"{chunk.title}\n{chunk.text}"
        for turn in pair.turns():
            if reason := reason_to_refuse(turn.question, turn.answer, pair.question_type, source, chunk.language):
                return reason
        if pair.question_type in ABOUT_ONE_FACT:
            facts = [(other.question, other.answer) for other in others if other.question_type in ABOUT_ONE_FACT]
            if any(same_fact((pair.question, pair.answer), fact) for fact in facts):
                return "near_duplicate"
        return None

    def _asked(self, chunk: Chunk, pair: Pair) -> list[str]:
        """The user's turns."""
        first, *others = (turn.question for turn in pair.turns())
        return [f"{chunk.text}\n\n{first}" if self._include_context else first, *others]

    def _chat(self, chunk: Chunk, pair: Pair) -> dict:
        messages = []
        for asked, turn in zip(self._asked(chunk, pair), pair.turns(), strict=True):
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": turn.answer}]
        return {
            "id": records.content_id(*(message["content"] for message in messages)),
            "messages": messages,
            "origin": "coverage_seed",
            "source_ids": [chunk.document_id],
            "language": chunk.language,
            "tags": {"question_type": pair.question_type},
        }


def refused(chunk: Chunk, reason: str) -> dict[str, object]:
    return {"reason": reason, "document_id": chunk.document_id, "chunk": chunk.position, "text": chunk.text}
