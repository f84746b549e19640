"""From tokens to the text of an answer: never half a character, and nothing from a stop string on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TokenDecoder:
    """Text as soon as it is certain: a character of several tokens comes whole, one that is cut off not at all."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._known: list[int] = []  # the tokens of the piece before: a first token loses its space in some tokenizers
        self._new: list[int] = []

    def put(self, token_id: int) -> str:
        self._new.append(token_id)
        piece = self._piece()
        if not piece or piece.endswith(INCOMPLETE):
            return ""
        self._known, self._new = self._new, []
        return piece

    def end(self) -> str:
        """What was held back, without the character that no token has completed."""
        piece, self._new = self._piece(), []
        return piece.rstrip(INCOMPLETE)

    def _piece(self) -> str:
        return self._decode(self._known + self._new)[len(self._decode(self._known)) :]

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class AnswerText:
    """The text of an answer up to the first stop string, also where that one lies across tokens."""

    def __init__(self, decoder: TokenDecoder, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._decoder, self._stop = decoder, [text for text in stop if text]
        self._held = ""

    def put(self, token_id: int) -> str:
        return self._passed(self._decoder.put(token_id))

    def end(self) -> str:
        piece = self._passed(self._decoder.end())
        piece, self._held = piece + self._held, ""
        return piece

    def _passed(self, text: str) -> str:
        """What may be shown now: all but what may turn out to be the beginning of a stop string."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text begin the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
