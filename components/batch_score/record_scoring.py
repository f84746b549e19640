"""Asks a model about each record of a shard: a row for each, in their order, with its answer or its error."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring_report import Tally

from model_inference.prompts import REFUSED, TOO_LONG, check_question
from slmkit import lineage, records
from slmkit.answer_cache import cache_key
from slmkit.errors import UserError
from slmkit.resume_log import ResumeLog

if TYPE_CHECKING:
    from model_inference.answer_sources import AnswerSource
    from slmkit.answers import Answer
    from slmkit.chat_client import AnswerError

CHUNK_ROWS = 1024  # in memory at a time; at the end of each the running batch runs empty
MAX_UNREADABLE_LINES = 10_000  # one after the other
PROGRESS_SECONDS = 60
SO_FAR = ".so_far"  # the folder with the answers of shards that are not done; a reader of shards passes it over


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a model is asked: the inputs that the batch deployment has, too."""

    model: Path | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    auth: str = "azure"
    concurrency: int = 8
    prompt_format: str = "chat"
    batch_size: int = 16
    bf16: bool = False
    max_new_tokens: int = 128
    truncate_prompt: bool = False
    candidate: str | None = None
    max_error_fraction: float = 0.05


@dataclass(frozen=True)
class Question:
    """A record with an id and, where it can be asked about, its chat; else the kind of its error, and what it is."""

    record: records.Record
    messages: list[dict[str, Any]] | None = None
    kind: str | None = None
    error: str | None = None


class RecordScorer:
    def __init__(self, source: "AnswerSource", asking: Asking) -> None:
        if asking.candidate is not None:
            records.check_candidate(asking.candidate)
        self._source, self._asking = source, asking
        # In every row, whatever it says of itself: by these the scores of it are known as those of this model.
        self._asked = {"candidate": asking.candidate} if asking.candidate is not None else {}
        self._asked |= lineage.asked(asking)

    def score(self, name: str, shard: Path, write: Callable[[records.Record], None], so_far: Path) -> Tally:
        """Write a row for each record; ``so_far`` keeps the answers from which a start after a kill goes on."""
        tally, told = Tally(), time.monotonic()
        questions = read_questions(name, shard)
        for number in itertools.count():
            chunk = list(itertools.islice(questions, CHUNK_ROWS))
            if not chunk:
                return tally
            answers = self._answers(chunk, so_far / name / str(number), tally)
            for place, question in enumerate(chunk):
                answer = answers[place] if question.error is None else failed(question.error)
                row = {**question.record, **self._asked, **answer}
                tally.count(row, question.kind or kind_of(row.get("error")))
                write(row)
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                print(f"{name}: {tally.num_rows:,} rows", flush=True)

    def _answers(self, chunk: list[Question], log_path: Path, tally: Tally) -> dict[int, dict[str, Any]]:
        """The fields of each answer by the place of its question. Those of an earlier start are not asked for again."""
        from model_inference.answer_sources import Request

        length = self._asking.max_new_tokens
        requests = [Request(str(n), item.messages, length) for n, item in enumerate(chunk) if item.error is None]
        asked = {request.key: cache_key(request.messages, length) for request in requests}
        with ResumeLog(log_path, [self._source.identity]) as log:
            known = {key: row["answer"] for key, row in log.done.items() if row["asked"] == asked.get(key)}
            tally.num_known += len(known)
            started = time.perf_counter()
            for request, answer in self._source.answers([request for request in requests if request.key not in known]):
                known[request.key] = fields = answer_fields(answer)
                if "error" not in fields:  # a failure is asked about again
                    log.add(request.key, {"asked": asked[request.key], "answer": fields})
                tally.num_new_tokens += fields["completion_tokens"]
            tally.seconds += time.perf_counter() - started
        return {int(key): fields for key, fields in known.items()}


def list_shards(path: Path) -> dict[str, Path]:
    """The shards of a folder, or the one file, by the names that they have."""
    found = records.shards(path)
    if twice := {output_name(name) for name in found if output_name(name) != name} & found.keys():
        raise UserError(f"{path}: two shards would become {min(twice)}; rename one of them")
    for name, shard in found.items():
        # Whoever fills the folder is not always who may read the rest of the machine, and every line goes into a row.
        if path.is_dir() and not shard.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{shard}: a link to a file outside of the folder; put the file {name} there itself")
    return found


def output_name(name: str) -> str:
    return name if name.endswith(".jsonl") else f"{name}.jsonl"


def read_questions(name: str, shard: Path) -> Iterator[Question]:
    refused: list[records.Refused] = []

    def refuse(line: records.Refused) -> None:
        refused.append(line)
        if len(refused) > MAX_UNREADABLE_LINES:
            raise UserError(f"{line}; nor are the {MAX_UNREADABLE_LINES:,} lines before it; is this the right file?")

    def unreadable() -> Iterator[Question]:
        for line in refused:
            place = f"{name}:{line.line}"
            yield Question({"id": place, "line": line.text}, kind="unreadable", error=f"{place}: {line.reason}")
        refused.clear()

    for record, _, line in records.read_located(shard, refuse):
        yield from unreadable()
        yield as_question(record, f"{name}:{line}")
    yield from unreadable()


def as_question(record: records.Record, place: str) -> Question:
    """A record whose field ``prompt`` is a text is a chat of that one turn; one without an id is known by its place."""
    id = record.get("id")
    named = isinstance(id, str | int) and not isinstance(id, bool) and id != ""
    record = {name: value for name, value in {"id": None, **record}.items() if name != "error"}
    record["id"] = str(id) if named else place
    messages = record.get("messages")
    if messages is None and isinstance(record.get("prompt"), str):
        messages = [{"role": "user", "content": record["prompt"]}]
    try:
        check_question(messages)
    except ValueError as error:
        return Question(record, kind="no_chat", error=str(error))
    return Question(record, messages)


def answer_fields(answer: "Answer | AnswerError") -> dict[str, Any]:
    if isinstance(answer, Exception):
        return failed(str(answer))
    fields = {
        "output": answer.text,
        "latency_ms": None if answer.latency_ms is None else round(answer.latency_ms, 3),
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "finish_reason": answer.finish_reason,
    }
    return {**fields, "error": REFUSED} if answer.refused else fields


def failed(error: str) -> dict[str, Any]:
    nothing = {"output": "", "latency_ms": None, "prompt_tokens": 0, "completion_tokens": 0, "finish_reason": None}
    return {**nothing, "error": error}


def kind_of(error: str | None) -> str | None:
    """The kind of an error that came in the place of an answer."""
    if error is None:
        return None
    if error == REFUSED:
        return "refused"
    return "too_long" if TOO_LONG.search(error) else "no_answer"
