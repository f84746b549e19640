"""A model in this process that answers chats, many at a time."""

import functools
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from model_inference import loading
from model_inference.decoding import Decoder, Row
from model_inference.prompts import Prompts
from slmkit import lineage, lora_adapter
from slmkit.answers import Answer
from slmkit.chat_client import AnswerError

if TYPE_CHECKING:
    from pathlib import Path

    from model_inference.answer_sources import AsksAModel, Prices, Request


class LocalModel:
    """In float32 an answer does not depend on the batch size, nor on what else is in the batch."""

    def __init__(
        self,
        args: "AsksAModel",
        prices: "Prices",
        *,
        truncate_prompt: bool = False,
        base_model: "Path | None" = None,
    ) -> None:
        model_sha256 = lineage.model_sha256(args.model, base_model)
        self.identity = f"{model_sha256} {args.prompt_format} {args.bf16} {truncate_prompt}"
        adapter = lora_adapter.read(args.model, base_model) if base_model else None
        # An adapter is asked as a server asks it: by the tokenizer and the chat template of its base.
        self.tokenizer = loading.load_tokenizer(base_model or args.model)
        self.model = loading.load_model(base_model or args.model, bf16=args.bf16, adapter=adapter)
        self._prompts = Prompts(
            self.tokenizer,
            args.prompt_format,
            max_tokens=loading.max_positions(self.model),
            truncate=truncate_prompt,
        )
        self._stops = loading.stop_token_ids(self.model, self.tokenizer)
        self._num_embeddings = self.model.get_input_embeddings().num_embeddings
        self._decoder = Decoder(self.model, batch_size=args.batch_size, is_end=self._is_end)
        self._price_per_hour = prices.machine_per_hour
        self._num_tokens, self._seconds = 0, 0.0

    @property
    def usage(self) -> dict[str, float]:
        return {
            "num_truncated": self._prompts.num_truncated,
            "tokens_per_second": self._num_tokens / self._seconds if self._seconds else 0.0,
        }

    def answers(self, requests: "Sequence[Request]") -> "Iterator[tuple[Request, Answer | AnswerError]]":
        """The refused requests first, then the others about as long prompts come before short ones."""
        asked = {}
        for request in requests:
            try:
                prompt = self._prompts.encode(request.messages, answer_tokens=request.max_new_tokens)
                if max(prompt) >= self._num_embeddings:
                    raise ValueError(f"the tokenizer is not the model's, which knows {self._num_embeddings:,} tokens")
            except ValueError as error:
                yield request, AnswerError(str(error))
                continue
            row = Row(prompt, request.max_new_tokens, request.temperature, seed=f"{request.seed} {request.key}")
            asked[row] = request
        started = time.perf_counter()
        for row in self._decoder.decode(list(asked)):
            self._seconds += time.perf_counter() - started
            self._num_tokens += len(row.tokens)
            yield asked[row], AnswerError(row.error) if row.error else self._answer(row)
            started = time.perf_counter()

    def _answer(self, row: Row) -> Answer:
        text, was_cut = self._text(row.tokens)
        is_complete = was_cut or row.tokens[-1] in self._stops
        return Answer(
            text.strip(),
            len(row.prompt),
            len(row.tokens),
            "stop" if is_complete else "length",
            cost=None if self._price_per_hour is None else row.machine_seconds / 3600 * self._price_per_hour,
            latency_ms=row.seconds * 1000,
        )

    def _is_end(self, tokens: list[int]) -> bool:
        return tokens[-1] in self._stops or (self._may_end_text(tokens[-1]) and self._text(tokens)[1])

    def _text(self, tokens: list[int]) -> tuple[str, bool]:
        """The text before the first stop string, and whether there was one."""
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        ends = [end for stop in self._prompts.stop_strings if (end := text.find(stop)) >= 0]
        return text[: min(ends, default=None)], bool(ends)

    @functools.cached_property
    def _may_end_text(self):
        """Whether a token can be the last of a stop string: asked of each new token, where decoding all is slow."""
        last = {stop[-1] for stop in self._prompts.stop_strings}

        @functools.cache
        def may_end(token: int) -> bool:
            return any(character in self.tokenizer.decode([token]) for character in last)

        return may_end
