"""Make question-answer chats that cover the documents, by asking a teacher about each of their chunks."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import coverage_report
import extractive_teacher
import yaml
from document_chunks import Chunk, chunks_of
from pair_checks import reason_to_refuse
from pydantic import BaseModel, ConfigDict, Field

from slmkit import cli, lineage, records, teacher, tracking
from slmkit.answers import Answer
from slmkit.chat_client import AnswerError
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
PROMPTS = yaml.safe_load(Path(__file__).with_name("prompts.yml").read_text(encoding="utf-8"))
LANGUAGES = frozenset(PROMPTS["system"])
QUESTION_TYPES = ("short", "boolean", "long")
Write = Callable[[dict], None]


@dataclass(frozen=True)
class Args:
    documents: Path
    chats: Path
    report: Path
    teacher: str = "embedded"
    teacher_model: str = "embedded"
    auth: str = "azure"
    num_pairs_per_chunk: int = 3
    question_types: str = "short,boolean,long"
    chunk_chars: int = 1200
    include_context: bool = True
    max_num_chunks: int | None = None
    concurrency: int = 8
    max_retries: int = 6
    max_error_fraction: float = 0.05
    seed: int = 42


class Pair(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    question_type: Literal[QUESTION_TYPES]


class Pairs(BaseModel):
    pairs: list[Pair]


def run(args: Args) -> dict[str, float]:
    question_types = parse_question_types(args.question_types)
    teacher_name = teacher.name(args.teacher, args.teacher_model)
    tracking.set_tags({"teacher": teacher_name})
    counts: Counter[str] = Counter()
    answers_so_far = teacher.keep_until_done(args.report)
    with records.write_records(args.chats) as write:
        with records.write_records(args.report / "quarantine.jsonl") as refuse:
            usage = asyncio.run(build(args, question_types, answers_so_far, counts, write, refuse))
        coverage_report.write_json(args.report, teacher_name, counts, usage)
        check(counts, args)
    coverage_report.write_page(args.report, args.chats)
    teacher.forget(answers_so_far)

    metrics = {
        f"data/num_{name}": float(counts[name]) for name in ("documents", "chunks", "chunks_asked", "pairs", "chats")
    }
    metrics["data/covered_documents_fraction"] = counts["documents_covered"] / counts["documents"]
    metrics["data/covered_chunks_fraction"] = counts["chunks_covered"] / counts["chunks"]
    metrics |= {f"teacher/{name}": value for name, value in usage.items()}
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    print(
        f"teacher={teacher_name}: {counts['chats']} chats from {counts['chunks_covered']} of {counts['chunks']} chunks "
        f"({counts['documents_covered']} of {counts['documents']} documents); "
        f"{counts['pairs'] - counts['chats']} pairs refused, see {args.report / 'quarantine.jsonl'}"
    )
    return metrics


async def build(
    args: Args, question_types: list[str], answers_so_far: Path, counts: Counter[str], write: Write, refuse: Write
) -> dict[str, float]:
    """Ask about every chunk, write the chats in the order of the chunks, and give back what it cost."""
    chunks = read_chunks(args, counts, refuse)
    if args.max_num_chunks:
        num_chunks = sum(1 for _ in read_chunks(args, Counter(), lambda row: None))
        chunks = spread(chunks, num_chunks, args.max_num_chunks, counts)
    seen: set[str] = set()
    covered: set[str] = set()
    async with teacher.connect(
        args.teacher,
        args.teacher_model,
        extractive_teacher.answer,
        auth=args.auth,
        concurrency=args.concurrency,
        max_retries=args.max_retries,
        cache_path=answers_so_far,
    ) as client:

        async def ask(chunk: Chunk) -> tuple[Answer, Pairs | None]:
            return await client.complete_structured(prompt(chunk, args, question_types), Pairs, seed=args.seed)

        async for chunk, result in client.each(chunks, ask):
            counts["chunks_asked"] += 1
            outcome = "chunks_covered"
            if isinstance(result, AnswerError):
                outcome, reason = "chunks_failed", str(result)
            elif result[1] is None:
                outcome, reason = "chunks_filtered", "the teacher or its content filter refused"
            elif not result[1].pairs:
                outcome, reason = "chunks_without_pairs", "the teacher found nothing to ask"
            elif not (chats := list(chats_from(chunk, result[1].pairs, args, question_types, seen, counts, refuse))):
                outcome, reason = "chunks_with_refused_pairs_only", ""
            counts[outcome] += 1
            if outcome == "chunks_covered":
                covered.add(chunk.document_id)
                for chat in chats:
                    write(chat)
            elif reason:
                refuse(refused(chunk, reason))
        counts["documents_covered"] = len(covered)
        return client.usage.summary()


def read_chunks(args: Args, counts: Counter[str], refuse: Write) -> Iterator[Chunk]:
    """The chunks that can be asked about, in order; what cannot is counted and refused."""

    def refuse_line(line: records.Refused) -> None:
        counts["documents"] += 1
        counts["documents_refused"] += 1
        refuse({"reason": line.reason, "source": line.source, "line": line.line, "text": line.text})

    for document, source, line in records.read_located(args.documents, refuse_line):
        if not all(isinstance(document.get(name), str) and document[name].strip() for name in ("id", "text")):
            refuse_line(records.Refused(source, line, "a document needs an id and a text", str(document)[:200]))
            continue
        counts["documents"] += 1
        for chunk in chunks_of(document, args.chunk_chars):
            counts["chunks"] += 1
            if chunk.language in LANGUAGES:
                yield chunk
            else:
                counts["chunks_in_other_languages"] += 1
                refuse(refused(chunk, f"language {chunk.language} is not one of {', '.join(sorted(LANGUAGES))}"))


def spread(chunks: Iterator[Chunk], num_chunks: int, max_num_chunks: int, counts: Counter[str]) -> Iterator[Chunk]:
    """As many chunks as asked for, evenly over all of them."""
    wanted = min(max_num_chunks, num_chunks)
    for index, chunk in enumerate(chunks):
        if (index + 1) * wanted // num_chunks > index * wanted // num_chunks:
            yield chunk
        else:
            counts["chunks_left_out"] += 1


def prompt(chunk: Chunk, args: Args, question_types: list[str]) -> list[dict[str, str]]:
    user = PROMPTS["user"].format(
        title=chunk.title,
        text=chunk.text,
        language=chunk.language,
        num_pairs=args.num_pairs_per_chunk,
        question_types=", ".join(question_types),
    )
    return [{"role": "system", "content": PROMPTS["system"][chunk.language]}, {"role": "user", "content": user}]


def chats_from(
    chunk: Chunk,
    pairs: list[Pair],
    args: Args,
    question_types: list[str],
    seen: set[str],
    counts: Counter[str],
    refuse: Write,
) -> Iterator[dict]:
    """A chat for each good pair; the others are refused with the reason."""
    for position, pair in enumerate(pairs):
        counts["pairs"] += 1
        user = f"{chunk.text}\n\n{pair.question}" if args.include_context else pair.question
        if position >= args.num_pairs_per_chunk:
            reason = "surplus"
        elif pair.question_type not in question_types:
            reason = "type_not_asked_for"
        elif (asked := records.content_id(user)) in seen:
            reason = "duplicate"
        else:
            reason = reason_to_refuse(pair.question, pair.answer, pair.question_type, chunk.text, chunk.language)
        if reason:
            counts[f"pairs_{reason}"] += 1
            refuse(refused(chunk, reason) | pair.model_dump())
            continue
        seen.add(asked)
        counts.update(["chats", f"chats_{chunk.language}", f"chats_{pair.question_type}"])
        yield {
            "id": records.content_id(user, pair.answer),
            "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": pair.answer}],
            "origin": "coverage_seed",
            "source_ids": [chunk.document_id],
            "language": chunk.language,
            "tags": {"question_type": pair.question_type},
        }


def refused(chunk: Chunk, reason: str) -> dict[str, object]:
    return {"reason": reason, "document_id": chunk.document_id, "chunk": chunk.position, "text": chunk.text}


def parse_question_types(text: str) -> list[str]:
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [part for part in chosen if part not in QUESTION_TYPES]:
        raise UserError(f"question_types: {unknown[0]!r} is not one of {', '.join(QUESTION_TYPES)}")
    if not chosen:
        raise UserError(f"question_types is empty: name at least one of {', '.join(QUESTION_TYPES)}")
    return chosen


def check(counts: Counter[str], args: Args) -> None:
    """Stop when too much failed, or nothing came out."""
    records.check_share(counts["documents_refused"], counts["documents"], args.max_error_fraction, "documents")
    records.check_share(counts["chunks_failed"], counts["chunks_asked"], args.max_error_fraction, "chunks")
    if not counts["chats"]:
        raise UserError(
            f"no chat came out of {counts['documents']} documents ({counts['chunks']} chunks, "
            f"{counts['pairs']} pairs): see {args.report / 'quarantine.jsonl'}"
        )


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
