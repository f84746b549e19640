"""Requests with their responses, in one pass over files of any order, with what is under way alone in memory."""

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import log_rows
from log_files import SKEW_SECONDS, Period, Refuse
from log_rows import Row

_MAX_OPEN_FILES = 200


class RequestPairs:
    """Counts what has no partner (requests unpaired, responses unmatched), is there twice, lies outside or is other."""

    def __init__(self, keeps: Callable[[float], bool]) -> None:
        self._keeps = keeps
        self._waiting: dict[str, defaultdict[str, deque[Row]]] = {
            kind: defaultdict(deque) for kind in ("request", "response")
        }
        self._event_ids: set[int] = set()
        self._done: set[int] = set()  # keys of those paired
        self.num_duplicates = self.num_unpaired = self.num_unmatched = self.num_outside = self.num_other = 0

    def of(self, periods: Iterable[Period], refuse: Refuse) -> Iterator[tuple[Row, Row | None]]:
        """Each request with its response; a whole chat comes alone."""
        earlier: float | None = None
        for period in periods:
            for row in _rows(period, refuse):
                if row.kind == "chat":
                    yield row, None
                elif row.kind == "other":
                    self.num_other += self._keeps(row.moment)
                elif pair := self._pair(row):
                    yield pair
            if earlier is not None:
                self._give_up(period.start - SKEW_SECONDS)
            earlier = period.start
        self._give_up(float("inf"))

    def _pair(self, row: Row) -> tuple[Row, Row] | None:
        if row.event_id is not None:
            known = len(self._event_ids)
            self._event_ids.add(hash(row.event_id))
            if len(self._event_ids) == known:  # delivered twice
                self.num_duplicates += row.kind == "request"
                return None
        others = self._waiting["response" if row.kind == "request" else "request"]
        if row.key not in others:
            self._waiting[row.kind][row.key].append(row)
            return None
        other = others[row.key].popleft()
        if not others[row.key]:
            del others[row.key]
        self._done.add(hash(row.key))
        return (row, other) if row.kind == "request" else (other, row)

    def _give_up(self, before: float) -> None:
        """The rows of this time whose partner has not come, with all files of the time in which it comes read."""
        for kind, waiting in self._waiting.items():
            old = [key for key, rows in waiting.items() if rows[-1].moment < before]
            for row in chain.from_iterable(waiting.pop(key) for key in old):
                if kind == "response":
                    self.num_unmatched += self._keeps(row.moment) and hash(row.key) not in self._done
                elif not self._keeps(row.moment):
                    self.num_outside += 1
                elif hash(row.key) in self._done:
                    self.num_duplicates += 1
                else:
                    self.num_unpaired += 1


def _rows(period: Period, refuse: Refuse) -> Iterator[Row]:
    """All rows of the files: by their time where each file is in order, so that a response follows its request."""
    sources = [log_rows.read(file, refuse) for file in period.files]
    if len(sources) == 1 or len(sources) > _MAX_OPEN_FILES:
        return chain.from_iterable(sources)
    return heapq.merge(*sources, key=lambda row: row.moment or 0.0)
