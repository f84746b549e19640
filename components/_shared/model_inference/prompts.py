"""Messages as the token ids that a model is asked with: by its chat template, or as plain text for a base model."""

import re
from typing import TYPE_CHECKING, Any

from slmkit import records
from slmkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
REFUSED = "refused by the content filter"  # the error of a row
TOO_LONG = re.compile(r"the model takes|context.?(length|window)", re.IGNORECASE)  # here, and as endpoints say it
TURN_END = "\n\n"  # of a plain text, which is also where a base model's answer ends


class Prompts:
    """``prompt_format`` is chat or plain; ``max_tokens`` is what the model has room for, prompt and answer together.

    With ``truncate`` a longer prompt loses tokens from the left, and ``num_truncated`` counts them; else it is refused.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", prompt_format: str, *, max_tokens: int, truncate: bool = False
    ) -> None:
        if prompt_format == "chat" and not tokenizer.chat_template:
            raise UserError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template; use an instruction-tuned model, or "
                "prompt_format=plain to ask a base model with plain text"
            )
        self._tokenizer, self._chat = tokenizer, prompt_format == "chat"
        self._max_tokens, self._truncate = max_tokens, truncate
        self.num_truncated = 0

    @property
    def before_answer(self) -> str:
        """What stands between the prompt and the first character of an answer."""
        return "" if self._chat else " "

    @property
    def stop_strings(self) -> list[str]:
        """Text that ends an answer, beside the model's stop tokens."""
        return [] if self._chat else [TURN_END]

    def encode(self, messages: list[Message], *, answer_tokens: int = 0) -> list[int]:
        """The token ids; ``ValueError`` with a one-line reason for messages that cannot be asked."""
        from jinja2 import TemplateError

        room = self._max_tokens - answer_tokens
        if room <= 0:
            raise UserError(
                f"an answer of {answer_tokens} tokens leaves no room for a prompt: the model takes {self._max_tokens}"
            )
        check_question(messages)
        try:
            ids = self._encode(messages)
        except (TemplateError, TypeError) as error:  # an order of roles or a value that the template does not know
            raise ValueError(f"the chat template refuses the messages: {error}") from None
        if not ids:
            raise ValueError("the tokenizer knows no character of the prompt")
        if len(ids) <= room:
            return ids
        if not self._truncate:
            raise ValueError(f"the prompt has {len(ids)} tokens, the model takes {room}")
        self.num_truncated += 1
        return ids[-room:]

    def _encode(self, messages: list[Message]) -> list[int]:
        if self._chat:
            return self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        return self._tokenizer(plain_text(messages))["input_ids"]


def check_question(messages: Any) -> None:
    """Raise ``ValueError`` with a one-line reason unless the messages are a chat that waits for an answer."""
    records.check_chat({"messages": messages})
    if messages[-1]["role"] == "assistant":
        raise ValueError("the messages end with the assistant's turn; an eval item ends with the question")


def plain_text(messages: list[Message]) -> str:
    """Question and answer turns one after the other, as evaluation harnesses write few-shot prompts."""
    text = ""
    for message in messages:
        content = message["content"].strip()
        text += f" {content}{TURN_END}" if message["role"] == "assistant" else content
        if message["role"] == "system":
            text += TURN_END
    return text
