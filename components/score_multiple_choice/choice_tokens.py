"""The tokens of prompts and of the choices that may follow them, split where lm-eval splits them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefix_groups import Question

from model_inference.prompts import Prompts, plain_text
from slmkit import records

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LINE_CHARACTERS = 32  # of the prompt, at least, that are tokenized again with each choice
_ITEMS_AT_A_TIME = 512


@dataclass(frozen=True)
class Asked:
    id: str
    messages: list[dict[str, Any]]
    choices: list[str]


@dataclass(frozen=True)
class _Text:
    asked: Asked
    prompt: str
    ending: str  # the last lines of the prompt


class ChoiceTokens:
    """``num_truncated`` counts the prompts that lost tokens on the left because the model takes ``max_tokens``.

    The tokens of a choice are those of prompt and choice together, less as many as the prompt alone has; as plain text
    the choice comes after a space. Only the last lines of the prompt are tokenized with each choice, wherever their
    tokens alone are also the last tokens of the whole prompt.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", prompt_format: str, *, max_tokens: int, truncate: bool
    ) -> None:
        self._before_choice = Prompts(tokenizer, prompt_format, max_tokens=max_tokens).before_answer
        self._tokenizer, self._chat = tokenizer, prompt_format == "chat"
        self._max_tokens, self._truncate = max_tokens, truncate
        self.num_truncated = 0

    def encode(self, asked: Sequence[Asked]) -> tuple[list[Question], dict[str, str]]:
        """The questions, and by their ids why others cannot be asked."""
        questions, errors = [], {}
        for start in range(0, len(asked), _ITEMS_AT_A_TIME):
            texts = []
            for one in asked[start : start + _ITEMS_AT_A_TIME]:
                try:
                    texts.append(self._text(one))
                except ValueError as error:
                    errors[one.id] = str(error)
            for text, (prompt, choices) in zip(texts, self._tokens(texts), strict=True):
                try:
                    questions.append(self._question(text.asked, prompt, choices))
                except ValueError as error:
                    errors[text.asked.id] = str(error)
        return questions, errors

    def _text(self, asked: Asked) -> _Text:
        from jinja2 import TemplateError

        records.check_chat({"messages": asked.messages})
        if asked.messages[-1]["role"] == "assistant":
            raise ValueError("the messages end with the assistant's turn; an eval item ends with the question")
        try:
            prompt = self._template(asked.messages) if self._chat else plain_text(asked.messages)
        except TemplateError as error:
            raise ValueError(f"the chat template refuses the messages: {error}") from None
        return _Text(asked, prompt, prompt[prompt.rfind("\n", 0, max(0, len(prompt) - _LINE_CHARACTERS)) + 1 :])

    def _template(self, messages: list[dict[str, Any]]) -> str:
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _tokens(self, texts: list[_Text]) -> list[tuple[list[int], list[list[int]]]]:
        prompts = self._ids([text.prompt for text in texts])
        endings = self._ids([text.ending for text in texts], special=False)
        choices: list[list[list[int]]] = [[] for _ in texts]
        for is_whole in (False, True):
            pairs, num_before = [], []
            for number, (text, prompt, ending) in enumerate(zip(texts, prompts, endings, strict=True)):
                if is_whole == (prompt[-len(ending) :] != ending):
                    before = (text.prompt if is_whole else text.ending) + self._before_choice
                    pairs += ((number, before + choice) for choice in text.asked.choices)
                    num_before += [len(prompt if is_whole else ending)] * len(text.asked.choices)
            encoded = self._ids([together for _, together in pairs], special=is_whole)
            for (number, _), start, ids in zip(pairs, num_before, encoded, strict=True):
                choices[number].append(ids[start:])
        return list(zip(prompts, choices, strict=True))

    def _ids(self, texts: list[str], *, special: bool = True) -> list[list[int]]:
        """Together, which a fast tokenizer does on all processors; a chat template writes special tokens itself."""
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=special and not self._chat, return_attention_mask=False)
        return encoded["input_ids"]

    def _question(self, asked: Asked, prompt: list[int], choices: list[list[int]]) -> Question:
        if not all(choices):
            raise ValueError("the tokenizer joins a choice to the prompt, so that no token of its own is left to score")
        shots = json.dumps(asked.messages[:-1], sort_keys=True)
        excess = len(prompt) + max(map(len, choices)) - 1 - self._max_tokens
        if excess > 0:
            if not self._truncate or excess >= len(prompt):
                raise ValueError(
                    f"prompt and longest choice have {excess} tokens more than the {self._max_tokens} that the model "
                    "takes"
                )
            self.num_truncated += 1
            prompt, shots = prompt[excess:], None
        return Question(asked.id, prompt, choices, shots)
