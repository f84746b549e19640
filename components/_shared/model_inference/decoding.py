"""Decode many prompts in one running batch: a row that ends leaves at once, and the next prompt takes its place."""

import collections
import inspect
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from model_inference.batch_cache import BatchCache
from model_inference.static_batches import answer_alike

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFILL_TOKENS = 8192  # in one forward, which bounds what the hidden states take
MIN_SHARED_TOKENS = 32  # fewer are not worth a forward of their own
NOT_A_NUMBER = "the model gives no numbers (NaN): its weights are broken, or too large for bfloat16"


@dataclass(eq=False)
class Row:
    """A prompt and, token by token, its answer. With a temperature, ``seed`` alone decides the draws."""

    prompt: list[int]
    max_new_tokens: int
    temperature: float = 0.0
    seed: str = ""
    shared: list[int] = field(default_factory=list)  # how the prompt begins, as those of other rows do
    tokens: list[int] = field(default_factory=list)
    seconds: float = 0.0  # from entering the batch to the end
    machine_seconds: float = 0.0  # its share of the time of the batch
    error: str | None = None

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.tokens.clear()
        self.error = None
        self._random = random.Random(self.seed)
        self._started = time.perf_counter()

    def end(self) -> "Row":
        self.seconds = time.perf_counter() - self._started
        return self

    def choose(self, logits: torch.Tensor) -> int:
        likeliest = int(logits.argmax())
        if logits[likeliest].isnan():
            self.error = NOT_A_NUMBER
        if not self.temperature or self.error:
            return likeliest
        shares = torch.softmax(logits.double() / self.temperature, dim=-1).cumsum(dim=-1)
        return min(int(torch.searchsorted(shares, self._random.random() * shares[-1])), len(shares) - 1)

    @property
    def size(self) -> int:
        return len(self.prompt) + self.max_new_tokens


IsEnd = Callable[[list[int]], bool]


