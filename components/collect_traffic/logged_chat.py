"""What was asked and what was answered, from the bodies of a request and its response."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_ASKED = ("messages", "prompt", "question", "query", "chat_input", "input", "inputs", "text")
_ANSWERED = ("output", "answer", "response", "completion", "prediction", "generated_text", "text")
_MAX_ERROR_LENGTH = 1200
BROKEN_OFF = "the stream ended before the answer did"
UNREADABLE = "the stream has an event that is no JSON object"
NO_ANSWER = "the response has no text where the answer stands"

Messages = list[dict[str, Any]]


class NotAChatError(ValueError):
    """The request is none; the message quotes nothing of it."""


class Answer(NamedTuple):
    output: str | None
    status: int
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    model: str | None = None
    error: str | None = None


def messages_of(data: Any, column: str | None) -> Messages:
    """The chat that a request asks to go on with; of a row of a table or another form, the text in its column."""
    data = _body(data)
    if isinstance(data, str) and data.strip():
        return [{"role": "user", "content": data}]
    if not isinstance(data, dict):
        raise NotAChatError("the request is not a chat")
    asked = _parsed(_column(data, column, _ASKED))
    if isinstance(asked, str) and asked.strip():
        return [{"role": "user", "content": asked}]
    if not isinstance(asked, list) or not asked:
        raise NotAChatError(f"the request has no chat in {column or 'messages, prompt or the like'}")
    return [_message(message) for message in asked]


def model_asked(data: Any) -> str | None:
    """Whom a request names as the one to answer; None where it leaves that to the endpoint."""
    data = _body(data)
    return _text(data.get("model")) if isinstance(data, dict) else None


def chat_of(content: dict[str, Any]) -> tuple[Messages, Answer]:
    """A chat that holds its answer: as its output, or as the last of its messages."""
    messages = [_message(message) for message in content["messages"]]
    status = content.get("status")
    status = status if _is_count(status) else 200
    if "output" in content and (content["output"] is None or isinstance(content["output"], str)):
        output = content["output"]
    elif messages and messages[-1]["role"] == "assistant":
        output = messages.pop()["content"]
    else:
        raise NotAChatError("the chat does not end in an answer")
    if not messages:
        raise NotAChatError("the chat has no request before its answer")
    return messages, Answer(output, status, **_about(content, content), error=_short(content.get("error")))


def answer_of(data: Any, status: int | None, column: str | None) -> Answer:
    """What was answered; ``status`` is None where the log does not say it, as that of Azure ML does not."""
    known = status if _is_count(status) and 100 <= status <= 599 else None
    if isinstance(data, str) and data.lstrip().startswith(("data:", "event:", ":")):
        return _streamed(data, known or 200)
    data = _body(data)
    error = _error(data)
    if error is None and known is not None and known >= 400:
        error = f"status {known}"
    if error is not None:
        return Answer(None, known or _status_of(data), error=error)
    if isinstance(data, dict):
        choice = _first(data.get("choices"))
        if choice is not None:
            message = choice.get("message")
            output = _text(_said(message) if isinstance(message, dict) else choice.get("text"))
            return Answer(output, known or 200, **_about(data, choice), error=_missing(output))
        is_there = column in data if column else len(data) == 1 or any(name in data for name in _ANSWERED)
        if not is_there:
            raise NotAChatError(f"the response has no answer in {column or 'output, answer or the like'}")
        output = _text(_column(data, column, _ANSWERED))
        return Answer(output, known or 200, **_about(data, data), error=_missing(output))
    return Answer(_text(data), known or 200, error=_missing(_text(data)))


def _body(data: Any) -> Any:
    """What was sent, whether the log holds it as text, as an object or as the only one of a list."""
    data = _parsed(data)
    return data[0] if isinstance(data, list) and len(data) == 1 else data


def _streamed(text: str, status: int) -> Answer:
    """A stream of server-sent events, put together."""
    pieces, about, error, ended = [], {}, None, False
    for chunk in _chunks(text):
        if chunk is None:
            ended = True
            continue
        error = error or _error(chunk)
        choice = _first(chunk.get("choices")) or {}
        if choice.get("index"):
            continue  # of a second answer to the same request
        delta = choice.get("delta")
        pieces.append(_said(delta) if isinstance(delta, dict) else _text(choice.get("text")) or "")
        about |= {name: value for name, value in _about(chunk, choice).items() if value is not None}
    error = error or (None if ended or "finish_reason" in about else BROKEN_OFF)
    if status >= 400:
        error = error or f"status {status}"
    return Answer(None if error else "".join(pieces), status, **about, error=error)


def _chunks(text: str) -> Iterator[dict[str, Any] | None]:
    """The objects of a stream, and None for its end."""
    for line in re.split(r"\r\n|\r|\n", text):  # str.splitlines() would break at what a JSON string may hold
        if line.startswith("data:"):
            content = line[5:].strip()
            if content == "[DONE]":
                yield None
            elif content:
                yield chunk if isinstance(chunk := _parsed(content), dict) else {"error": UNREADABLE}


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise NotAChatError("a message of the request has no known role")
    return {"role": message["role"], "content": _said(message)}


def _said(message: dict[str, Any]) -> str:
    """The text of a message or of a piece of one; what it calls where it says nothing."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "\n".join(text for text in texts if isinstance(text, str))
    if content is not None and not isinstance(content, str):
        raise NotAChatError("a message has no text")
    calls = message.get("tool_calls")
    if not content and isinstance(calls, list):
        functions = [call.get("function") for call in calls if isinstance(call, dict)]
        parts = [f.get(name) for f in functions if isinstance(f, dict) for name in ("name", "arguments")]
        content = "".join(part for part in parts if isinstance(part, str))
    return content or ""


def _about(reply: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
    usage = reply.get("usage") if isinstance(reply.get("usage"), dict) else reply
    counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
    texts = {"finish_reason": choice.get("finish_reason"), "model": reply.get("model")}
    return {
        **{name: count if _is_count(count) else None for name, count in counts.items()},
        **{name: text if isinstance(text, str) else None for name, text in texts.items()},
    }


def _error(data: Any) -> str | None:
    """What an error in OpenAI's or Azure's form says."""
    if not isinstance(data, dict) or data.get("choices"):
        return None
    error = data if data.get("object") == "error" else data.get("error")  # the former is what vLLM wrote for long
    if not error:
        return None
    return _short(error.get("message") or error.get("code") if isinstance(error, dict) else error) or "an error"


def _status_of(data: Any) -> int:
    error = data if data.get("object") == "error" else data.get("error")
    for value in (error.get("code"), error.get("status")) if isinstance(error, dict) else ():
        if str(value).isdecimal() and 400 <= int(str(value)[:4]) <= 599:
            return int(value)
    return 500


def _column(row: dict[str, Any], column: str | None, usual: tuple[str, ...]) -> Any:
    if column is not None:
        return row.get(column)
    found = next((row[name] for name in usual if row.get(name) is not None), None)
    return next(iter(row.values())) if found is None and len(row) == 1 else found


def _parsed(data: Any) -> Any:
    """A text that is JSON as what it says."""
    if isinstance(data, str) and data.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return data
    return data


def _first(choices: Any) -> dict[str, Any] | None:
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _missing(output: str | None) -> str | None:
    return NO_ANSWER if output is None else None


def _short(text: Any) -> str | None:
    return " ".join(text[:_MAX_ERROR_LENGTH].split()) if isinstance(text, str) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
