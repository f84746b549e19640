"""What answers chats: a model in this process, or an OpenAI-compatible endpoint, behind one interface."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from model_inference.prompts import check_question
from slmkit.answers import Answer
from slmkit.chat_client import AnswerError, ChatClient
from slmkit.errors import UserError


class AsksAModel(Protocol):
    """The input ports, spelled alike, of every component that asks a model."""

    model: Path | None
    endpoint: str | None
    endpoint_model: str | None
    auth: str
    concurrency: int
    prompt_format: str
    batch_size: int
    bf16: bool


@dataclass(frozen=True)
class Request:
    """A chat to be answered; greedily, unless a temperature is given, then the same for the same seed and key."""

    key: str
    messages: list[dict[str, Any]]
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    top_logprobs: int | None = None  # likeliest tokens to name at each place, which an endpoint may do
    response_format: dict[str, Any] | None = field(default=None, hash=False)  # which an endpoint may obey


@dataclass(frozen=True)
class Prices:
    """What an answer costs: per million tokens at an endpoint, per hour of the machine here."""

    per_million_prompt_tokens: float | None = None
    per_million_completion_tokens: float | None = None
    machine_per_hour: float | None = None


class AnswerSource(Protocol):
    identity: str
    """What the answers depend on beside the requests, for a ``ResumeLog``."""

    @property
    def usage(self) -> Mapping[str, float]:
        """What was done so far, in figures to log."""
        ...

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Answer | AnswerError]]:
        """Each request with its answer, in the order in which they are ready; an error is of that request alone."""
        ...


@contextlib.contextmanager
def connect(
    args: AsksAModel,
    prices: Prices = Prices(),
    *,
    truncate_prompt: bool = False,
    base_model: Path | None = None,
) -> Iterator[AnswerSource]:
    """The model or the endpoint that the arguments name; ``UserError`` unless it is exactly one of them.

    With ``base_model``, the model is a LoRA adapter on it.
    """
    check_one(args)
    if args.model is not None:
        from model_inference.local_model import LocalModel

        yield LocalModel(args, prices, truncate_prompt=truncate_prompt, base_model=base_model)
    elif base_model is not None:
        raise UserError("base_model is what the adapter in model is asked on; an endpoint has a base of its own")
    else:
        with contextlib.closing(Endpoint(args, prices)) as endpoint:
            yield endpoint


def check_one(args: AsksAModel) -> None:
    if (args.model is None) == (args.endpoint is None):
        found = "neither" if args.model is None else "both"
        raise UserError(f"give either model or endpoint; found {found}")
    if args.endpoint is not None and not args.endpoint_model:
        raise UserError("endpoint needs endpoint_model, the name of the model or of the deployment there")


class Endpoint:
    """Any OpenAI-compatible endpoint, vLLM's server and Azure OpenAI among them."""

    def __init__(self, args: AsksAModel, prices: Prices) -> None:
        if args.prompt_format != "chat":
            raise UserError("an endpoint is asked with chats; prompt_format=plain is for a model")
        self.identity = f"{args.endpoint} {args.endpoint_model}"
        asked = prices.per_million_prompt_tokens, prices.per_million_completion_tokens
        # One event loop for all calls of answers(): connections and the cool-down outlive a call.
        self._runner = asyncio.Runner()
        self._client = ChatClient(
            args.endpoint,
            args.endpoint_model,
            auth=args.auth,
            concurrency=args.concurrency,
            prices=None if None in asked else asked,
        )

    @property
    def usage(self) -> dict[str, float]:
        return self._client.usage.summary()

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Answer | AnswerError]]:
        """In the order of the requests; a few are asked ahead."""
        answered = self._client.each(requests, self._ask)
        while (pair := self._runner.run(_next(answered))) is not None:
            yield pair

    async def _ask(self, request: Request) -> Answer:
        try:
            check_question(request.messages)
        except ValueError as error:
            raise AnswerError(str(error)) from None
        params: dict[str, Any] = {"max_tokens": request.max_new_tokens, "temperature": request.temperature}
        if request.temperature:
            params["seed"] = request.seed
        if request.top_logprobs:
            params |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.response_format:
            params["response_format"] = request.response_format
        return await self._client.complete(request.messages, **params)

    def close(self) -> None:
        self._runner.run(self._client.__aexit__())
        self._runner.close()


async def _next(answered: AsyncIterator[Any]) -> Any:
    return await anext(answered, None)
