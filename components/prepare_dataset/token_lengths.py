"""How long chats are in the tokens of a model, with its chat template where it has one; in characters without."""

import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from split_groups import SIDES

from slmkit.errors import UserError

ALL = "all"
PERCENTILES = (50, 90, 95, 99, 100)
# Transformers' own tag around what the assistant says; it writes nothing.
_GENERATION = re.compile(r"(?<={%)(-?\s*)(end)?generation\b")


class Lengths:
    """The lengths of chats by side and language, four bytes a chat."""

    def __init__(self, length_of: Callable[[dict[str, Any]], int], unit: str, max_length: int | None):
        self._length_of, self.unit, self.max_length = length_of, unit, max_length
        self._lengths: dict[tuple[str, str], array] = {}

    def add(self, chat: dict[str, Any], side: str, num_copies: int) -> None:
        length = self._length_of(chat)
        for group in ((side, chat["language"]), (side, ALL)):
            self._lengths.setdefault(group, array("I")).extend([length] * num_copies)

    def bins(self) -> list[dict[str, int]]:
        """How many chats of each side are how long, with two bins to each doubling."""
        counts: dict[str, Counter[int]] = {
            side: Counter(math.ceil(2 * math.log2(length + 1)) for length in lengths)
            for (side, language), lengths in self._lengths.items()
            if language == ALL
        }
        places = sorted(set().union(*counts.values()))
        if not places:
            return []
        return [
            {"below": int(2 ** (place / 2)), **{side: counts.get(side, Counter())[place] for side in SIDES}}
            for place in range(places[0], places[-1] + 1)
        ]

    def summary(self) -> list[dict[str, Any]]:
        """A row for each side and language: percentiles, the sum, and the share above `max_length`."""
        import numpy as np

        rows = []
        for (side, language), lengths in sorted(
            self._lengths.items(), key=lambda item: (SIDES.index(item[0][0]), item[0])
        ):
            if not lengths:
                continue
            values = np.frombuffer(lengths, dtype=np.uint32)
            row = {"side": side, "language": language, "chats": len(values), "sum": int(values.sum())}
            found = np.percentile(values, PERCENTILES, method="inverted_cdf").tolist()
            row |= {f"p{percentile}": int(value) for percentile, value in zip(PERCENTILES, found, strict=True)}
            if self.max_length is not None:
                row["above_max_length_fraction"] = round(float((values > self.max_length).mean()), 6)
            rows.append(row)
        return rows


def open_lengths(tokenizer: Path | None, max_length: int | None) -> Lengths:
    if tokenizer is None:
        if max_length is not None:
            raise UserError("max_length is counted in tokens: give the tokenizer as well, or leave max_length out")
        return Lengths(lambda chat: sum(len(message["content"]) for message in chat["messages"]), "characters", None)
    return Lengths(*_token_counter(tokenizer), max_length)


def _token_counter(folder: Path) -> tuple[Callable[[dict[str, Any]], int], str]:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"{folder}: the tokenizer folder holds no tokenizer.json; give a model in Hugging Face layout")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more exact
        raise UserError(f"{file}: not a tokenizer: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    render = _chat_template(folder)
    if render is None:
        return (
            lambda chat: sum(len(tokenizer.encode(m["content"], add_special_tokens=False)) for m in chat["messages"]),
            "tokens of the contents (the tokenizer has no chat template)",
        )
    return (
        lambda chat: len(tokenizer.encode(render(chat["messages"]), add_special_tokens=False)),
        "tokens, with the chat template",
    )


def _chat_template(folder: Path) -> Callable[[list[dict]], str] | None:
    """What writes messages in the form that the model was trained on; in a sandbox, since it comes with the model."""
    config = {}
    if (folder / "tokenizer_config.json").is_file():
        try:
            config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{folder / 'tokenizer_config.json'}: not JSON: {error}") from None
    template = config.get("chat_template")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(template, list):  # several by name
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if not template:
        return None
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    tokens = {name: _content(config[name]) for name in ("bos_token", "eos_token", "pad_token") if config.get(name)}
    try:
        compiled = environment.from_string(_GENERATION.sub(_without_marks, template))
    except jinja2.TemplateError as error:
        raise UserError(f"{folder}: the chat template cannot be read: {error}") from None

    def render(messages: list[dict]) -> str:
        try:
            return compiled.render(
                messages=messages,
                add_generation_prompt=False,
                raise_exception=refuse,
                strftime_now=date(2000, 1, 1).strftime,  # any day: the same data give the same lengths
                **tokens,
            )
        except (jinja2.TemplateError, TypeError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(
                f"{folder}: the chat template does not take a chat with the turns {roles}: {error}; training would "
                "stop there too"
            ) from None

    return render


def _without_marks(tag: re.Match) -> str:
    return tag[1] + ("endif" if tag[2] else "if true")


def _content(token: str | dict[str, Any]) -> str:
    return token["content"] if isinstance(token, dict) else token
