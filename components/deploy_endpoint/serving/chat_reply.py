"""An answer as it is made, and its form on the wire: one chat.completion, or a stream of chat.completion.chunk."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from chat_request import ChatRequest
from engines import Engine
from token_text import AnswerText

DEFAULT_MAX_TOKENS = 1024
MAX_TOKENS = 4096  # in the 180 seconds of an Azure ML request a CPU makes no more; memory is set aside for each of them
DONE = b"data: [DONE]\n\n"


class Reply:
    """The answer to one request; ``model`` is the name by which it is said who answered."""

    def __init__(self, engine: Engine, model: str, prompt: list[int], request: ChatRequest) -> None:
        self._engine, self._prompt, self._request = engine, prompt, request
        self._about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        wanted = request.max_completion_tokens or request.max_tokens or DEFAULT_MAX_TOKENS
        self._max_tokens = min(wanted, MAX_TOKENS, engine.context_length - len(prompt))
        self._num_tokens = 0
        self._finish_reason = "length"

    def pieces(self) -> Iterator[str]:
        """The text, a piece for each token: an empty one as long as a character or a stop string is incomplete."""
        asked, text = self._request, AnswerText(self._engine.decoder(), self._request.stop or ())
        top_p = 1.0 if asked.top_p is None else asked.top_p
        tokens = self._engine.stream(self._prompt, self._max_tokens, asked.temperature or 0.0, top_p, asked.seed)
        for token_id in tokens:
            self._num_tokens += 1
            yield text.put(token_id)
            if text.stopped:
                break
        yield text.end()
        if text.stopped or self._num_tokens < self._max_tokens:
            self._finish_reason = "stop"

    def completion(self, text: str) -> bytes:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": self._finish_reason,
        }
        content = self._about | {"object": "chat.completion", "choices": [choice], "usage": self._usage()}
        return _json(content)

    def events(self, pieces: Iterator[str]) -> Iterator[bytes]:
        """The role at once, so that a client knows that it is being served; then the text, the reason of the end."""
        yield self._event({"role": "assistant", "content": ""})
        for piece in pieces:
            if piece:
                yield self._event({"content": piece})
        yield self._event({}, self._finish_reason)
        if self._includes_usage():
            content = self._about | {"object": "chat.completion.chunk", "choices": [], "usage": self._usage()}
            yield b"data: " + _json(content) + b"\n\n"
        yield DONE

    def _event(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        content = self._about | {"object": "chat.completion.chunk", "choices": [choice]}
        if self._includes_usage():
            content["usage"] = None
        return b"data: " + _json(content) + b"\n\n"

    def _includes_usage(self) -> bool:
        return bool(self._request.stream_options and self._request.stream_options.include_usage)

    def _usage(self) -> dict[str, int]:
        prompt, completion = len(self._prompt), self._num_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def error_event(body: dict[str, Any]) -> bytes:
    """What tells a client in the middle of a stream that no more comes."""
    return b"data: " + _json(body) + b"\n\n"


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
