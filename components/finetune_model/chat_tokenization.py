"""Chats as token ids and labels, with the loss on what the assistant says; what cannot be trained on is counted."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit import records
from slmkit.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
WITHOUT_SYSTEM_TURN = "put the system text into the first user turn or take another base_model"
NUM_CHATS_AT_ONCE = 500  # one call of the tokenizer, which spreads them over the cores
Messages = list[dict[str, Any]]
Row = dict[str, list[int]]
Spans = list[tuple[int, int]]
Render = Callable[[Messages], tuple[str, Spans]]


@dataclass
class TokenizedChats:
    """Rows of ``input_ids`` and ``labels``, how many of them were cut, and how many chats were left out and why."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    longest: int = 0  # in tokens, whether it was kept or not

    @property
    def num_chats(self) -> int:
        return len(self.rows) + self.left_out.total()


def tokenize_chats(
    path: Path,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    assistant_only_loss: bool,
    truncation_mode: str = "leave_out",
    vocab_size: int | None = None,
) -> TokenizedChats:
    """Read the chats of ``path``; one that is none, or that the chat template refuses, stops with its file and line.

    A chat longer than ``max_length`` tokens is left out, or cut there with ``truncation_mode="keep_start"``. Without
    ``assistant_only_loss`` every token is a label.
    """
    if assistant_only_loss and not tokenizer.is_fast:
        raise UserError(
            "the tokenizer of base_model cannot say which token stands where; convert it to a tokenizer.json or set "
            "assistant_only_loss=false"
        )
    chats = TokenizedChats()
    texts = rendered_chats(path, text_renderer(tokenizer, assistant_only_loss), chats.left_out)
    while batch := list(islice(texts, NUM_CHATS_AT_ONCE)):
        for row in tokenized(batch, tokenizer):
            length = len(row["input_ids"])
            chats.longest = max(chats.longest, length)
            check_vocabulary(row["input_ids"], tokenizer.pad_token_id, vocab_size)
            if length > max_length and truncation_mode == "leave_out":
                chats.left_out["longer than max_length"] += 1
                continue
            row = {name: values[:max_length] for name, values in row.items()}
            if all(label == IGNORED for label in row["labels"]):
                chats.left_out["without a label"] += 1
                continue
            chats.truncated += length > max_length
            chats.rows.append(row)
    return chats


def rendered_chats(path: Path, render: Render, left_out: Counter[str]) -> Iterator[tuple[str, Spans]]:
    for record, source, line in records.read_located(path):
        try:
            records.check_chat(record)
        except ValueError as error:
            raise UserError(f"{source}:{line}: {error}; correct or remove the line") from None
        messages = record["messages"]
        if not any(message["role"] == "assistant" for message in messages):
            left_out["without an assistant turn"] += 1
            continue
        try:
            rendered = checked(render, messages)
        except ValueError as error:
            raise UserError(f"{source}:{line}: the chat template of base_model {error}") from None
        yield rendered


def checked(render: Render, messages: Messages) -> tuple[str, Spans]:
    """What ``render`` gives; ``ValueError`` with the reason where the template refuses the chat."""
    from jinja2 import TemplateError

    try:
        return render(messages)
    except (TemplateError, TypeError) as error:
        others = [message for message in messages if message["role"] != "system"]
        try:
            render(others)
        except (TemplateError, TypeError):  # so the system turn is not to blame
            others = messages
        if others != messages:
            raise ValueError(f"takes no system turn ({error}); {WITHOUT_SYSTEM_TURN}") from None
        raise ValueError(f"refuses the chat ({error}); change its turns or remove the line") from None


def check_system_is_there(messages: Messages, text: str) -> None:
    if any(message["role"] == "system" and message["content"].strip() not in text for message in messages):
        raise ValueError(f"drops the system turn; {WITHOUT_SYSTEM_TURN}")


