"""Ask the teacher about chunks, and about some of them again, as long as the budget lasts."""

import asyncio
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from seed_chats import Pair, Pairs, SeedChats

from slmkit.answers import Answer
from slmkit.chat_client import AnswerError, ChatClient
from slmkit.document_chunks import Chunk

PROMPTS = yaml.safe_load(Path(__file__).with_name("prompts.yml").read_text(encoding="utf-8"))
LANGUAGES = frozenset(PROMPTS["system"])
_GOLDEN_RATIO = (5**0.5 - 1) / 2


def spread(chunks: Iterable[Chunk]) -> list[Chunk]:
    """The chunks in an order of which every beginning is spread evenly over the source."""
    chunks = list(chunks)
    return [chunks[i] for i in sorted(range(len(chunks)), key=lambda i: i * _GOLDEN_RATIO % 1)]


class Budget:
    """Tokens and money, those of answers from before a kill included; says when the next question goes beyond."""

    def __init__(self, client: ChatClient, max_total_tokens: int | None, max_cost: float | None) -> None:
        self._usage = client.usage
        self._max_total_tokens, self._max_cost = max_total_tokens, max_cost
        self._kept = [0, 0]  # prompt and completion tokens of answers from before
        self._num_answers = self._num_under_way = 0
        self.used_up = False

    def spent(self) -> tuple[float, float]:
        """Prompt and completion tokens."""
        return self._usage.prompt_tokens + self._kept[0], self._usage.completion_tokens + self._kept[1]

    def start(self, messages: list[dict[str, str]]) -> bool:
        """Whether one more question fits, as large as those answered so far; to be ended by ``end``."""
        prompt, completion = self.spent()
        if self._num_answers:
            mean = prompt / self._num_answers, completion / self._num_answers
        else:
            mean = sum(len(message["content"]) for message in messages) / 2, 0.0
        ahead = self._num_under_way + 1
        prompt, completion = prompt + ahead * mean[0], completion + ahead * mean[1]
        cost = self._usage.cost(prompt, completion)
        if self._max_total_tokens is not None and prompt + completion > self._max_total_tokens:
            self.used_up = True
        if self._max_cost is not None and cost is not None and cost > self._max_cost:
            self.used_up = True
        self._num_under_way += not self.used_up
        return not self.used_up

    def end(self, answer: Answer | None) -> None:
        self._num_under_way -= 1
        self._num_answers += 1
        if answer and answer.cached:
            self._kept[0] += answer.prompt_tokens
            self._kept[1] += answer.completion_tokens

    def summary(self) -> dict[str, float | bool | None]:
        prompt, completion = self.spent()
        return {
            "used_up": self.used_up,
            "total_tokens": prompt + completion,
            "cost": self._usage.cost(prompt, completion),
            "max_total_tokens": self._max_total_tokens,
            "max_cost": self._max_cost,
        }


class TeacherPasses:
    """Keeps, for each chunk asked about, what came of it: the name of an outcome and the reason."""

    def __init__(
        self, client: ChatClient, budget: Budget, seeds: SeedChats, parameters: Mapping[str, object], seed: int
    ) -> None:
        self.outcomes: dict[Chunk, tuple[str, str]] = {}
        self._client, self._budget, self._seeds = client, budget, seeds
        self._parameters, self._seed = parameters, seed
        self._slots = asyncio.Semaphore(client.concurrency)

    async def ask(self, chunks: list[Chunk], again: int = 0) -> list[tuple[Chunk, Pair]]:
        """Ask about each chunk, for the ``again``-th time again, while the budget lasts; gives the good new pairs."""
        new: list[tuple[Chunk, Pair]] = []
        async for chunk, result in self._client.each(chunks, functools.partial(self._ask, again=again)):
            if result is None:
                continue
            taken: list[Pair] = []
            if isinstance(result, AnswerError):
                outcome = "failed", str(result)
            elif result[1] is None:
                outcome = "filtered", "the teacher or its content filter refused"
            elif not result[1].pairs:
                outcome = "without_pairs", "the teacher found nothing to ask"
            elif taken := self._seeds.take(chunk, result[1].pairs):
                outcome = "with_chats", ""
            else:
                outcome = "with_refused_pairs_only", ""
            if taken or not self._seeds.kept.get(chunk):  # what came of it before is not undone
                self.outcomes[chunk] = outcome
            new += [(chunk, pair) for pair in taken]
        return new

    async def _ask(self, chunk: Chunk, again: int) -> tuple[Answer, Pairs | None] | None:
        messages = self._prompt(chunk, again)
        async with self._slots:
            if not self._budget.start(messages):
                return None
            answer = None
            try:
                answer, pairs = await self._client.complete_structured(messages, Pairs, seed=self._seed + again)
                return answer, pairs
            finally:
                self._budget.end(answer)

    def _prompt(self, chunk: Chunk, again: int) -> list[dict[str, str]]:
        system, user = PROMPTS["system"][chunk.language], PROMPTS["user"]
        user = user.format(title=chunk.title, text=chunk.text, language=chunk.language, **self._parameters)
        if again:
            system += PROMPTS["again"][chunk.language]
            asked = [" ".join(pair.text().split()) for pair in self._seeds.kept.get(chunk, [])]
            user += PROMPTS["already_asked"].format(asked="\n".join(asked))
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]
