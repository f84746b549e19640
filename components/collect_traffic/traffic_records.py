"""The records of a window, from requests and responses: what lies outside, twice or beyond the sample is counted."""

import hashlib
import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import collection_window
import logged_chat
from collection_window import Window
from log_files import SKEW_SECONDS, Refuse
from log_rows import Row
from logged_chat import Answer, Messages, NotAChatError

from slmkit import textstats

Record = dict[str, Any]
Located = tuple[Record, Row]
_MAX_LANGUAGE_LENGTH = 2000


@dataclass
class Columns:
    """Of tables and of requests in other forms; None where they are found by their usual names."""

    prompt: str | None = None
    output: str | None = None


def chat_key(messages: Messages) -> int:
    """The same for the same words in the same roles, within this process."""
    return hash(tuple((message["role"], message["content"]) for message in messages))


class TrafficRecords:
    """``excluded`` are chats, as ``chat_key`` names them, that are no traffic: those a monitor asks itself.

    Of an endpoint that serves several models, ``model`` is the one that is looked at.
    """

    def __init__(
        self,
        window: Window,
        now: float,
        columns: Columns,
        excluded: Collection[int] = (),
        model: str | None = None,
    ) -> None:
        self._window, self._now, self._columns, self._excluded, self._model = window, now, columns, excluded, model
        self._answered: set[int] = set()
        self.num_outside = self.num_duplicates = self.num_not_chats = self.num_sampled_out = self.num_excluded = 0
        self.num_other_models = 0
        self.max_clock_skew_seconds = 0.0
        self.latency_resolution_seconds: float | None = None
        self.earliest: float | None = None

    def of(self, pairs: Iterable[tuple[Row, Row | None]], refuse: Refuse) -> Iterator[Located]:
        """What belongs to the window, once each; the texts are not redacted yet."""
        for request, response in pairs:
            moment = self._window.end if request.moment is None else request.moment
            if request.moment is None and (self._window.start is not None):
                refuse(request.file, request.line, "no timestamp, so it cannot be told whether it is of the window")
            elif request.moment is not None and not self._window.holds(request.moment):
                self.num_outside += 1
            else:
                try:
                    messages, answer = self._exchange(request, response)
                except NotAChatError as error:
                    self.num_not_chats += 1
                    refuse(request.file, request.line, str(error))
                    continue
                if self._model and (logged_chat.model_asked(request.data) or answer.model) != self._model:
                    self.num_other_models += 1
                    continue
                if self._excluded and chat_key(messages) in self._excluded:
                    self.num_excluded += 1
                    continue
                if self._is_repeated(request, messages, answer):
                    self.num_duplicates += 1
                    continue
                self.earliest = moment if self.earliest is None else min(self.earliest, moment)
                yield self._record(request, response, moment, messages, answer), request

    def _exchange(self, request: Row, response: Row | None) -> tuple[Messages, Answer]:
        if response is None:
            return logged_chat.chat_of(request.data)
        messages = logged_chat.messages_of(request.data, self._columns.prompt)
        return messages, logged_chat.answer_of(response.data, response.status, self._columns.output)

    def _is_repeated(self, request: Row, messages: Messages, answer: Answer) -> bool:
        """Whether this very request was answered before; an attempt that failed before it stays in the records."""
        if answer.error is not None:  # twice in the log, if at the same moment
            attempt = (request.key, request.moment, answer.error)
        else:
            attempt = request.retry_key or (request.moment, answer.output)
        asked = hash((attempt, *(text for message in messages for text in message.values())))
        known = len(self._answered)
        self._answered.add(asked)
        return len(self._answered) == known

    def _record(self, request: Row, response: Row | None, moment: float, messages: Messages, answer: Answer) -> Record:
        last = next((m["content"] for m in reversed(messages) if m["role"] == "user"), messages[-1]["content"])
        language = textstats.language(last[:_MAX_LANGUAGE_LENGTH])
        given = request.data if response is None else {}
        latency = given.get("latency_ms")
        known = isinstance(latency, int | float) and not isinstance(latency, bool) and latency >= 0
        return {
            "id": request.key,
            "timestamp": collection_window.iso(moment),
            "messages": messages,
            "output": answer.output,
            "status": answer.status,
            "latency_ms": self._latency(request, response) if response else latency if known else None,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "finish_reason": answer.finish_reason,
            "endpoint": request.endpoint,
            "deployment": response.deployment if response else request.deployment,
            "model": answer.model,
            "language": None if language == "und" else language,
            "error": answer.error,
        }

    def _latency(self, request: Row, response: Row) -> float | None:
        """The milliseconds from the one row to the other; None where the clocks say that it was less than none."""
        ahead = max(request.moment - response.moment, request.moment - self._now, 0.0)
        self.max_clock_skew_seconds = max(self.max_clock_skew_seconds, min(ahead, SKEW_SECONDS))
        if request.resolution is None or response.resolution is None:
            return None
        resolution = max(request.resolution, response.resolution)
        self.latency_resolution_seconds = max(resolution, self.latency_resolution_seconds or 0.0)
        seconds = response.moment - request.moment
        if resolution >= 1 and seconds == 0:
            return 500.0  # the middle of what whole seconds leave open
        return round(1000 * seconds, 3) if seconds >= 0 else None

    def sample(self, located: Iterable[Located], max_rows: int | None, seed: int) -> Iterator[Located]:
        """At most so many, by chance, in the order of time; the same ones for the same rows, in whatever order."""
        if max_rows is None:
            yield from located
            return
        kept: list[tuple[int, int, Located]] = []
        for number, (record, row) in enumerate(located):
            # Its texts too: there are logs without ids and times.
            said = repr((seed, *(record[name] for name in ("id", "timestamp", "messages", "output")))).encode()
            rank = -int.from_bytes(hashlib.blake2b(said, digest_size=8).digest())
            if len(kept) < max_rows:
                heapq.heappush(kept, (rank, number, (record, row)))
            else:
                heapq.heappushpop(kept, (rank, number, (record, row)))
                self.num_sampled_out += 1
        for _, _, one in sorted(kept, key=lambda item: (item[2][0]["timestamp"], item[2][0]["id"])):
            yield one
