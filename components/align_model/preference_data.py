"""Preference pairs as token ids; what cannot be trained on is counted."""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit import records
from slmkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pair = dict[str, list[int]]


@dataclass
class TokenizedPairs:
    """Rows of ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``, and how many pairs were left out, and why."""

    rows: list[Pair] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def num_pairs(self) -> int:
        return len(self.rows) + self.left_out.total()


def tokenize_pairs(
    path: Path, tokenizer: "PreTrainedTokenizerBase", max_length: int, vocab_size: int
) -> TokenizedPairs:
    """Read the pairs of ``path``; a record that is no pair stops with its file and line."""
    from jinja2 import TemplateError

    pairs = TokenizedPairs()
    for record, source, line in records.read_located(path):
        try:
            check_pair(record)
            row = tokenize(record, tokenizer)
        except (ValueError, TemplateError) as error:
            raise UserError(f"{source}:{line}: {error}; correct or remove the line") from None
        if row["chosen_ids"] == row["rejected_ids"]:
            pairs.left_out["chosen and rejected are the same"] += 1
        elif len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) > max_length:
            pairs.left_out["longer than max_length"] += 1
        else:
            if max(max(ids) for ids in row.values()) >= vocab_size:
                raise UserError(
                    f"base_model has {vocab_size} embeddings, its tokenizer gives higher ids; give one model's folder"
                )
            pairs.rows.append(row)
    return pairs


def check_pair(record: dict[str, Any]) -> None:
    """Raise ``ValueError`` with a one-line reason unless ``record`` is a pair in TRL's explicit conversational form."""
    for name in ("prompt", "chosen", "rejected"):
        try:
            records.check_chat({"messages": record.get(name)})
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}".replace(" 'messages'", " of messages")) from None
    if record["prompt"][-1]["role"] != "user":
        raise ValueError(f"'prompt' ends with the {record['prompt'][-1]['role']}'s turn; it must end with the user's")
    for name in ("chosen", "rejected"):
        if [message["role"] for message in record[name]] != ["assistant"]:
            raise ValueError(f"{name!r} must be one message of the assistant, which answers 'prompt'")


def tokenize(record: dict[str, Any], tokenizer: "PreTrainedTokenizerBase") -> Pair:
    """As TRL 1.16 does: an answer begins where the prompt alone and the prompt with its answer read differently."""
    from trl.data_utils import common_prefix_length

    def ids(messages: list[dict[str, Any]], **options: bool) -> list[int]:
        return tokenizer.apply_chat_template(messages, return_dict=True, **options)["input_ids"]

    prompt = ids(record["prompt"], add_generation_prompt=True)
    chosen, rejected = (ids(record["prompt"] + record[name]) for name in ("chosen", "rejected"))
    end = min(common_prefix_length(prompt, whole) for whole in (chosen, rejected))
    return {"prompt_ids": prompt[:end], "chosen_ids": chosen[end:], "rejected_ids": rejected[end:]}


def unpaired(pairs: Iterable[Pair], batch_size: int, seed: int) -> list[dict[str, Any]]:
    """The rows of KTO: both answers of each pair, one desirable and one not, in an order that is drawn here.

    KTO compares each answer of a batch with how likely the batch's other answers are to its prompt, so that the order
    is part of the data, and the two answers of one prompt had better not be neighbors.
    """
    rows = [
        {"prompt_ids": pair["prompt_ids"], "completion_ids": pair[name], "label": name == "chosen_ids"}
        for pair in pairs
        for name in ("chosen_ids", "rejected_ids")
    ]
    random.Random(seed).shuffle(rows)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        for row, other in zip(batch, [batch[-1], *batch[:-1]], strict=True):
            row["KL_completion_ids"] = other["completion_ids"]
    return rows
