"""Asynchronous client of any OpenAI-compatible chat endpoint, with throttling, retries, a cache and the bill."""

import asyncio
import collections
import contextlib
import email.utils
import functools
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx

from slmkit.answer_cache import AnswerCache, cache_key
from slmkit.answers import Answer, Usage
from slmkit.endpoint_access import ROLES, Credential, checked_url, on_this_machine, sign_in
from slmkit.errors import UserError
from slmkit.structured_answers import ModelT, ask_again, parse_answer, response_format

log = logging.getLogger(__name__)

Message = dict[str, Any]
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

MAX_BACKOFF_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 600.0  # a longer wait is a used-up quota, which no retry gets over
MODEL_STATUS = "ms-azureml-model-error-statuscode"  # what the model answered where Azure ML says 424, model error


class AnswerError(Exception):
    """One request got no answer for good; it is counted, and the others go on."""


class _RetryError(Exception):
    """A failure that may pass; ``shared`` when every worker had better wait, ``after`` seconds if the endpoint says."""

    def __init__(self, reason: str, *, shared: bool = False, after: float | None = None) -> None:
        super().__init__(reason)
        self.shared = shared
        self.after = after


class ChatClient:
    """``async with ChatClient(...) as client: answer = await client.complete(messages, temperature=0)``.

    ``auth="azure"`` or ``"azure_ml"`` signs in by ``DefaultAzureCredential``; a key is never taken. ``prices`` are per
    million prompt and completion tokens. ``cache_as`` stands for the base URL in the keys of the cache where the URL is
    not stable.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        auth: str = "none",
        concurrency: int = 8,
        max_retries: int = 6,
        timeout_seconds: float = 120.0,
        cache_path: Path | None = None,
        cache_as: str | None = None,
        prices: tuple[float, float] | None = None,
        backoff_seconds: float = 0.5,
        credential: Credential | None = None,
    ) -> None:
        self.base_url, self._url = checked_url(base_url)
        self.model = model
        self.concurrency = concurrency
        self.max_retries = max_retries
        self.usage = Usage(prices)
        self._backoff_seconds = backoff_seconds
        self._auth, self._sign_in = auth, sign_in(self.base_url, auth, credential)
        self._cache = AnswerCache(cache_path) if cache_path else None
        self._cached_as = cache_as or self.base_url
        self._slots = asyncio.Semaphore(concurrency)
        self._resume_at = 0.0  # the one cool-down, on the monotonic clock, that all workers share
        self._num_replies = 0  # of whatever kind
        self._num_served = 0  # replies that were no sign of trouble at the endpoint
        self._timeout_seconds = timeout_seconds
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_seconds, connect=min(10.0, timeout_seconds)),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            trust_env=not on_this_machine(self._url),  # where no proxy reaches
        )

    async def __aenter__(self) -> "ChatClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        if self._cache:
            self._cache.close()

    async def complete(self, messages: list[Message], **params: Any) -> Answer:
        """Ask once; ``AnswerError`` when this request fails for good, ``UserError`` when all of them would."""
        answer, _ = await self._complete(messages, params, lambda text: text, max_repairs=0)
        return answer

    async def complete_structured(
        self, messages: list[Message], answer_type: type[ModelT], *, max_repairs: int = 2, **params: Any
    ) -> tuple[Answer, ModelT | None]:
        """Ask for JSON that follows a pydantic model, again after a malformed answer; None when it was refused."""
        params["response_format"] = response_format(answer_type)
        return await self._complete(messages, params, functools.partial(parse_answer, answer_type), max_repairs)

    async def each(
        self, items: Iterable[ItemT], ask: Callable[[ItemT], Awaitable[ResultT]]
    ) -> AsyncIterator[tuple[ItemT, ResultT | AnswerError]]:
        """Await ``ask(item)`` for many items, a few at a time, and yield in the order of the items."""
        iterator = iter(items)
        running: collections.deque[asyncio.Task] = collections.deque()

        async def one(item: ItemT) -> tuple[ItemT, ResultT | AnswerError]:
            try:
                return item, await ask(item)
            except AnswerError as error:
                return item, error

        try:
            while True:
                ahead = 4 * self.concurrency - len(running)  # so that one slow answer does not hold up the others
                running.extend(asyncio.ensure_future(one(item)) for item in itertools.islice(iterator, ahead))
                if not running:
                    return
                yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _complete(
        self, messages: list[Message], params: dict[str, Any], check: Callable[[str], ResultT], max_repairs: int
    ) -> tuple[Answer, ResultT | None]:
        key = cache_key(self._cached_as, self.model, messages, params)
        if self._cache and (known := self._cache.get(key)):
            with contextlib.suppress(ValueError):  # the checks have become stricter: ask again
                checked = check(known["text"])
                self.usage.cached += 1
                return Answer(**known, cached=True), checked
        asked = messages
        try:
            for _ in range(max_repairs + 1):
                answer = await self._ask(asked, params)
                if answer.refused:
                    self.usage.refused += 1
                    return answer, None
                try:
                    checked = check(answer.text)
                except ValueError as error:
                    self.usage.malformed += 1
                    reason = str(error)
                    asked = [*messages, *ask_again(answer.text, reason)]
                    continue
                if self._cache:
                    self._cache.put(key, answer.kept())
                self.usage.answers += 1
                return answer, checked
            raise AnswerError(f"malformed answer, asked {max_repairs + 1} times: {reason}")
        except AnswerError:
            self.usage.failed += 1
            raise

    async def _ask(self, messages: list[Message], params: dict[str, Any]) -> Answer:
        body = {"model": self.model, "messages": messages, **params}
        num_served_before = self._num_served
        for attempt in itertools.count():
            try:
                async with self._slots:
                    while (left := self._resume_at - time.monotonic()) > 0:
                        await asyncio.sleep(left)
                    return await self._post(body)
            except _RetryError as failure:
                if attempt >= self.max_retries:
                    if failure.shared and self._num_served == num_served_before:
                        raise UserError(
                            f"{self.base_url}: {failure}, {attempt + 1} times in a row with no request answered; "
                            "ask for more quota, or lower concurrency and start again: what was answered is kept"
                        ) from None
                    raise AnswerError(f"{failure} ({attempt + 1} attempts)") from None
                self.usage.retries += 1
                delay = self._delay(failure, attempt)
                log.warning("%s: %s, %.1f s of rest", self.base_url, failure, delay)
                if failure.shared:
                    self._resume_at = max(self._resume_at, time.monotonic() + delay)
                else:
                    await asyncio.sleep(delay)

    def _delay(self, failure: _RetryError, attempt: int) -> float:
        if not failure.after:  # nor is a wait of 0 s one
            return min(MAX_BACKOFF_SECONDS, self._backoff_seconds * 2**attempt) * random.uniform(0.5, 1.0)
        if failure.after > MAX_RETRY_AFTER_SECONDS:
            raise UserError(
                f"{self.base_url}: {failure}, and asks to wait {failure.after:.0f} s; the quota is used up: "
                "start again later, what was answered is kept"
            )
        return failure.after

    async def _post(self, body: dict[str, Any]) -> Answer:
        headers = await self._sign_in.headers() if self._sign_in else {}
        self.usage.requests += 1
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_seconds):  # httpx's own begins anew with each byte that comes
                response = await self._http.post(self._url, json=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if not self._num_replies:
                raise UserError(
                    f"nothing answers at {self.base_url} ({_one_line(str(error) or type(error).__name__)}): check the "
                    "URL, and that the endpoint is running and can be reached from here"
                ) from None
            raise _RetryError("nothing answers any more", shared=True) from None
        except (httpx.TimeoutException, TimeoutError) as error:
            raise _RetryError(f"no answer in time ({type(error).__name__})") from None
        except httpx.RequestError as error:
            raise _RetryError(f"the connection broke ({type(error).__name__})") from None
        self._num_replies += 1
        return self._read(response, (time.perf_counter() - started) * 1000)

    def _read(self, response: httpx.Response, latency_ms: float) -> Answer:
        status = response.status_code
        if status == 424 and (said := response.headers.get(MODEL_STATUS, "")).isdecimal():
            status = int(said)
        if status in (429, 503):
            self.usage.throttled += 1
            raise _RetryError(f"HTTP {status}", shared=True, after=retry_after_seconds(response.headers))
        if status == 408 or status >= 500:
            raise _RetryError(f"HTTP {status}")
        if status in (401, 403):
            raise UserError(f"{self.base_url} refused access (HTTP {status}): {self._advice()}")
        if status == 404:
            raise UserError(
                f"{self.base_url} knows no model {self.model!r} (HTTP 404): check the name of the deployment, and that "
                "the base URL ends where /chat/completions follows (mostly in /v1)"
            )
        try:
            payload = response.json()
        except (ValueError, RecursionError):
            payload = None
        if status != 200:
            self._num_served += 1
            error = payload.get("error") if isinstance(payload, dict) else None
            error = error if isinstance(error, dict) else {}
            if status == 400 and error.get("code") == "content_filter":
                return Answer("", 0, 0, "content_filter", refused=True)
            raise AnswerError(f"HTTP {status}: {self._safe(str(error.get('message') or response.text))}")
        try:
            choice, tokens = payload["choices"][0], payload.get("usage") or {}
            message, finish_reason = choice["message"], choice.get("finish_reason") or "stop"
            refused = finish_reason == "content_filter" or bool(message.get("refusal"))
            text = "" if refused else message.get("content") or ""
            logprobs = (choice.get("logprobs") or {}).get("content")
            counts = int(tokens.get("prompt_tokens") or 0), int(tokens.get("completion_tokens") or 0)
            text = _whole_characters(text)
        except (TypeError, KeyError, IndexError, ValueError, AttributeError, OverflowError):
            raise _RetryError("HTTP 200 without a chat completion in it") from None
        self._num_served += 1
        self.usage.prompt_tokens += counts[0]
        self.usage.completion_tokens += counts[1]
        self.usage.latencies_ms.append(latency_ms)
        return Answer(
            text,
            *counts,
            finish_reason,
            self.usage.cost(*counts),
            latency_ms,
            refused=refused,
            logprobs=logprobs,
            deployment=response.headers.get("azureml-model-deployment"),
        )

    def _advice(self) -> str:
        if self._sign_in:
            return f"give this identity the role {ROLES[self._auth]!r} on the resource"
        return "it wants a sign-in; set auth to azure if it is an Azure endpoint"

    def _safe(self, text: str) -> str:
        """What the endpoint says, in one line, without the token if it sent that back."""
        return _one_line(self._sign_in.without_token(text) if self._sign_in else text)


def retry_after_seconds(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """How long the endpoint asks to wait: ``retry-after-ms``, or ``Retry-After`` in seconds or as an HTTP date."""
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            return max(0.0, float(headers.get(name, "")) / per_second)
    with contextlib.suppress(ValueError):
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    return None


def _one_line(text: str) -> str:
    return " ".join(_whole_characters(text).split())[:300]


def _whole_characters(text: str) -> str:
    """Half a character (a lone surrogate), which JSON can carry, would stop every writer."""
    return text.encode("utf-8", "replace").decode()
