"""Put retrieved passages before the question of an eval item, fenced so that they stay material."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pydantic

from slmkit import textstats

_FENCE = re.compile(r"<(?=\s*(?:/\s*)?document)", re.IGNORECASE)


@dataclass(frozen=True)
class Passage:
    document_id: str
    text: str


def question_of(item: dict[str, Any]) -> str:
    return item["messages"][-1]["content"]


def language_of(item: dict[str, Any]) -> str:
    """The language that the item states (ja, or ja-JP), else that of its question."""
    stated = (item.get("slices") or {}).get("language")
    return str(stated).partition("-")[0].lower() if stated else textstats.language(question_of(item))


def within(passages: Sequence[Passage], max_chars: int) -> list[Passage]:
    """The first passages that have `max_chars` characters together, at most; the very first is cut to them."""
    kept: list[Passage] = []
    for passage in passages:
        max_chars -= len(passage.text)
        if max_chars < 0:
            return kept or [Passage(passage.document_id, passage.text[:max_chars])]
        kept.append(passage)
    return kept


class ContextPrompt(pydantic.BaseModel):
    """The texts around passages and question, as in context_prompt.yml."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    passage: str = "{text}"
    en: str
    ja: str | None = None
    ko: str | None = None

    @pydantic.field_validator("passage", "en", "ja", "ko")
    @classmethod
    def _has_its_places(cls, text: str | None, field: pydantic.ValidationInfo) -> str | None:
        places = ["text"] if field.field_name == "passage" else ["documents", "question"]
        found = re.findall(r"{(\w*)}", text or "")
        if text is not None and (sorted(found) != places or not text.count("{") == text.count("}") == len(places)):
            raise ValueError(
                f"needs {' and '.join(f'{{{place}}}' for place in places)}, once each, and no other braces"
            )
        return text

    def around(self, item: dict[str, Any], passages: Sequence[Passage]) -> dict[str, Any]:
        """The item with the passages in its last turn; the turns before it, a system message among them, stay."""
        prompt = {"ja": self.ja, "ko": self.ko}.get(language_of(item)) or self.en
        documents = "\n".join(self.passage.format(text=_FENCE.sub("&lt;", passage.text)) for passage in passages)
        *earlier, last = item["messages"]
        turn = last | {"content": prompt.format(documents=documents, question=question_of(item))}
        return item | {"messages": [*earlier, turn], "context_ids": [passage.document_id for passage in passages]}
