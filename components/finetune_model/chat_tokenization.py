"""Chats as token ids and labels, with the loss on what the assistant says; what cannot be trained on is counted."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit import records
from slmkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


@dataclass
class TokenizedChats:
    """Rows of ``input_ids`` and ``labels``, and how many chats were left out for which reason."""

    rows: list[dict[str, list[int]]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def num_chats(self) -> int:
        return len(self.rows) + self.left_out.total()


def tokenize_chats(
    path: Path, tokenizer: "PreTrainedTokenizerBase", max_length: int, assistant_only_loss: bool
) -> TokenizedChats:
    """Read the chats of ``path``; a record that is no chat stops with its file and line."""
    template = training_template(tokenizer) if assistant_only_loss else None
    chats = TokenizedChats()
    for record, source, line in records.read_located(path):
        try:
            records.check_chat(record)
        except ValueError as error:
            raise UserError(f"{source}:{line}: {error}; correct or remove the line") from None
        if not any(message["role"] == "assistant" for message in record["messages"]):
            chats.left_out["without an assistant turn"] += 1
            continue
        row = tokenize_chat(record["messages"], tokenizer, template)
        if len(row["input_ids"]) > max_length:
            chats.left_out["longer than max_length"] += 1
        else:
            chats.rows.append(row)
    return chats


def tokenize_chat(
    messages: list[dict[str, Any]], tokenizer: "PreTrainedTokenizerBase", template: str | None
) -> dict[str, list[int]]:
    """One chat; ``template`` marks the assistant's tokens, without one every token is a label."""
    tokens = tokenizer.apply_chat_template(
        messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=template is not None
    )
    ids = tokens["input_ids"]
    mask = tokens["assistant_masks"] if template is not None else [1] * len(ids)
    labels = [token if kept else IGNORED for token, kept in zip(ids, mask, strict=True)]
    return {"input_ids": ids, "labels": labels}


def training_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The model's chat template with generation markers: its own, or the one that TRL keeps for the same template."""
    from trl.chat_template_utils import (
        get_training_chat_template,
        has_generation_markers,
        is_chat_template_stop_token_trained,
    )

    template = tokenizer.chat_template
    try:
        if not has_generation_markers(template):
            template = get_training_chat_template(tokenizer) or template
        if not is_chat_template_stop_token_trained(tokenizer, template):
            raise ValueError("its markers leave the end-of-turn token out of the loss")
    except ValueError as error:
        raise UserError(
            f"the chat template of base_model cannot mark what the assistant says ({error}); add "
            "{% generation %} markers to it or set assistant_only_loss=false"
        ) from None
    return template
