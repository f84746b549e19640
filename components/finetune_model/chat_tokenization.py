"""Chats as token ids and labels, with the loss on what the assistant says; what cannot be trained on is counted."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit import records
from slmkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
Messages = list[dict[str, Any]]
Row = dict[str, list[int]]


@dataclass
class TokenizedChats:
    """Rows of ``input_ids`` and ``labels``, and how many chats were left out for which reason."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def num_chats(self) -> int:
        return len(self.rows) + self.left_out.total()


def tokenize_chats(
    path: Path, tokenizer: "PreTrainedTokenizerBase", max_length: int, assistant_only_loss: bool
) -> TokenizedChats:
    """Read the chats of ``path``; a record that is no chat stops with its file and line."""
    tokenize = tokenizer_of_chats(tokenizer, assistant_only_loss)
    chats = TokenizedChats()
    for record, source, line in records.read_located(path):
        try:
            records.check_chat(record)
        except ValueError as error:
            raise UserError(f"{source}:{line}: {error}; correct or remove the line") from None
        if not any(message["role"] == "assistant" for message in record["messages"]):
            chats.left_out["without an assistant turn"] += 1
            continue
        row = tokenize(record["messages"])
        if len(row["input_ids"]) > max_length:
            chats.left_out["longer than max_length"] += 1
        else:
            chats.rows.append(row)
    return chats


def tokenizer_of_chats(tokenizer: "PreTrainedTokenizerBase", assistant_only_loss: bool) -> Callable[[Messages], Row]:
    """The function that makes a row of a chat. Without ``assistant_only_loss`` every token is a label."""
    template = training_template(tokenizer) if assistant_only_loss else tokenizer.chat_template
    if template is None:
        return partial(tokenize_by_spans, tokenizer)

    def tokenize(messages: Messages) -> Row:
        tokens = tokenizer.apply_chat_template(
            messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=assistant_only_loss
        )
        return labeled(tokens["input_ids"], tokens["assistant_masks"] if assistant_only_loss else None)

    return tokenize


def labeled(ids: list[int], mask: list[int] | None) -> Row:
    kept = mask or [1] * len(ids)
    return {"input_ids": ids, "labels": [id if keep else IGNORED for id, keep in zip(ids, kept, strict=True)]}


def training_template(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """The model's chat template with generation markers: its own, or the one that TRL keeps for the same template.

    None where there is neither, as for Phi-4-mini.
    """
    from trl.chat_template_utils import (
        get_training_chat_template,
        has_generation_markers,
        is_chat_template_stop_token_trained,
    )

    template = tokenizer.chat_template
    try:
        if not has_generation_markers(template):
            template = get_training_chat_template(tokenizer) or template
        return template if is_chat_template_stop_token_trained(tokenizer, template) else None
    except ValueError:  # TRL does not know the template
        return None


def tokenize_by_spans(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> Row:
    """One chat under a template without markers: an assistant's turn begins where the prompt before it ends.

    It lasts as far as the chat up to that turn and the whole chat read alike, so its stop token is a label too. Raises
    ``UserError`` where what stands there is not what the assistant said.
    """

    def rendered(some: Messages, prompt: bool = False) -> str:
        return tokenizer.apply_chat_template(some, tokenize=False, add_generation_prompt=prompt)

    text = rendered(messages)
    spans = []
    for position, message in enumerate(messages):
        if message["role"] == "assistant":
            before = rendered(messages[:position], prompt=True)
            end = len(os.path.commonprefix([text, rendered(messages[: position + 1])]))  # noqa: RUF071 (characters)
            said = text[len(before) : end].lstrip()
            if not text.startswith(before) or not said.startswith(message["content"].strip()):
                raise UserError(
                    "the chat template of base_model does not show where the assistant's turns stand; add "
                    "{% generation %} markers to it or set assistant_only_loss=false"
                )
            spans.append((len(before), end))
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    mask = [int(any(a <= first and last <= b for a, b in spans)) for first, last in tokens["offset_mapping"]]
    return labeled(tokens["input_ids"], mask)
