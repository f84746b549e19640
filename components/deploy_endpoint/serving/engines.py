"""The model behind the endpoint: chats to token ids, token ids to new tokens one by one, and tokens to text."""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from token_text import TokenDecoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]  # role and content


class UnusableModelError(ValueError):
    """The folder is no model that can be served."""


class UnusableChatError(ValueError):
    """The chat template of the model refuses these messages."""


class Engine(ABC):
    """One model in memory, which several threads may ask at a time; ``adapters`` are others on it, by their names."""

    adapters: "Mapping[str, Engine]" = MappingProxyType({})

    def __init__(self, folder: Path, context_length: int, vocabulary_size: int) -> None:
        self.context_length = context_length
        self._tokenizer = _tokenizer(folder)
        if len(self._tokenizer) > vocabulary_size:
            raise UnusableModelError(
                f"{folder}: the tokenizer has {len(self._tokenizer):,} tokens and the model {vocabulary_size:,}; "
                "are both of the same model?"
            )

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """The prompt by the model's own chat template, up to where its answer begins."""
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except (TemplateError, TypeError) as error:  # such as two user messages in a row, or no system message allowed
            raise UnusableChatError(f"the model's chat template refuses the messages: {error}") from None

    def decoder(self) -> TokenDecoder:
        """What turns the tokens of one answer into text."""
        return TokenDecoder(self._tokenizer)

    @abstractmethod
    def stream(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[int]:
        """New tokens until the model ends its answer, whose end token is not among them, or ``max_new_tokens``.

        Temperature 0 takes the likeliest token; otherwise the same seed draws the same tokens. Closing the iterator
        frees what it holds.
        """


def load(folder: Path | str, num_threads: int | None = None) -> Engine:
    """ONNX Runtime GenAI for a folder with genai_config.json, Transformers for one with config.json."""
    folder = Path(folder)
    # Rust threads of the tokenizer would compete with the threads of the model.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if (folder / "genai_config.json").is_file():
        from onnx_engine import OnnxEngine as Loaded
    elif (folder / "config.json").is_file():
        from transformers_engine import TransformersEngine as Loaded
    else:
        raise UnusableModelError(f"{folder}: neither genai_config.json nor config.json, so this is no model folder")
    return Loaded(folder, num_threads)


def _tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # Transformers raises errors of many kinds
        raise UnusableModelError(
            f"{folder}: the tokenizer cannot be loaded ({type(error).__name__}: {error})"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # made up where no file of a tokenizer is there
        raise UnusableModelError(f"{folder}: no tokenizer; give a whole model folder")
    if not tokenizer.chat_template:
        raise UnusableModelError(f"{folder}: the tokenizer has no chat template, so it cannot take chats")
    tokenizer.model_max_length = 2**31  # whoever asks checks the length; this only silences a warning
    return tokenizer


class Turns:
    """One step at a time, in the order of asking: answers advance together, and no two compete for the cores."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._queue: list[threading.Event] = []

    def __enter__(self) -> None:
        mine = threading.Event()
        with self._mutex:
            self._queue.append(mine)
            if self._queue[0] is mine:
                mine.set()
        mine.wait()

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            del self._queue[0]
            if self._queue:
                self._queue[0].set()
