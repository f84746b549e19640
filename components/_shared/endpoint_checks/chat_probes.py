"""The checks of a chat endpoint: each returns what it saw, or raises a CheckError that says what was wrong."""

import json
from collections.abc import Sequence

import httpx

from endpoint_checks.chat_calls import Calls, CheckError, Streamed, shown

ENGLISH = "How do I return an item and get my money back?"
JAPANESE = "注文した商品を返品するにはどうすればよいですか？"
KOREAN = "환불은 언제까지 가능한가요?"
QUESTIONS = (ENGLISH, JAPANESE, KOREAN)
BEYOND_16_BITS = "🌊"  # two escapes in JSON, four bytes in UTF-8
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_TOKENS = 48
MAX_STRAY_FRACTION = 0.1  # of the characters; an endpoint that breaks them breaks nearly all of Japanese and Korean
NO_ADAPTER = "no-such-adapter"
HUGE_BYTES = 10 * 2**20
MODEL_STATUS = "ms-azureml-model-error-statuscode"  # what the model answered where Azure ML says 424, model error


async def chat_schema(calls: Calls) -> str:
    found = await calls.ask(ENGLISH, MAX_TOKENS)
    usage = found.usage
    if usage.total_tokens != usage.prompt_tokens + usage.completion_tokens:
        raise CheckError(
            f"{usage.prompt_tokens} + {usage.completion_tokens} tokens are said to be {usage.total_tokens}"
        )
    if usage.completion_tokens > MAX_TOKENS:
        raise CheckError(f"asked for {MAX_TOKENS} tokens, got {usage.completion_tokens}")
    return f"{usage.completion_tokens} tokens for {usage.prompt_tokens}, finish_reason {found.choices[0].finish_reason}"


async def streaming(calls: Calls) -> str:
    """The events are right, arrive as they are made, and say what the endpoint says without streaming."""
    num_pieces, num_compared = 0, 0
    for question in QUESTIONS:
        streamed = await calls.stream(question, MAX_TOKENS)
        _check_events(streamed)
        num_pieces = max(num_pieces, streamed.num_pieces)
        whole = await calls.ask(question, MAX_TOKENS)
        if streamed.text == whole.text:
            num_compared += 1
        elif (await calls.ask(question, MAX_TOKENS)).text == whole.text:
            raise CheckError(f"streamed {shown(streamed.text)!r}, but answers {shown(whole.text)!r} without streaming")
    if num_pieces < 2:
        raise CheckError("each stream arrived in one piece: something on the way holds it back until its end")
    same = f"{num_compared} of 3 the same as without streaming"
    return f"in up to {num_pieces} pieces; {same}" + (", the others vary by themselves" if num_compared < 3 else "")


def _check_events(streamed: Streamed) -> None:
    reasons = [choice.finish_reason for choice in streamed.choices]
    if not reasons or streamed.choices[0].delta.role != "assistant":
        raise CheckError("the first event of the stream does not name the role assistant")
    if reasons[-1] not in ("stop", "length") or any(reasons[:-1]):
        raise CheckError(f"the stream must end, once, with finish_reason stop or length; it ends with {reasons[-1]}")
    if not streamed.is_done:
        raise CheckError("the stream ends without data: [DONE]")


async def unicode_ja(calls: Calls) -> str:
    return await _unicode(calls, JAPANESE)


async def unicode_ko(calls: Calls) -> str:
    return await _unicode(calls, KOREAN)


