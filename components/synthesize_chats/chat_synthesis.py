"""Ask the teacher, check and judge what it gives, and write what is kept, mode by mode."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import chat_inputs
import synthesis_tasks
import taxonomy_tree
import yaml
from chat_checks import reason_to_refuse
from chat_inputs import Inputs
from seen_questions import SeenQuestions
from synthesis_tasks import Exchange, Exchanges, Task, Verdict
from taxonomy_tree import Taxonomy

from slmkit import records
from slmkit.chat_client import AnswerError, ChatClient

PROMPTS = yaml.safe_load(Path(__file__).with_name("prompts.yml").read_text(encoding="utf-8"))
MAX_ATTEMPTS_PER_LEAF = 3
NUM_EXAMPLES = 2
Write = Callable[[dict], None]


class Synthesis:
    """Asks, checks, judges and writes; counts as ``mode/outcome``."""

    def __init__(self, client: ChatClient, args: Any, counts: Counter[str], write: Write, refuse: Write) -> None:
        self.client, self.args, self.counts, self.write, self.refuse = client, args, counts, write, refuse
        self.seen = SeenQuestions()
        self.num_kept = self.num_tokens = 0
        self.leaves: dict[str, int] = {}  # chats of each leaf of the taxonomy
        self.examples: dict[str, list[tuple[str, list[dict]]]] = {}

    async def evolve(self, inputs: Inputs, quota: int) -> None:
        """Mutations of the seeds in a random order, then of what came out of the round before."""
        parents = random.Random(self.args.seed).sample(inputs.seeds, len(inputs.seeds))
        for round_number in range(self.args.num_evolve_rounds):
            share = -(-quota // (self.args.num_evolve_rounds - round_number))
            kept = await self.make(synthesis_tasks.evolve_tasks(parents, round_number), share)
            quota -= len(kept)
            parents = [chat_inputs.seed_of(chat, inputs.documents) for chat in kept]

    async def talk(self, inputs: Inputs, quota: int) -> None:
        described = taxonomy_tree.given_leaves(inputs.taxonomy) if inputs.taxonomy else []
        subjects = synthesis_tasks.subjects_by_language(
            inputs.documents.values(), inputs.seeds, described, self.args.excerpt_chars, self.args.seed
        )
        tasks = synthesis_tasks.persona_tasks(
            inputs.personas,
            subjects,
            self.args.num_chats_per_persona,
            self.args.num_turns,
            include_context=self.args.include_context,
        )
        await self.make(tasks, quota)

    async def teach(self, taxonomy: Taxonomy, quota: int) -> None:
        """Ask about each leaf until it has its minimum, a few times at most."""

        def failed(path: str, reason: str) -> None:
            self.counts.update(["taxonomy/asked", "taxonomy/failed"])
            self.refuse({"reason": reason, "mode": "taxonomy", "taxonomy_path": path})

        leaves = [leaf async for leaf in taxonomy_tree.leaves(self.client, taxonomy, PROMPTS, self.args.seed, failed)]
        asked: dict[str, list[str]] = {leaf.path: [] for leaf in leaves}
        for attempt in range(MAX_ATTEMPTS_PER_LEAF):
            wanted = [(leaf, self.args.min_chats_per_leaf - len(asked[leaf.path])) for leaf in leaves]
            for chat in await self.make(synthesis_tasks.taxonomy_tasks(wanted, asked, attempt), quota):
                asked[chat["tags"]["taxonomy_path"]].append(chat["messages"][0]["content"])
                quota -= 1
        self.leaves = {path: len(questions) for path, questions in asked.items()}

    async def make(self, tasks: Iterable[Task], quota: int) -> list[dict]:
        """The chats kept, up to ``quota``; asked for are only as many as are still missing."""
        tasks, kept, num_asked = iter(tasks), [], 1
        while num_asked and len(kept) < quota:
            num_asked = 0
            async for task, result in self.client.each(self.affordable(tasks, quota - len(kept)), self.ask):
                num_asked += 1
                self.counts[f"{task.mode}/asked"] += 1
                if isinstance(result, AnswerError):
                    self.counts[f"{task.mode}/failed"] += 1
                    self.refuse(refused(task, str(result)))
                    continue
                outcomes, num_tokens = result
                self.num_tokens += num_tokens
                if isinstance(outcomes, str):
                    self.counts[f"{task.mode}/{outcomes}"] += 1
                    self.refuse(refused(task, outcomes))
                    continue
                for exchanges, reason in outcomes:
                    reason = reason or ("surplus" if len(kept) >= quota else None)
                    kept += self.settle(task, exchanges, reason)
        self.num_kept += len(kept)
        return kept

    def affordable(self, tasks: Iterator[Task], num_chats: int) -> Iterator[Task]:
        """The next tasks for as many chats; none once the answers so far have used up the tokens."""
        while num_chats > 0 and (task := next(tasks, None)):
            if self.args.max_total_tokens and self.num_tokens >= self.args.max_total_tokens:
                self.counts[f"{task.mode}/left_out_by_budget"] += 1
            else:
                num_chats -= task.num_chats
                yield task

    def settle(self, task: Task, exchanges: list[Exchange], reason: str | None) -> list[dict]:
        """Write the chat, or refuse it for what was found or because the like of it was asked before."""
        questions = "\n".join(exchange.question for exchange in exchanges)
        if not reason and not self.seen.add_if_new(task.context, questions, self.args.max_similarity):
            reason = "near_duplicate"
        name, _, detail = (reason or "kept").partition(": ")
        self.counts.update([f"{task.mode}/candidates", f"{task.mode}/{name}", f"{task.mode}:{task.operation}/{name}"])
        if reason:
            self.refuse(refused(task, name, exchanges) | ({"detail": detail} if detail else {}))
            return []
        self.counts[f"language/{task.language}"] += 1
        chat = chat_of(task, exchanges)
        self.write(chat)
        kind = f"{task.mode}, {task.operation}, {task.language}"
        if len(self.examples.setdefault(kind, [])) < NUM_EXAMPLES:
            self.examples[kind].append((task.made_from, [exchange.model_dump() for exchange in exchanges]))
        return [chat]

    async def ask(self, task: Task) -> tuple[str | list[tuple[list[Exchange], str | None]], int]:
        """The chats in the answer, each with the reason to refuse it, or else why there are none; and the tokens."""
        messages = task.messages(PROMPTS)
        answer, found = await self.client.complete_structured(messages, Exchanges, seed=self.args.seed)
        num_tokens = answer.prompt_tokens + answer.completion_tokens
        if found is None:
            return "filtered", num_tokens
        if not found.exchanges:
            return "nothing_to_ask", num_tokens
        outcomes = []
        for exchanges, was_asked_for in task.chats(found.exchanges):
            reason = reason_to_refuse(task, exchanges, messages[0]["content"].splitlines())
            reason = reason if was_asked_for else "surplus"
            if not reason and self.args.judge == "teacher":
                reason, judge_tokens = await self.judge(task, exchanges)
                num_tokens += judge_tokens
            outcomes.append((exchanges, reason))
        return outcomes, num_tokens

    async def judge(self, task: Task, exchanges: list[Exchange]) -> tuple[str | None, int]:
        """The reason to refuse a chat that the judge finds too bad, or gives no valid verdict on."""
        system = PROMPTS["judge"][task.language]
        asked = {"language": task.language, "chat": [exchange.model_dump() for exchange in exchanges]}
        if task.context:
            asked["context"] = task.context
        if task.persona:
            system += PROMPTS["judge_persona"][task.language]
            asked["persona"] = task.persona
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": json.dumps(asked, ensure_ascii=False)},
        ]
        try:
            answer, verdict = await self.client.complete_structured(messages, Verdict, seed=self.args.seed)
        except AnswerError as error:
            return f"invalid_verdict: {error}", 0
        num_tokens = answer.prompt_tokens + answer.completion_tokens
        if verdict is None:
            return "invalid_verdict: the judge or its content filter refused", num_tokens
        if verdict.score < self.args.min_judge_score:
            return f"low_score: {verdict.score}, {verdict.reason}", num_tokens
        return None, num_tokens


def refused(task: Task, reason: str, exchanges: Iterable[Exchange] = ()) -> dict:
    row = {"reason": reason, "mode": task.mode, "operation": task.operation, "source_ids": list(task.source_ids)}
    return row | task.tags | {"exchanges": [exchange.model_dump() for exchange in exchanges]}


def chat_of(task: Task, exchanges: list[Exchange]) -> dict:
    messages = [{"role": "system", "content": task.system}] if task.system else []
    for number, exchange in enumerate(exchanges):
        question = (
            f"{task.context}\n\n{exchange.question}" if task.context_is_shown and not number else exchange.question
        )
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": exchange.answer}]
    return {
        "id": records.content_id(*(message["content"] for message in messages)),
        "messages": messages,
        "origin": f"synthesized_{task.mode}",
        "source_ids": list(task.source_ids),
        "language": task.language,
        "tags": {"mode": task.mode, "operation": task.operation, **task.tags},
    }
