"""Log-likelihoods of the choices of questions, each token computed once: packed rows, a shared prefix, few logits."""

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import choice_attention
import prefix_groups
import torch
from last_layer import LastLayer
from prefix_groups import Group, Question

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_LOGITS = 2**26  # at a time: 256 MiB in float32
_MAX_LOGITS_ON_CPU = 8_000_000  # from 32 MiB on, each allocation is of memory that first has to be mapped
_MAX_BATCH_TOKENS_ON_CPU = 1024  # of which the intermediate states stay in the cache
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class ChoiceScorer:
    """``for question, log_likelihoods in ChoiceScorer(model, 8192).score(questions)``, in any order.

    The values do not depend on ``max_batch_tokens``, beyond rounding. The model's own forward pass on two of the
    questions decides whether it can be asked in packed rows; else each choice is a row of its own.
    """

    def __init__(self, model: "PreTrainedModel", max_batch_tokens: int) -> None:
        on_cpu = model.device.type == "cpu"
        self.model = model
        self.max_batch_tokens = min(max_batch_tokens, _MAX_BATCH_TOKENS_ON_CPU) if on_cpu else max_batch_tokens
        if on_cpu:
            torch.empty(_MAX_LOGITS_ON_CPU)  # freed at once, so that malloc keeps up to as much to use again
        self.why_not_packed: str | None = None
        self.num_computed_tokens = 0

    def score(self, questions: Sequence[Question]) -> Iterator[tuple[Question, list[float] | None]]:
        """The values of a question are None when the accelerator's memory is too small for it alone."""
        groups = prefix_groups.group(questions)
        own_attention = self.model.config._attn_implementation
        try:
            way = self._way(groups) if groups else None
            for group in groups:
                way.begin(group)
                yield from self._of_group(way, group)
            self.num_computed_tokens += way.num_tokens if way else 0
        finally:
            self.model.set_attn_implementation(own_attention)

    def _of_group(self, way: "_PackedWay | _PlainWay", group: Group) -> Iterator[tuple[Question, list[float] | None]]:
        pending = sorted(group.questions, key=lambda question: -question.num_tokens)
        while pending:
            batch = self._fitting(way, pending)
            try:
                values = way.log_likelihoods(batch)
            except torch.OutOfMemoryError:
                if len(batch) > 1:
                    self.max_batch_tokens //= 2
                    continue
                values = [None]
            del pending[: len(batch)]
            yield from zip(batch, values, strict=True)

    def _fitting(self, way: "_PackedWay | _PlainWay", pending: list[Question]) -> list[Question]:
        """The first of the pending questions that make a batch, one at least."""
        tokens, logits, max_logits = 0, 0, MAX_LOGITS // self.model.config.get_text_config().vocab_size
        for number, question in enumerate(pending):
            more_tokens, more_logits = way.cost(question)
            tokens, logits = tokens + more_tokens, logits + more_logits
            if number and (tokens > self.max_batch_tokens or logits > max_logits):
                return pending[:number]
        return pending[:]

    def _way(self, groups: list[Group]) -> "_PackedWay | _PlainWay":
        """Packed rows, if two questions so get what the model itself says: the longest one, and one with its prefix."""
        plain = _PlainWay(self.model)
        longest = max(groups, key=lambda group: max(question.num_tokens for question in group.questions))
        by_length = sorted(longest.questions, key=lambda question: question.num_tokens)
        checked = [by_length[-1], by_length[0]][: len(by_length)]
        expected = [plain.alone(question) for question in checked]
        own_attention = self.model.config._attn_implementation
        try:
            packed = _PackedWay(self.model)
            packed.begin(longest)
            if (change := _change(packed.log_likelihoods(checked), expected)) <= TOLERANCE[self.model.dtype]:
                return packed
            self.why_not_packed = f"log-likelihoods would change by {change:.1e}"
        except Exception as error:  # whatever a model raises that does not know this attention
            self.why_not_packed = f"{type(error).__name__}: {error}".splitlines()[0]
        self.model.set_attn_implementation(own_attention)
        return plain


def _change(found: list[list[float]], expected: list[dict[int, float]]) -> float:
    """The largest difference, relative where values are large."""
    pairs = [(values[i], known) for values, alone in zip(found, expected, strict=True) for i, known in alone.items()]
    return max(abs(value - known) / max(1.0, abs(known)) for value, known in pairs)


