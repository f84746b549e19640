"""Private Evolution (Aug-PE, arXiv 2403.01749): public texts evolve by the noised votes of private records."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from slmkit import records, textstats
from slmkit.chat_client import AnswerError, ChatClient

PROMPTS = yaml.safe_load(Path(__file__).with_name("prompts.yml").read_text(encoding="utf-8"))
MAX_CHARS = 4000  # of a candidate

Topics = dict[str, dict]  # by language: scenario, topics
Candidate = tuple[str, str]  # language, text


@dataclass(frozen=True)
class Evolution:
    """What is public about a run."""

    topics: Topics
    num_texts: int
    num_variations: int
    selection: str
    vote_threshold: float
    max_error_fraction: float
    seed: int

    async def candidates(self, client: ChatClient, round_number: int, kept: Sequence[Candidate]) -> list[Candidate]:
        """Random texts at first; then the texts kept and variations of each. No text stands twice."""
        if not kept:
            num = self.num_texts * self.num_variations
            prompts = [self._random_prompt(number) for number in range(num)]
        else:
            prompts = [self._variation_prompt(*text) for text in kept for _ in range(self.num_variations - 1)]
        written = await self._ask(client, prompts, first_seed=(self.seed * 1000 + round_number) * 1_000_000)
        return list(dict.fromkeys([*kept, *written]))

    def select(self, candidates: Sequence[Candidate], votes: Sequence[int], round_number: int) -> list[Candidate]:
        """The candidates of most votes, or drawn by their votes; equal ones in an order of the seed."""
        rng = np.random.default_rng([self.seed, round_number])
        weights = np.maximum(np.asarray(votes, dtype=float) - self.vote_threshold, 0)
        ties = rng.random(len(weights))
        # The largest u^(1/w) are a sample without replacement by weight (Efraimidis and Spirakis 2006).
        drawn = (
            weights
            if self.selection == "rank"
            else np.where(weights > 0, np.log(ties) / np.maximum(weights, 1e-9), -np.inf)
        )
        order = np.lexsort((ties, -drawn))
        return [candidates[index] for index in order[: self.num_texts]]

    def _random_prompt(self, number: int) -> tuple[str, list[dict]]:
        language = list(self.topics)[number % len(self.topics)]
        topics = self.topics[language]["topics"]
        topic = random.Random(f"{self.seed}/{number}").choice(topics)
        return language, self._messages("random", language, topic, "")

    def _variation_prompt(self, language: str, text: str) -> tuple[str, list[dict]]:
        return language, self._messages("variation", language, "", text)

    def _messages(self, task: str, language: str, topic: str, text: str) -> list[dict]:
        system = PROMPTS[task][language].format(scenario=self.topics[language]["scenario"])
        user = PROMPTS["user"].format(task=task, language=language, topic=topic, text=text)
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]

    async def _ask(self, client: ChatClient, prompts: list[tuple[str, list[dict]]], first_seed: int) -> list[Candidate]:
        async def ask(item: tuple[int, tuple[str, list[dict]]]) -> str:
            number, (_, messages) = item
            return (await client.complete(messages, seed=(first_seed + number) % 2**31)).text

        written: list[Candidate] = []
        async for (_, (language, _)), text in client.each(enumerate(prompts), ask):
            if not isinstance(text, AnswerError) and is_usable(text, language):
                written.append((language, text.strip()[:MAX_CHARS]))
        records.check_share(len(prompts) - len(written), len(prompts), self.max_error_fraction, "texts of the teacher")
        return written


def is_usable(text: str, language: str) -> bool:
    return bool(text.strip()) and textstats.language(text) in (language, "und")
