"""Cut documents into chunks at paragraphs, then sentences, and only in need within one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from slmkit import textstats

ROWS = ("text/csv", "text/tab-separated-values")  # a row is one thing and stays together
_PARAGRAPH = re.compile(r".+?(?:\n[ \t]*\n\s*|\Z)", re.DOTALL)
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)


@dataclass(frozen=True)
class Chunk:
    document_id: str
    position: int  # within its document
    text: str
    language: str
    title: str
    topic: str  # the document and, in Markdown, the heading above or at the start of the chunk
    source: str  # the file of the document


def chunks_of(document: dict, chunk_chars: int) -> Iterator[Chunk]:
    """The chunks of a document, in order; together they hold all of its text but white space at the cuts."""
    text, title = document["text"], " ".join(str(document.get("title") or "").split())
    source, heading = str(document.get("source") or document["id"]), None
    texts = [text.strip()] if document.get("media_type") in ROWS else cut(text, chunk_chars)
    for position, part in enumerate(texts):
        language = textstats.language(part)
        if language == "und":  # figures only
            language = document.get("language") or language
        headings = list(_HEADING.finditer(part))
        if headings and headings[0].start() == 0:
            heading = headings[0][1]
        topic = " > ".join(filter(None, (title or document["id"], heading)))
        yield Chunk(document["id"], position, part, language, title, topic, source)
        heading = headings[-1][1] if headings else heading


def cut(text: str, chunk_chars: int) -> list[str]:
    """Slices of at most ``chunk_chars`` characters, as long as they can be."""
    chunks, current = [], ""
    for piece in _pieces(text, chunk_chars):
        if current and len((current + piece).rstrip()) > chunk_chars:
            chunks.append(current)
            current = ""
        current += piece
    return [chunk.strip() for chunk in [*chunks, current] if chunk.strip()]


def _pieces(text: str, chunk_chars: int) -> Iterator[str]:
    """Paragraphs, sentences of long paragraphs, parts of long sentences; joined, they are the text again."""
    for paragraph in _PARAGRAPH.findall(text.strip()):
        if len(paragraph.rstrip()) <= chunk_chars:
            yield paragraph
            continue
        start = 0
        for sentence in textstats.sentences(paragraph):
            end = paragraph.index(sentence, start) + len(sentence)
            end += len(paragraph[end:]) - len(paragraph[end:].lstrip())
            yield from _parts(paragraph[start:end], chunk_chars)
            start = end


def _parts(sentence: str, chunk_chars: int) -> Iterator[str]:
    while len(sentence.rstrip()) > chunk_chars:
        space = sentence.rfind(" ", chunk_chars // 2, chunk_chars)
        at = space + 1 if space > 0 else chunk_chars
        yield sentence[:at]
        sentence = sentence[at:]
    yield sentence
