"""Attention within a row of packed questions: a choice sees its question and the shared prefix, no other choice."""

from collections.abc import Sequence
from typing import Any

import torch
from prefix_groups import Question
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv

NAME = "packed_choices"
States = dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]  # keys and values by layer
_CHANGES_SCORES = ("softcap", "s_aux", "position_bias")


class PackedRow:
    """Questions one after the other, without padding: the own tokens of each prompt, then the branches of its choices.

    ``before`` holds the keys and values of the ``start`` tokens that all the prompts begin with; with ``keep`` those of
    this row are kept, to be such a beginning.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        device: torch.device,
        *,
        start: int = 0,
        before: States | None = None,
        keep: bool = False,
    ) -> None:
        self.before, self.keep, self.kept, self._start, self._device = before, keep, {}, start, device
        self.input_ids: list[int] = []
        self.positions: list[int] = []
        self.targets: list[tuple[int, int]] = []  # place of the token that predicts, token that is predicted
        self.lengths: list[int] = []
        self.segments: list[torch.Tensor] = []  # of each question: 0 for its prompt, then 1, 2, ... for its branches
        for question in questions:
            self._add(question)
        self.longest = max(self.positions) + 1
        index = torch.arange(len(self.input_ids), device=device).split(self.lengths)
        self._padded = pad_sequence(index, batch_first=True)  # of each question, the places of its tokens
        within = torch.arange(self._padded.shape[1], device=device)
        self._real = within < torch.tensor(self.lengths, device=device)[:, None]
        self._within, self._masks = within, {}

    def _add(self, question: Question) -> None:
        begin, prompt = len(self.input_ids), question.prompt[self._start :]
        self.input_ids += prompt
        self.positions += range(self._start, len(question.prompt))
        segment, places = [0] * len(prompt), {}
        for number, branch in enumerate(question.branches, start=1):
            places[branch] = len(self.input_ids)
            self.input_ids += branch
            self.positions += range(len(question.prompt), len(question.prompt) + len(branch))
            segment += [number] * len(branch)
        last = begin + len(prompt) - 1
        for first_token, *others in question.choices:
            self.targets.append((last, first_token))
            if others:
                place = places[(first_token, *others[:-1])]
                self.targets += zip(range(place, place + len(others)), others, strict=True)
        self.lengths.append(len(segment))
        self.segments.append(torch.tensor(segment, device=self._device))

    def split(self, states: torch.Tensor) -> torch.Tensor:
        """[1, heads, tokens, width] to [questions, heads, longest, width]."""
        return states[0].transpose(0, 1)[self._padded].transpose(1, 2)

    def joined(self, states: torch.Tensor) -> torch.Tensor:
        """[questions, heads, longest, ...] back to [tokens, heads, ...]."""
        return states.transpose(1, 2)[self._real]

    def own_mask(self, window: int | None, dtype: torch.dtype, *, always: bool = False) -> torch.Tensor | None:
        """What a question's tokens see of it, [questions, 1, longest, longest]; None where that is all before them."""
        window = window if window and window < self.longest else None
        if window is None and not always and not any(segment[-1] for segment in self.segments):
            return None
        if ("own", window) not in self._masks:
            segment = pad_sequence(self.segments, batch_first=True)
            apart = (segment[:, None, :] != 0) & (segment[:, None, :] != segment[:, :, None])
            unseen = apart | (self._within[None, :] > self._within[:, None])
            if window:
                position = torch.tensor(self.positions, device=self._device)[self._padded]
                unseen |= position[:, :, None] - position[:, None, :] >= window
            self._masks["own", window] = _additive(unseen[:, None], dtype)
        return self._masks["own", window]

    def prefix_mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
        """What the tokens of the row see of the prefix, [1, 1, tokens, prefix]; None where that is all."""
        if not window or window >= self.longest:
            return None
        if ("prefix", window) not in self._masks:
            position = torch.tensor(self.positions, device=self._device)
            distance = position[:, None] - torch.arange(self._start, device=self._device)
            self._masks["prefix", window] = _additive(distance >= window, dtype)[None, None]
        return self._masks["prefix", window]


def _additive(unseen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Finite, so that what sees nothing stays a number."""
    return torch.zeros(unseen.shape, dtype=dtype, device=unseen.device).masked_fill_(unseen, torch.finfo(dtype).min / 2)


def attend_within_questions(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed_row: PackedRow,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of [1, heads, tokens, width]; returns [1, tokens, heads, width]. Registered as ``packed_choices``.

    On a CPU the prefix is attended to by all tokens of the row in one call, and that is merged with what each question
    says of itself by the weights that a softmax over both would give them: no key is copied. Elsewhere the keys of the
    prefix are copied before those of each question.
    """
    if unknown := [name for name in _CHANGES_SCORES if kwargs.get(name) is not None]:
        raise NotImplementedError(f"attention with {unknown[0]}")
    if packed_row.keep:
        packed_row.kept[module] = key, value
    before = packed_row.before[module] if packed_row.before else None
    way = _merged if _has_cpu_kernel(query) else _over_copies
    return way(packed_row, query, key, value, before, sliding_window, scaling)[None], None


def _has_cpu_kernel(query: torch.Tensor) -> bool:
    return query.device.type == "cpu"


def _merged(
    row: PackedRow,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    before: tuple[torch.Tensor, torch.Tensor] | None,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    """Each question's own tokens, and all tokens of the row to the prefix; each weighs as its softmax's sum."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mask = row.own_mask(window, query.dtype)
    split = row.split(query), row.split(key), row.split(value)
    own, weight = map(row.joined, flash(*split, is_causal=mask is None, attn_mask=mask, scale=scaling))
    if before is None:
        return own
    of_prefix, prefix_weight = flash(query, *before, attn_mask=row.prefix_mask(window, query.dtype), scale=scaling)
    share = torch.sigmoid(prefix_weight[0].transpose(0, 1) - weight)[..., None]
    return torch.lerp(own, of_prefix[0].transpose(0, 1), share.to(own.dtype))


def _over_copies(
    row: PackedRow,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    before: tuple[torch.Tensor, torch.Tensor] | None,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    """Each question's own tokens to a copy of the prefix and to themselves."""
    mask = row.own_mask(window, query.dtype, always=before is not None)
    query, key, value = row.split(query), row.split(key), row.split(value)
    if before is not None:
        num = query.shape[0]
        key, value = (torch.cat([b.expand(num, -1, -1, -1), s], 2) for b, s in zip(before, (key, value), strict=True))
        seen = row.prefix_mask(window, query.dtype)
        mask = pad(mask, (before[0].shape[2], 0)) if seen is None else torch.cat([row.split(seen), mask], -1)
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    return row.joined(scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None, scale=scaling))


AttentionInterface.register(NAME, attend_within_questions)
