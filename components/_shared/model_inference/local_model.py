"""A model in this process that answers chats, in batches of like length."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from model_inference import loading
from model_inference.prompts import Prompts
from slmkit import lineage
from slmkit.answers import Answer
from slmkit.chat_client import AnswerError

if TYPE_CHECKING:
    from model_inference.answer_sources import AsksAModel, Prices, Request


class LocalModel:
    """Greedy answers do not depend on the batch size in float32."""

    def __init__(self, args: "AsksAModel", prices: "Prices", *, truncate_prompt: bool = False) -> None:
        self.identity = f"{lineage.sha256(args.model)} {args.prompt_format} {args.bf16} {truncate_prompt}"
        self.tokenizer = loading.load_tokenizer(args.model)
        self.model = loading.load_model(args.model, bf16=args.bf16)
        self.num_truncated = 0
        self._prompt_format, self._truncate = args.prompt_format, truncate_prompt
        self._batch_size, self._price = args.batch_size, prices.machine_per_hour
        self._stops = loading.stop_token_ids(self.model, self.tokenizer)

    def answers(self, requests: "Sequence[Request]") -> "Iterator[tuple[Request, Answer | AnswerError]]":
        """The refused requests first, then the shortest prompts."""
        ready = []
        for request in requests:
            room = loading.max_positions(self.model) - request.max_new_tokens
            prompts = Prompts(self.tokenizer, self._prompt_format, max_tokens=room, truncate=self._truncate)
            try:
                ready.append((request, prompts.encode(request.messages)))
            except ValueError as error:
                yield request, AnswerError(str(error))
            self.num_truncated += prompts.num_truncated
        ready.sort(key=lambda pair: (len(pair[1]), pair[0].max_new_tokens))
        for start in range(0, len(ready), self._batch_size):
            yield from self._answer(ready[start : start + self._batch_size])

    def _answer(self, batch: "list[tuple[Request, list[int]]]") -> "Iterator[tuple[Request, Answer]]":
        import torch
        from transformers import GenerationConfig

        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(request.max_new_tokens for request, _ in batch),
            eos_token_id=sorted(self._stops),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        started = time.perf_counter()
        inputs = self.tokenizer.pad({"input_ids": [prompt for _, prompt in batch]}, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        with torch.inference_mode():
            rows = self.model.generate(**inputs, generation_config=greedy)[:, inputs["input_ids"].shape[1] :].tolist()
        latency_ms = (time.perf_counter() - started) * 1000
        for (request, prompt), row in zip(batch, rows, strict=True):
            row = row[: request.max_new_tokens]
            end = next((i for i, token in enumerate(row) if token in self._stops), None)
            tokens = row if end is None else row[: end + 1]
            text = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            reason = "length" if end is None else "stop"
            yield request, Answer(text, len(prompt), len(tokens), reason, latency_ms=latency_ms)