async def _unicode(calls: Calls, question: str) -> str:
    """The question arrives as it is, in UTF-8 and in JSON's escapes, and the endpoint breaks no character of an answer.

    A stray byte that the model itself writes is broken in each form of its answer, and is no fault of the endpoint.
    """
    question += BEYOND_16_BITS
    plain, escaped = [await calls.ask(question, MAX_TOKENS, escaped=escaped) for escaped in (False, True)]
    num_tokens = plain.usage.prompt_tokens
    if num_tokens != escaped.usage.prompt_tokens:
        raise CheckError(f"the question is {num_tokens} tokens in UTF-8 and {escaped.usage.prompt_tokens} escaped")
    if plain.text != escaped.text and (await calls.ask(question, MAX_TOKENS)).text == plain.text:
        raise CheckError(f"asked in UTF-8 it answers {shown(plain.text)!r}, asked escaped {shown(escaped.text)!r}")
    for lost in ("?", REPLACEMENT):
        other = await calls.ask("".join(letter if letter.isascii() else lost for letter in question), MAX_TOKENS)
        if (other.usage.prompt_tokens, other.text) == (num_tokens, plain.text):
            raise CheckError(f"it takes the question for {lost!r} in place of each character: {num_tokens} tokens, too")
    streamed = (await calls.stream(question, MAX_TOKENS)).text
    # Some servers show the last character that the token limit has cut.
    texts = [text.rstrip(REPLACEMENT) for text in (plain.text, streamed)]
    num_broken = [text.count(REPLACEMENT) for text in texts]
    for text, num in zip(texts, num_broken, strict=True):
        if num and (0 in num_broken or num > MAX_STRAY_FRACTION * len(text)):
            raise CheckError(f"a broken character in the answer: {shown(text)!r}")
    read = f"read as the same {num_tokens} tokens in UTF-8 and escaped"
    if not any(texts):
        return f"{read}; the model wrote nothing, so only the way in was tested"
    broken = "stray bytes of the model" if any(num_broken) else "no broken character"
    return f"{read}; {broken} in {len(texts[0])} characters, and in {len(texts[1])} streamed"


async def adapters(calls: Calls, names: Sequence[str]) -> str:
    """Each name answers as itself; were a name that nobody has answered too, the base might answer for all of them."""
    for name in names:
        try:
            found = await calls.of(name).ask(ENGLISH, MAX_TOKENS)
        except CheckError as failure:
            raise CheckError(f"{name}: {failure}") from None
        if found.model != name:
            raise CheckError(f"{name}: asked for it, {shown(found.model)!r} answered")
    answer = await calls.of(NO_ADAPTER).post(json.dumps(calls.of(NO_ADAPTER).body(ENGLISH, 1)).encode())
    if not 400 <= status_of(answer) < 500:
        raise CheckError(f"{NO_ADAPTER}, which is none of them: expected a status of 4xx, got {status_of(answer)}")
    return f"{len(names)} of {len(names)} answer by their names; {NO_ADAPTER} is refused with {status_of(answer)}"


def status_of(answer: httpx.Response) -> int:
    """The model's own, where Azure ML says 424 for it."""
    return int(answer.headers.get(MODEL_STATUS, answer.status_code))


async def malformed_body(calls: Calls) -> str:
    """Refused with 4xx, and the endpoint goes on answering."""
    seen = {}
    for name, content in malformed_bodies(calls).items():
        status = status_of(await calls.post(content))
        if not 400 <= status < 500:
            raise CheckError(f"{name}: expected a status of 4xx, got {status}")
        seen[name] = status
    await calls.ask(ENGLISH, 1)
    statuses = sorted(set(seen.values()))
    return f"{len(seen)} of {len(seen)} refused with {', '.join(map(str, statuses))}"


def malformed_bodies(calls: Calls) -> dict[str, bytes]:
    good = calls.body(ENGLISH, 1)
    wrong = {
        "no messages": {name: value for name, value in good.items() if name != "messages"},
        "empty messages": good | {"messages": []},
        "messages as text": good | {"messages": "hello"},
        "messages of numbers": good | {"messages": [1, 2]},
        "unknown role": good | {"messages": [{"role": "wizard", "content": "hello"}]},
        "content as a number": good | {"messages": [{"role": "user", "content": 3}]},
        "negative max_tokens": good | {"max_tokens": -1},
        "max_tokens as text": good | {"max_tokens": "many"},
    }
    return {
        "not JSON": b"{hello",
        "no body": b"",
        "not an object": b"[1]",
        "not UTF-8": b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
        **{name: json.dumps(content).encode() for name, content in wrong.items()},
        f"{HUGE_BYTES // 2**20} MiB of nothing": b"a" * HUGE_BYTES,
    }
