"""Log-likelihoods of the choices of questions, each token computed once: packed rows, a shared prefix, few logits."""

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import choice_attention
import prefix_groups
import torch
from prefix_groups import Group, Question

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_LOGITS = 2**26  # at a time: 256 MiB in float32
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_CHUNK = 2**22  # of them normalized together, which fits into a processor's cache


class ChoiceScorer:
    """``for question, log_likelihoods in ChoiceScorer(model, 8192).score(questions)``, in any order.

    The values do not depend on ``max_batch_tokens``, beyond rounding. The model's own forward pass on two of the
    questions decides whether it can be asked in packed rows; else each choice is a row of its own.
    """

    def __init__(self, model: "PreTrainedModel", max_batch_tokens: int) -> None:
        self.model, self.max_batch_tokens = model, max_batch_tokens
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
        model.set_attn_implementation(choice_attention.NAME)
        if model.config.get_text_config()._attn_implementation != choice_attention.NAME:
            raise NotImplementedError("the model has an attention of its own")

    def begin(self, group: Group) -> None:
        self._start, self._before = len(group.prefix), None
        if group.prefix:
            prefix = Question("", group.prefix, [[0]])
            row = choice_attention.PackedRow([prefix], self._model.device)
            self._logits(row, [self._start - 1])
            self._before = row.kept

    def cost(self, question: Question) -> tuple[int, int]:
        branches = sum(map(len, question.branches))
        return len(question.prompt) - self._start + branches, 1 + branches

    def log_likelihoods(self, questions: Sequence[Question]) -> list[list[float]]:
        row = choice_attention.PackedRow(questions, self._model.device, start=self._start, before=self._before)
        places = {place: number for number, place in enumerate(dict.fromkeys(place for place, _ in row.targets))}
        logits = self._logits(row, list(places))
        rows, tokens = zip(*((places[place], token) for place, token in row.targets), strict=True)
        return _sums(_log_probs(logits, rows, tokens), questions)

    @torch.inference_mode()
    def _logits(self, row: choice_attention.PackedRow, places: list[int]) -> torch.Tensor:
        self.num_tokens += len(row.input_ids)
        device = self._model.device
        return self._model(
            input_ids=torch.tensor([row.input_ids], device=device),
            position_ids=torch.tensor([row.positions], device=device),
            logits_to_keep=torch.tensor(places, device=device),
            use_cache=False,
            packed_row=row,
        ).logits[0]


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
        return _sums(_log_probs(logits, flat, tokens), questions)

    def alone(self, question: Question) -> dict[int, float]:
        """Of the last choice and of the longest one, each without any row beside it."""
        last, longest = len(question.choices) - 1, max(question.choices, key=len)
        return {
            i: self.log_likelihoods([Question(question.id, question.prompt, [question.choices[i]])])[0][0]
            for i in {last, question.choices.index(longest)}
        }

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


@torch.inference_mode()
def _log_probs(logits: torch.Tensor, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """The log-probability of each token in its row of logits [rows, vocabulary]."""
    total = torch.cat([part.float().logsumexp(-1) for part in logits.split(max(1, _CHUNK // logits.shape[-1]))])
    rows, tokens = (torch.tensor(index, device=logits.device) for index in (rows, tokens))
    return (logits[rows, tokens].float() - total[rows]).tolist()


def _sums(values: list[float], questions: Sequence[Question]) -> list[list[float]]:
    """The log-likelihood of each choice from those of its tokens, one after the other."""
    following = iter(values)
    return [[sum(next(following) for _ in choice) for choice in question.choices] for question in questions]
