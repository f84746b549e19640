"""Questions as token ids, in groups whose prompts begin alike, so that the beginning is computed once."""

import collections
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

MIN_SHARED_TOKENS = 16  # a shorter beginning costs as much to attend to apart as to compute again


@dataclass(frozen=True)
class Question:
    """``choices`` are the tokens that may follow ``prompt``; equal ``shots`` promise that the prompts begin alike."""

    id: str
    prompt: list[int]
    choices: list[list[int]]
    shots: Hashable = None

    @property
    def branches(self) -> list[tuple[int, ...]]:
        """What has to be read beside the prompt: each choice without its last token, which is only predicted."""
        return list(dict.fromkeys(tuple(choice[:-1]) for choice in self.choices if len(choice) > 1))

    @property
    def num_tokens(self) -> int:
        """In the longest of its sequences."""
        return len(self.prompt) + max(map(len, self.choices)) - 1


@dataclass(frozen=True)
class Group:
    prefix: list[int]
    questions: list[Question]


def group(questions: Iterable[Question]) -> list[Group]:
    """By their few-shot examples; those that share them with none are one group, as an instruction may be shared."""
    by_shots: dict[Hashable, list[Question]] = collections.defaultdict(list)
    for question in questions:
        by_shots[question.shots].append(question)
    alone = [members[0] for members in by_shots.values() if len(members) == 1]
    together = [members for members in by_shots.values() if len(members) > 1]
    return [Group(_shared_prefix(members), members) for members in (*together, alone) if members]


def _shared_prefix(questions: list[Question]) -> list[int]:
    """The tokens with which all prompts begin; each prompt keeps one of its own, which predicts the choices."""
    if len(questions) == 1:
        return []
    prompts = [question.prompt for question in questions]
    first, last = min(prompts), max(prompts)  # what these two share, all between them share
    longest = min(map(len, prompts)) - 1
    shared = next((i for i in range(longest) if first[i] != last[i]), longest)
    return first[:shared] if shared >= MIN_SHARED_TOKENS else []
