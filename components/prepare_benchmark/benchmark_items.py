"""Questions as eval items: which are asked, after which solved examples, and in which words."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from benchmark_formats import LETTERS, Question

from slmkit import records
from slmkit.errors import UserError

# As lm-eval ends its prompts, so that a plain prompt is what it sends; half-width for a benchmark that it ends so.
CUES = {"en": "Answer:", "ja": "答え：", "ko": "정답：", "zh": "答案："}


def id_of(question: Question) -> str:
    """The source's own id, or a hash of what is asked."""
    said = question.source_id or content_of(question)
    return f"{question.benchmark}-{said}"


def content_of(question: Question) -> str:
    return records.content_id(question.subject or "", question.context, question.text, *question.choices)


def prompt_of(question: Question, answer_style: str) -> str:
    if question.lists_choices:
        return question.text
    if question.benchmark == "gsm8k":
        return f"Question: {question.text}\nAnswer:"
    lines = [f"{question.context}\n"] if question.context else []
    lines.append(question.text)
    if answer_style == "letter":
        lines += [f"{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=False)]
    return "\n".join([*lines, CUES.get(question.language, CUES["en"])])


def shown_answer(question: Question, answer_style: str) -> str:
    if question.gold is not None and answer_style == "letter":
        return LETTERS[question.gold]
    return question.worked_answer or question.answer


def as_item(
    question: Question, examples: Sequence[Question], answer_style: str, instruction: str | None
) -> dict[str, Any]:
    """The examples are turns of their own, the same for all questions of a subject; an instruction opens the first."""
    turns = [
        message
        for example in examples
        for message in (
            {"role": "user", "content": prompt_of(example, answer_style)},
            {"role": "assistant", "content": shown_answer(example, answer_style)},
        )
    ]
    turns.append({"role": "user", "content": prompt_of(question, answer_style)})
    if instruction:
        said = instruction.replace("{subject}", (question.subject or question.benchmark).replace("_", " "))
        turns[0] = {"role": "user", "content": f"{said}\n\n{turns[0]['content']}"}
    item = {
        "id": id_of(question),
        "messages": turns,
        "references": list(question.references) or [question.answer],
        "slices": {
            "benchmark": question.benchmark,
            "language": question.language,
            **({"subject": question.subject} if question.subject else {}),
            **question.slices,
        },
    }
    if question.gold is not None:
        item |= {"choices": list(question.choices), "gold": question.gold}
        if answer_style == "letter":
            item["labels"] = list(LETTERS[: len(question.choices)])
    if question.context:  # questions on one passage stand or fall together
        item["cluster"] = f"{question.benchmark}-{records.content_id(question.context)}"
    return item


def by_subject(questions: Iterable[Question]) -> dict[str | None, list[Question]]:
    found: dict[str | None, list[Question]] = defaultdict(list)
    for question in questions:
        found[question.subject].append(question)
    return dict(found)


def choose_examples(pool: Sequence[Question], num_fewshot: int, seed: int) -> list[Question]:
    """Examples of one subject by seed, their right letters as evenly spread as they can be; a set of just that size
    (MMLU and KMMLU come with five a subject) is taken as it stands."""
    if len(pool) == num_fewshot:
        return list(pool)
    by_gold: dict[int | None, list[Question]] = defaultdict(list)
    for question in _shuffled(pool, seed):
        by_gold[question.gold].append(question)
    rounds = [(turn, question) for same in by_gold.values() for turn, question in enumerate(same)]
    rounds.sort(key=lambda entry: entry[0])  # first one of each letter, then a second one
    return _shuffled([question for _, question in rounds[:num_fewshot]], seed)


def examples_by_subject(
    asked: Sequence[Question], pool: Sequence[Question] | None, num_fewshot: int, seed: int
) -> dict[str | None, list[Question]]:
    """For each subject its examples, from ``pool`` or else from the questions themselves."""
    if not num_fewshot:
        return {subject: [] for subject in by_subject(asked)}
    found, usable = {}, asked
    if pool is not None:
        known = set(map(content_of, asked))
        usable = [question for question in pool if content_of(question) not in known]
    pools = by_subject(usable)
    for subject, questions in by_subject(asked).items():
        ready = pools.get(subject, [])
        least = num_fewshot + (pool is None)  # or none would be left to ask
        if len(ready) < least:
            where = f"subject {subject}" if subject else f"{questions[0].benchmark}"
            raise UserError(
                f"{where}: {len(ready)} questions to take num_fewshot={num_fewshot} examples from"
                f"{' and one must be left to ask' * (pool is None)}; lower it, or give more in fewshot_files"
            )
        found[subject] = choose_examples(ready, num_fewshot, seed)
    return found


def sample(questions: Sequence[Question], max_num_items: int | None, seed: int) -> list[Question]:
    """So many questions by seed, of each subject its share to within one, in the order of the source."""
    if max_num_items is None or max_num_items >= len(questions):
        return list(questions)
    ordered = [question for same in by_subject(_shuffled(questions, seed)).values() for question in same]
    step = len(ordered) / max_num_items
    chosen = {id_of(ordered[int((place + 0.5) * step)]) for place in range(max_num_items)}
    return [question for question in questions if id_of(question) in chosen]


def _shuffled(questions: Sequence[Question], seed: int) -> list[Question]:
    """By the seed and by what is asked alone: another order of the files gives the same draw."""
    ordered = sorted(questions, key=id_of)
    random.Random(seed).shuffle(ordered)
    return ordered