class Decoder:
    """``is_end(tokens)`` tells whether an answer is complete, be it by a stop token or by its text."""

    def __init__(self, model: "PreTrainedModel", *, batch_size: int, is_end: IsEnd) -> None:
        self._model, self._batch_size, self._is_end = model, batch_size, is_end
        self._max_tokens: int | None = None  # rows times the largest size; found out when the memory is too small
        self._max_size = _longest_in_a_batch(model)

    def decode(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Each row when it is done, in any order; one for which the memory is too small has an error."""
        joint = [row for row in rows if row.size <= self._max_size]
        queue = collections.deque(_in_order(joint))
        while queue:
            yield from self._run(queue)
        alone = sorted((row for row in rows if row.size > self._max_size), key=lambda row: len(row.prompt))
        for _, alike in itertools.groupby(alone, key=lambda row: len(row.prompt)):
            yield from answer_alike(self._model, list(alike), self._batch_size, self._is_end)

    def _run(self, queue: "collections.deque[Row]") -> Iterator[Row]:
        """Until the queue is empty or the memory is too small for the batch, which is then put back."""
        max_rows = self._max_tokens // max(row.size for row in queue) if self._max_tokens else self._batch_size
        batch = _Batch(self._model, max(1, min(max_rows, self._batch_size, len(queue))), self._is_end)
        enough = max(1, batch.max_rows // 8)  # to enter together, since each forward has its fixed cost
        try:
            while queue or batch.rows:
                free = batch.max_rows - len(batch.rows)
                entering = self._entering(queue, batch) if free >= enough else []
                yield from batch.enter(entering) if entering else batch.step()
            return
        except torch.OutOfMemoryError:
            pass  # handled below, where the tensors of the failed forward are no longer held by the exception
        rows = batch.rows
        if len(rows) == 1:
            self._max_tokens = None  # what it takes alone says nothing about the others
            rows[0].error = f"out of memory with a prompt of {len(rows[0].prompt)} tokens"
            yield rows[0].end()
            return
        self._max_tokens = len(rows) * max(row.size for row in rows) // 2
        for row in rows:
            row.restart()
        queue.extendleft(reversed(rows))

    def _entering(self, queue: "collections.deque[Row]", batch: "_Batch") -> list[Row]:
        """The next rows that there is room for and that begin alike."""
        entering: list[Row] = []
        while queue and len(batch.rows) + len(entering) < batch.max_rows:
            num_fresh = len(queue[0].prompt) - len(queue[0].shared)
            if entering and (queue[0].shared != entering[0].shared or (len(entering) + 1) * num_fresh > PREFILL_TOKENS):
                break
            entering.append(queue.popleft())
        return entering


class _Batch:
    """The rows that are being decoded, and their keys and values."""

    def __init__(self, model: "PreTrainedModel", max_rows: int, is_end: IsEnd) -> None:
        self.rows: list[Row] = []
        self.max_rows = max_rows
        self._model, self._is_end = model, is_end
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in _parameters(model) else {}
        self._windows = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=model.config).layers]
        self._cache = BatchCache(self._windows, max_rows)
        self._lengths: list[int] = []  # of what the cache holds of each row
        self._shared: list[int] = []
        self._shared_cache: BatchCache | None = None

    @torch.inference_mode()
    def enter(self, rows: list[Row]) -> list[Row]:
        """Read the prompts, each up to its first new token. What they share is read once.

        The last tokens of each prompt are read together, as many as the longest has beyond what is shared; what comes
        before them is copied. So all rows end in the same column and there is no gap within one.
        """
        for row in rows:
            row.restart()
        started = time.perf_counter()
        first_row = len(self.rows)
        self.rows += rows
        shared, cache = rows[0].shared, self._cache
        if shared and shared is not self._shared:
            self._shared_cache = BatchCache(self._windows, 1)
            self._shared_cache.reserve(0, len(shared))
            self._forward(self._shared_cache, [shared], [len(shared)])
            self._shared = shared
        lengths = [len(row.prompt) for row in rows]
        num_read = max(lengths) - len(shared)
        cache.reserve(max(lengths), 1)
        cache.end -= num_read
        cache.first = cache.end + num_read - max(lengths)
        cache.rows = slice(first_row, len(self.rows))
        for number, row in enumerate(rows, start=first_row):
            if (num_known := len(row.prompt) - num_read) > 0:
                cache.place(number, self._shared_cache, num_known)
        tokens = [[0] * (num_read - len(row.prompt)) + row.prompt[-num_read:] for row in rows]
        logits = self._forward(cache, tokens, lengths)
        self._lengths += lengths
        return self._advance(rows, logits, started)

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """A token more for each row; the rows that are done."""
        started = time.perf_counter()
        cache = self._cache
        cache.first, cache.rows = cache.end - max(self._lengths), slice(0, len(self.rows))
        cache.reserve(0, 1)
        self._lengths = [length + 1 for length in self._lengths]
        logits = self._forward(cache, [row.tokens[-1:] for row in self.rows], self._lengths)
        return self._advance(self.rows, logits, started)

    def _forward(self, cache: BatchCache, tokens: list[list[int]], lengths: list[int]) -> torch.Tensor:
        """The logits of the next tokens. ``lengths`` are those of the rows after this forward."""
        device = self._model.device
        input_ids = torch.tensor(tokens, device=device)
        num_read = input_ids.shape[1]
        width = cache.end + num_read - cache.first
        starts = width - torch.tensor(lengths, device=device)[:, None]  # the columns of the first tokens
        columns = torch.arange(width, device=device)[None]
        logits = self._model(
            input_ids=input_ids,
            attention_mask=(columns >= starts).long(),
            position_ids=(columns[:, -num_read:] - starts).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            **self._last_only,
        ).logits
        cache.end += num_read
        return logits[:, -1]

    def _advance(self, rows: list[Row], logits: torch.Tensor, started: float) -> list[Row]:
        greedy = logits.argmax(dim=-1, keepdim=True)  # where NaN stands, if any does
        is_nan = logits.gather(-1, greedy).isnan()
        for row, likeliest, nan, scores in zip(rows, greedy.tolist(), is_nan.tolist(), logits, strict=True):
            row.tokens.append(row.choose(scores) if row.temperature or nan[0] else likeliest[0])
        seconds = (time.perf_counter() - started) / len(rows)
        for row in rows:
            row.machine_seconds += seconds
        return [self._leave(row).end() for row in list(rows) if self._is_done(row)]

    def _is_done(self, row: Row) -> bool:
        return bool(row.error) or len(row.tokens) >= row.max_new_tokens or self._is_end(row.tokens)

    def _leave(self, row: Row) -> Row:
        """The last row takes the place of this one."""
        number, last = self.rows.index(row), len(self.rows) - 1
        if number != last:
            self._cache.overwrite(number, by=last)
            self.rows[number], self._lengths[number] = self.rows[last], self._lengths[last]
        del self.rows[last], self._lengths[last]
        return row


def _in_order(rows: list[Row]) -> list[Row]:
    """Longest prompts first, so that too little memory shows early; those that begin alike one after the other.

    What they have in common, such as instructions and solved examples, is noted in each.
    """
    alike = collections.defaultdict(list)
    for row in rows:
        alike[tuple(row.prompt[:MIN_SHARED_TOKENS])].append(row)
    groups: list[list[Row]] = [[]]  # the first is of rows that share nothing
    for group in alike.values():
        prompts = [row.prompt for row in group]
        pairs = zip(min(prompts)[:-1], max(prompts)[:-1], strict=False)  # a token of each is left to be read
        shared = [token for token, other in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]
        if len(group) == 1 or len(shared) < MIN_SHARED_TOKENS:
            groups[0] += group
            continue
        for row in group:
            row.shared = shared
        groups.append(group)
    return [row for group in groups for row in sorted(group, key=lambda row: row.size, reverse=True)]


def _longest_in_a_batch(model: "PreTrainedModel") -> float:
    """How many tokens a row may have, prompt and answer, to be decoded beside rows of other lengths.

    None where something else than keys and values is carried from token to token, as in a state-space model, and up to
    the trained length where the rotation of all rows depends on the longest of them (dynamic and longrope).
    """
    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=config).layers
    if not {"position_ids", "past_key_values", "attention_mask"} <= _parameters(model).keys() or model._is_stateful:
        return 0
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return 0
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if kind.get("rope_type") in ("dynamic", "longrope"):
            return kind.get("original_max_position_embeddings") or config.max_position_embeddings
    return math.inf


def _parameters(model: "PreTrainedModel") -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(model.forward).parameters)