class _PackedWay:
    """Many questions in a row, the tokens that all their prompts begin with computed beforehand."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self._model, self.num_tokens = model, 0
        self._decoder = model.get_decoder()
        self._last_layer = LastLayer(self._decoder)
        model.set_attn_implementation(choice_attention.NAME)
        if model.config.get_text_config()._attn_implementation != choice_attention.NAME:
            raise NotImplementedError("the model has an attention of its own")

    def begin(self, group: Group) -> None:
        self._start, self._before = len(group.prefix), None
        if group.prefix:
            row = choice_attention.PackedRow([Question("", group.prefix, [[0]])], self._model.device, keep=True)
            self._decoded(row, [self._start - 1])
            self._before = row.kept

    def cost(self, question: Question) -> tuple[int, int]:
        return len(question.prompt) - self._start + sum(map(len, question.branches)), 0

    def log_likelihoods(self, questions: Sequence[Question]) -> list[list[float]]:
        row = choice_attention.PackedRow(questions, self._model.device, start=self._start, before=self._before)
        places = {place: number for number, place in enumerate(dict.fromkeys(place for place, _ in row.targets))}
        rows, tokens = zip(*((places[place], token) for place, token in row.targets), strict=True)
        return _sums(_log_probs(self._logits(self._decoded(row, list(places))), rows, tokens), questions)

    @torch.inference_mode()
    def _decoded(self, row: choice_attention.PackedRow, places: list[int]) -> Any:
        """What the model's decoder gives, with the states at the places alone."""
        self.num_tokens += len(row.input_ids)
        device = self._model.device
        at = torch.tensor(places, device=device)
        with self._last_layer.only_at(at, len(row.input_ids)):
            output = self._decoder(
                input_ids=torch.tensor([row.input_ids], device=device),
                position_ids=torch.tensor([row.positions], device=device),
                use_cache=False,
                packed_row=row,
            )
        return dataclasses.replace(output, last_hidden_state=output.last_hidden_state[:, at])

    @torch.inference_mode()
    def _logits(self, output: Any) -> Iterator[torch.Tensor]:
        """Those of a few states at a time, by the model's own forward pass, as some models scale or cap them."""
        decode = self._decoder.forward
        try:
            for states in output.last_hidden_state.split(_num_rows(self._model), 1):
                part = dataclasses.replace(output, last_hidden_state=states)
                self._decoder.forward = lambda *args, part=part, **kwargs: part
                yield self._model(input_ids=states.new_zeros(states.shape[:2], dtype=torch.long)).logits[0]
        finally:
            self._decoder.forward = decode


class _PlainWay:
    """A row a choice, padded on the right: for models that cannot be told who sees whom."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self._model, self.num_tokens = model, 0
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def begin(self, group: Group) -> None:
        pass

    def cost(self, question: Question) -> tuple[int, int]:
        rows = max(1, len(question.branches))
        return rows * question.num_tokens, rows * max(map(len, question.choices))

    def log_likelihoods(self, questions: Sequence[Question]) -> list[list[float]]:
        rows: dict[tuple[int, ...], int] = {}
        targets = []
        for question in questions:
            for choice in question.choices:
                row = rows.setdefault((*question.prompt, *choice[:-1]), len(rows))
                places = range(len(question.prompt) - 1, len(question.prompt) + len(choice) - 1)
                targets += ((row, place, token) for place, token in zip(places, choice, strict=True))
        numbers, places, tokens = zip(*targets, strict=True)
        first, width = min(places), max(places) - min(places) + 1
        logits = self._logits(list(rows), first, width).flatten(0, 1)
        flat = [row * width + place - first for row, place in zip(numbers, places, strict=True)]
        return _sums(_log_probs(logits.split(_num_rows(self._model)), flat, tokens), questions)

    def alone(self, question: Question) -> dict[int, float]:
        """Of the last choice and of the longest one, and of those of one token, each without any row beside it."""
        found: dict[int, float] = {}
        for read in {tuple(question.choices[-1][:-1]), tuple(max(question.choices, key=len)[:-1])}:
            numbers = [i for i, choice in enumerate(question.choices) if tuple(choice[:-1]) == read]
            one = Question(question.id, question.prompt, [question.choices[i] for i in numbers])
            found.update(zip(numbers, self.log_likelihoods([one])[0], strict=True))
        return found

    @torch.inference_mode()
    def _logits(self, rows: list[tuple[int, ...]], first: int, width: int) -> torch.Tensor:
        """Those of ``width`` tokens from ``first`` on, [rows, width, vocabulary]."""
        self.num_tokens += sum(map(len, rows))
        device, longest = self._model.device, max(map(len, rows))
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([row + (0,) * (longest - len(row)) for row in rows], device=device)
        }
        if any(len(row) < longest for row in rows):
            lengths = torch.tensor([len(row) for row in rows], device=device)
            inputs["attention_mask"] = (torch.arange(longest, device=device) < lengths[:, None]).long()
        places = torch.arange(first, first + width, device=device)
        if self._keeps:
            return self._model(**inputs, use_cache=False, logits_to_keep=places).logits
        return self._model(**inputs, use_cache=False).logits[:, places]


def _num_rows(model: "PreTrainedModel") -> int:
    """Of logits that are best computed and normalized together."""
    most = _MAX_LOGITS_ON_CPU if model.device.type == "cpu" else MAX_LOGITS
    return max(1, most // model.config.get_text_config().vocab_size)


@torch.inference_mode()
def _log_probs(parts: Iterable[torch.Tensor], rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """The log-probability of each token in its row of the logits, which come in parts of [rows, vocabulary]."""
    rows, tokens = torch.tensor(rows), torch.tensor(tokens)
    values, start = torch.empty(len(rows)), 0
    for part in parts:
        within = (rows >= start) & (rows < start + len(part))
        at = ((rows[within] - start).to(part.device), tokens[within].to(part.device))
        part = part.float()
        values[within] = torch.log_softmax(part, -1, out=part)[at].cpu()
        start += len(part)
    return values.tolist()


def _sums(values: list[float], questions: Sequence[Question]) -> list[list[float]]:
    """The log-likelihood of each choice from those of its tokens, one after the other."""
    following = iter(values)
    return [[sum(next(following) for _ in choice) for choice in question.choices] for question in questions]
