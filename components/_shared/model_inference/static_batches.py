"""Answers by ``generate``, in batches of prompts of one length, for models that only their own code can carry on."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from model_inference.decoding import Row


class _Chosen(LogitsProcessor):
    """Leave each row only the token that it chooses, and note it as its next one."""

    def __init__(self, rows: "list[Row]", is_done: "Callable[[Row], bool]") -> None:
        self._rows, self._is_done = rows, is_done

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        only = torch.full_like(scores, float("-inf"))
        for row, row_scores, row_only in zip(self._rows, scores, only, strict=True):
            token = row.choose(row_scores)
            if not self._is_done(row):
                row.tokens.append(token)
                if self._is_done(row):
                    row.end()
            row_only[token] = 0
        return only


class _AllDone(StoppingCriteria):
    def __init__(self, rows: "list[Row]", is_done: "Callable[[Row], bool]") -> None:
        self._rows, self._is_done = rows, is_done

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.full((len(self._rows),), all(map(self._is_done, self._rows)), device=input_ids.device)


def answer_alike(
    model: "PreTrainedModel", rows: "list[Row]", batch_size: int, is_end: Callable[[list[int]], bool]
) -> "Iterator[Row]":
    """Answer rows whose prompts have the same number of tokens; in halves when the memory is too small."""
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        if _answer(model, batch, is_end):
            yield from batch
        elif len(batch) == 1:
            batch[0].error = f"out of memory with a prompt of {len(batch[0].prompt)} tokens"
            yield batch[0]
        else:
            yield from answer_alike(model, batch, (len(batch) + 1) // 2, is_end)


@torch.inference_mode()
def _answer(model: "PreTrainedModel", rows: "list[Row]", is_end: Callable[[list[int]], bool]) -> bool:
    def is_done(row: "Row") -> bool:
        return bool(row.tokens) and (bool(row.error) or len(row.tokens) >= row.max_new_tokens or is_end(row.tokens))

    started = time.perf_counter()
    for row in rows:
        row.restart()
    prompts = torch.tensor([row.prompt for row in rows], device=model.device)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=max(row.max_new_tokens for row in rows))
    # generate() takes over from the model's settings, such as penalties, what it is not given.
    settings, model.generation_config = model.generation_config, GenerationConfig()
    try:
        model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            generation_config=greedy,
            logits_processor=[_Chosen(rows, is_done)],
            stopping_criteria=[_AllDone(rows, is_done)],
        )
    except torch.OutOfMemoryError:
        return False
    finally:
        model.generation_config = settings
    for row in rows:
        row.machine_seconds = (time.perf_counter() - started) / len(rows)
    return True
