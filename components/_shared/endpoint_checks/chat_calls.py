"""Requests in OpenAI's chat form, and what must hold of every answer to one."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from pydantic import BaseModel, Field, ValidationError

Headers = Mapping[str, str]
MAX_SAID = 160


class CheckError(Exception):
    """What was seen instead of what a client needs, in one line."""


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str


class Choice(BaseModel):
    index: Literal[0]
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    prompt_tokens: int = Field(gt=0)
    completion_tokens: int = Field(ge=0)
    total_tokens: int


class Completion(BaseModel):
    """The part of chat.completion that clients read."""

    id: str = Field(min_length=1)
    object: Literal["chat.completion"]
    created: int = Field(gt=0)
    model: str
    choices: list[Choice] = Field(min_length=1, max_length=1)
    usage: Usage

    @property
    def text(self) -> str:
        return self.choices[0].message.content


class Delta(BaseModel):
    role: str | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    delta: Delta
    finish_reason: str | None = None


class Chunk(BaseModel):
    """The part of chat.completion.chunk that clients read; one with the usage alone has no choice."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]


@dataclass(frozen=True)
class Streamed:
    """What a stream brought: the choices of its chunks, whether it said ``[DONE]``, and in how many pieces it came."""

    choices: list[ChunkChoice]
    is_done: bool
    num_pieces: int

    @property
    def text(self) -> str:
        return "".join(choice.delta.content or "" for choice in self.choices)


class Calls:
    """One endpoint, and how it is asked."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        headers: Headers | Callable[[], Headers | Awaitable[Headers]],
        model: str | None,
    ) -> None:
        self._client, self._url, self._headers, self.model = client, url, headers, model

    def of(self, model: str) -> "Calls":
        """The same endpoint, asked for another model."""
        return Calls(self._client, self._url, self._headers, model)

    def body(self, question: str, max_tokens: int, **more: Any) -> dict[str, Any]:
        model = {"model": self.model} if self.model else {}
        chat = {"messages": [{"role": "user", "content": question}], "max_tokens": max_tokens, "temperature": 0}
        return model | chat | more

    async def ask(self, question: str, max_tokens: int, *, escaped: bool = False) -> Completion:
        content = json.dumps(self.body(question, max_tokens), ensure_ascii=escaped).encode()
        response = await self.post(content)
        expect_success(response.status_code, response.text)
        try:
            return Completion.model_validate_json(response.content)
        except ValidationError as error:
            raise CheckError(f"not the chat.completion form: {_first(error)}") from None

    async def post(self, content: bytes) -> httpx.Response:
        try:
            headers = await self._all_headers()
            async with self._in_time():
                return await self._client.post(self._url, content=content, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise CheckError(f"no answer: {type(error).__name__} {error}".strip()) from None

    async def stream(self, question: str, max_tokens: int) -> Streamed:
        body = self.body(question, max_tokens, stream=True)
        pieces = []
        try:
            headers = await self._all_headers()
            async with self._in_time(), self._client.stream("POST", self._url, json=body, headers=headers) as response:
                async for piece in response.aiter_bytes():
                    pieces.append(piece)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise CheckError(f"the stream broke: {type(error).__name__} {error}".strip()) from None
        content = b"".join(pieces)
        expect_success(response.status_code, content.decode(errors="replace"))
        kind = response.headers.get("content-type", "none")
        if not kind.startswith("text/event-stream"):
            raise CheckError(f"the stream's content type is {kind}, not text/event-stream")
        return _streamed(content, len(pieces))

    def _in_time(self) -> asyncio.Timeout:
        return asyncio.timeout(self._client.timeout.read)  # httpx's own begins anew with each byte that comes

    async def _all_headers(self) -> dict[str, str]:
        headers = self._headers() if callable(self._headers) else self._headers
        if inspect.isawaitable(headers):
            headers = await headers
        return {"Content-Type": "application/json", **headers}


def expect_success(status: int, text: str) -> None:
    if status != 200:
        raise CheckError(f"status {status}: {shown(text)}")


def shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_SAID else text[:MAX_SAID] + " …"


def _streamed(content: bytes, num_pieces: int) -> Streamed:
    try:
        lines = content.decode().replace("\r", "\n").split("\n")  # str.splitlines() would break within a JSON string
    except UnicodeDecodeError:
        raise CheckError("the stream is not UTF-8") from None
    events = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    is_done = bool(events) and events[-1] == "[DONE]"
    try:
        chunks = [Chunk.model_validate_json(event) for event in events[: len(events) - is_done]]
    except ValidationError as error:
        raise CheckError(f"an event of the stream is no chat.completion.chunk: {_first(error)}") from None
    return Streamed([choice for chunk in chunks for choice in chunk.choices], is_done, num_pieces)


def _first(error: ValidationError) -> str:
    found = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, found['loc'])) or 'the whole'}: {found['msg']}"
