"""Verdicts of a judge: asked for, read, asked for again where they are malformed, and made into scores."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from slmkit import structured_answers
from slmkit.chat_client import AnswerError

if TYPE_CHECKING:
    from model_inference.answer_sources import AnswerSource, Request
    from slmkit.answers import Answer
    from slmkit.resume_log import ResumeLog

MAX_REPAIRS = 2
CANDIDATE_FIRST, BASELINE_FIRST = ORDERS = ("candidate_first", "baseline_first")
REFUSED = "refused by the judge or its content filter"


class Grade(pydantic.BaseModel):
    reason: str
    score: Annotated[int, pydantic.Field(ge=1, le=5)]


class Preference(pydantic.BaseModel):
    reason: str
    winner: Literal["A", "B", "tie"]


@dataclasses.dataclass(frozen=True)
class Task:
    """A verdict that is wanted."""

    id: str
    messages: list[dict[str, str]]
    repeat: int
    order: str | None = None  # of a comparison

    @property
    def key(self) -> str:
        return "|".join([str(self.repeat), self.order or "", self.id])


def response_format(*, pairwise: bool) -> dict[str, Any]:
    """What an endpoint with structured output is told."""
    return structured_answers.response_format(Preference if pairwise else Grade)


def ask(
    source: "AnswerSource", tasks: Sequence[Task], log: "ResumeLog", requests: "Mapping[str, Request]"
) -> Iterator[dict]:
    """A row a task, in the order of the tasks: the verdict, or the error for want of one."""
    kind = Preference if any(task.order for task in tasks) else Grade
    rows: dict[str, dict[str, Any]] = dict(log.done)
    open_requests = [request for key, request in requests.items() if key not in rows]
    for num_asked in range(1, MAX_REPAIRS + 2):
        malformed = []
        for request, answer in source.answers(open_requests):
            try:
                row = read(kind, answer)
            except ValueError as error:
                row = {"error": f"malformed: {error}"}
                again = structured_answers.ask_again(answer.text, str(error))
                malformed.append(dataclasses.replace(request, messages=[*requests[request.key].messages, *again]))
            rows[request.key] = row | {"num_asked": num_asked}
            if "error" not in row:  # what failed is asked for again in a second start
                log.add(request.key, rows[request.key])
        open_requests = malformed
    for task in tasks:
        order = {"order": task.order} if task.order else {}
        yield {"id": task.id, "repeat": task.repeat, **order, **rows[task.key]}


def read(kind: type[pydantic.BaseModel], answer: "Answer | AnswerError") -> dict[str, Any]:
    """The verdict as a row, or why there is none; ``ValueError`` for one that is not in the form."""
    if isinstance(answer, AnswerError):
        return {"error": str(answer)}
    if answer.refused:
        return {"error": REFUSED}
    # The one JSON object in it, if a model that does not know of structured output talks around it.
    start, end = answer.text.find("{"), answer.text.rfind("}")
    return structured_answers.parse_answer(
        kind, answer.text[start : end + 1] if start >= 0 else answer.text
    ).model_dump()


def failures(rows: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How many verdicts failed, by reason."""
    return Counter(row["error"].partition(":")[0] for row in rows if "error" in row)


def grade(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean grade of an item from 0 to 1, over the verdicts that there are."""
    grades = [row["score"] for row in rows if "score" in row]
    return (fmean(grades) - 1) / 4 if grades else None


def preferred(row: Mapping[str, Any]) -> float | None:
    """1 where a verdict prefers the candidate, 0 for the baseline, 0.5 for a tie."""
    if "winner" not in row:
        return None
    first = {"A": 1.0, "B": 0.0, "tie": 0.5}[row["winner"]]
    return first if row["order"] == CANDIDATE_FIRST else 1 - first


def swapped(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The verdicts of an item in both orders, a pair a repeat, where both are there."""
    by_order = {(row["repeat"], row["order"]): row for row in rows if "winner" in row}
    repeats = sorted({repeat for repeat, _ in by_order})
    pairs = [tuple(by_order.get((repeat, order)) for order in ORDERS) for repeat in repeats]
    return [pair for pair in pairs if all(pair)]


def outcome(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> float:
    """That of a swapped pair: what does not survive the swap is a tie."""
    one, other = map(preferred, pair)
    return one if one == other else 0.5


def win(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean outcome of an item for the candidate, over the swapped pairs that there are."""
    outcomes = list(map(outcome, swapped(rows)))
    return fmean(outcomes) if outcomes else None
