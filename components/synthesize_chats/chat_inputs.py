"""What chats are made from: seed chats, documents and personas; what cannot be used is counted and refused."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxonomy_tree import LANGUAGES, Taxonomy

from slmkit import records, textstats
from slmkit.errors import UserError

# Chats of these components put what a question is about before it, and a blank line between the two.
_WITH_CONTEXT = ("coverage_seed", "synthesized_")
_ENDS = ("\n", "。", "！", "？", ". ", "! ", "? ")
Write = Callable[[dict], None]


@dataclass(frozen=True)
class Seed:
    """The first question and answer of a chat."""

    id: str
    language: str
    question: str
    answer: str
    context: str  # what the answer is found in; empty when that is not known
    context_is_shown: bool  # before the question
    source_ids: tuple[str, ...]
    system: str = ""


@dataclass(frozen=True)
class Text:
    id: str
    title: str
    text: str
    language: str


@dataclass
class Inputs:
    seeds: list[Seed] = field(default_factory=list)
    documents: dict[str, Text] = field(default_factory=dict)
    personas: list[dict] = field(default_factory=list)
    taxonomy: Taxonomy | None = None


def read_documents(path: Path, max_error_fraction: float, counts: Counter[str], refuse: Write) -> dict[str, Text]:
    def as_text(row: Mapping[str, Any]) -> Text:
        if not all(isinstance(row.get(name), str) and row[name].strip() for name in ("id", "text")):
            raise ValueError("a document needs an id and a text")
        return Text(row["id"], str(row.get("title") or ""), row["text"], textstats.language(row["text"]))

    texts = _read(path, "documents", as_text, max_error_fraction, counts, refuse)
    return {text.id: text for text in texts if text.language in LANGUAGES}


def read_seeds(
    path: Path, documents: Mapping[str, Text], max_error_fraction: float, counts: Counter[str], refuse: Write
) -> list[Seed]:
    def as_seed(row: Mapping[str, Any]) -> Seed:
        return seed_of(row, documents)

    return _read(path, "seed_chats", as_seed, max_error_fraction, counts, refuse)


def usable_seed_chats(path: Path, documents: Mapping[str, Text]) -> Iterator[dict]:
    """The chats whose seeds ``read_seeds`` gives, as they are."""
    for chat in records.read_records(path, on_error=lambda line: None):
        with contextlib.suppress(ValueError):
            seed_of(chat, documents)
            yield chat


def read_personas(path: Path, max_error_fraction: float, counts: Counter[str], refuse: Write) -> list[dict]:
    def as_persona(row: dict[str, Any]) -> dict:
        for name, kind in (("id", str), ("persona", str), ("characteristics", dict), ("behavior", dict)):
            if not isinstance(row.get(name), kind) or not row[name]:
                raise ValueError(f"a persona needs {name!r}, as generate_personas writes it")
        return row | {"language": _language(row.get("language")), "source_ids": _ids(row)}

    return _read(path, "personas", as_persona, max_error_fraction, counts, refuse)


def seed_of(chat: Mapping[str, Any], documents: Mapping[str, Text]) -> Seed:
    """The seed in a chat, with its documents for a context that is not shown; ``ValueError`` when there is none."""
    records.check_chat(chat)
    messages = chat["messages"]
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    first = messages[1:3] if system else messages[:2]
    if [message["role"] for message in first] != ["user", "assistant"]:
        raise ValueError("a seed chat begins with a question of the user and the answer to it")
    context, question = "", first[0]["content"].strip()
    if str(chat.get("origin", "")).startswith(_WITH_CONTEXT):
        context, _, question = question.rpartition("\n\n")
    source_ids = _ids(chat)
    known = [documents[id].text for id in source_ids if id in documents]
    return Seed(
        str(chat.get("id") or records.content_id(question, first[1]["content"])),
        _language(chat.get("language") or textstats.language(question)),
        question,
        first[1]["content"].strip(),
        context or "\n\n".join(known),
        bool(context),
        tuple(source_ids or [f"chat:{chat.get('id')}"]),
        system,
    )


def _ids(row: Mapping[str, Any]) -> list[str]:
    ids = row.get("source_ids") or []
    if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        raise ValueError("source_ids is not a list of the ids of documents")
    return ids


def _language(language: object) -> str:
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    return str(language)


def _read(
    path: Path, port: str, convert: Callable, max_error_fraction: float, counts: Counter[str], refuse: Write
) -> list:
    found = []

    def refuse_line(line: records.Refused) -> None:
        counts[f"{port}_refused"] += 1
        refuse({"reason": line.reason, "port": port, "source": line.source, "line": line.line, "text": line.text})

    for row, source, line in records.read_located(path, refuse_line):
        try:
            found.append(convert(row))
        except ValueError as error:
            refuse_line(records.Refused(source, line, str(error), str(row)[:200]))
    counts[port] = len(found) + counts[f"{port}_refused"]
    records.check_share(counts[f"{port}_refused"], counts[port], max_error_fraction, port)
    if not found:
        raise UserError(f"{path}: {port} holds no record to make chats from")
    return found


def excerpts(text: str, max_chars: int) -> Iterator[str]:
    """Parts of a text that end where a line or a sentence ends, where they can."""
    start = 0
    while start < len(text):
        end = start + max_chars
        if end < len(text):
            stop = max(text.rfind(mark, start, end) + len(mark.rstrip(" ")) for mark in _ENDS)
            end = stop if stop > start + max_chars // 2 else end
        if part := text[start:end].strip():
            yield part
        start = end