def tokenized(batch: list[tuple[str, Spans]], tokenizer: "PreTrainedTokenizerBase") -> Iterator[Row]:
    """The tokens of each text; those that lie within one of its spans are labels."""
    tokens = tokenizer(
        [text for text, _ in batch],
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    for position, ((text, spans), ids) in enumerate(zip(batch, tokens["input_ids"], strict=True)):
        if spans == [(0, len(text))]:
            yield {"input_ids": ids, "labels": ids}
            continue
        labels = [IGNORED] * len(ids)
        for start, end in spans:
            first, last = (token_at(tokens[position], character, len(text)) for character in (start, end))
            if first < last and tokens[position].token_to_chars(first)[0] < start:  # reaches in from the turn before
                first += 1
            labels[first:last] = ids[first:last]
        yield {"input_ids": ids, "labels": labels}


def token_at(encoding: "Encoding", character: int, length: int) -> int:
    """The token in which a character lies or, as white space may lie in none, the next one that has characters."""
    found = (encoding.char_to_token(index) for index in range(character, length))
    return next((token for token in found if token is not None), len(encoding))


def check_vocabulary(ids: list[int], pad_token_id: int | None, vocab_size: int | None) -> None:
    highest = max([*ids, pad_token_id or 0])
    if vocab_size is not None and highest >= vocab_size:
        raise UserError(
            f"the tokenizer gives the token {highest}, but base_model knows {vocab_size} tokens (0 to "
            f"{vocab_size - 1}); it is the tokenizer of another model, or one with added tokens"
        )


def text_renderer(tokenizer: "PreTrainedTokenizerBase", assistant_only_loss: bool) -> Render:
    """The function that makes of a chat its text and the spans of it to learn."""
    from jinja2 import TemplateError

    if not assistant_only_loss:
        return partial(whole_text, tokenizer)
    with suppress(ValueError, TypeError, TemplateError):  # TRL does not know the template, or it is an odd one
        template = training_template(tokenizer)
        render = partial(text_by_markers, tokenizer, template, assistant_header(tokenizer, template))
        if learns_to_stop(render):
            return render
    return partial(text_by_prompts, tokenizer)


def training_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The model's chat template with generation markers: its own, or the one that TRL keeps for the same template."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    template = tokenizer.get_chat_template()
    return template if has_generation_markers(template) else get_training_chat_template(tokenizer)


def learns_to_stop(render: Render) -> bool:
    """Whether a turn that is marked goes on after what is said in it."""
    said = "yes"
    turns = [("user", "?"), ("assistant", said), ("user", "?")]
    text, spans = render([{"role": role, "content": content} for role, content in turns])
    return any(not text[start:end].rstrip().endswith(said) for start, end in spans)


def whole_text(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> tuple[str, Spans]:
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    check_system_is_there(messages, text)
    return text, [(0, len(text))]


def assistant_header(tokenizer: "PreTrainedTokenizerBase", template: str) -> str:
    """What a prompt adds to a chat for the assistant to go on from."""
    question = [{"role": "user", "content": "?"}]
    without, prompt = (
        tokenizer.apply_chat_template(question, chat_template=template, tokenize=False, add_generation_prompt=added)
        for added in (False, True)
    )
    return prompt[len(os.path.commonprefix([without, prompt])) :]  # noqa: RUF071 (characters)


def text_by_markers(
    tokenizer: "PreTrainedTokenizerBase", template: str, header: str, messages: Messages
) -> tuple[str, Spans]:
    """One chat under a template with markers, less what the prompt says already: TRL's Qwen2.5 marks a part of it.

    Not by ``apply_chat_template``: it loses every label of a turn whose first character is in no token's bounds.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, all_spans = render_jinja_template(
        [messages], chat_template=template, return_assistant_tokens_mask=True, **tokenizer.special_tokens_map
    )
    text, spans = texts[0], []
    check_system_is_there(messages, text)
    for start, end in all_spans[0]:
        found = text.find(header, max(0, start - len(header) + 1), start + len(header)) if header else -1
        spans.append((start if found < 0 else found + len(header), end))
    return text, spans


def text_by_prompts(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> tuple[str, Spans]:
    """One chat under a template without markers: an assistant's turn begins where the prompt before it ends.

    It lasts as far as the chat up to that turn and the whole chat read alike, so its stop token is a label too. Raises
    ``ValueError`` where what stands there is not what the assistant said.
    """

    def rendered(some: Messages, prompt: bool = False) -> str:
        return tokenizer.apply_chat_template(some, tokenize=False, add_generation_prompt=prompt)

    text, spans = rendered(messages), []
    check_system_is_there(messages, text)
    for position, message in enumerate(messages):
        if message["role"] == "assistant":
            before = rendered(messages[:position], prompt=True) if position else None
            so_far = rendered(messages[: position + 1]) if position + 1 < len(messages) else text
            end = len(os.path.commonprefix([text, so_far]))  # noqa: RUF071 (characters)
            said = message["content"].strip()
            if not before or not text.startswith(before) or not text[len(before) : end].lstrip().startswith(said):
                raise ValueError(
                    f"does not show where the assistant's turn stands (message {position + 1}); add {{% generation %}} "
                    "markers to it or set assistant_only_loss=false"
                )
            spans.append((len(before), end))
    return text, spans
