"""Make question-answer chats that cover the documents, by asking a teacher about each of their chunks."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import coverage_report
import extractive_teacher
from seed_chats import QUESTION_TYPES, Refuse, SeedChats, refused
from source_coverage import SourceCoverage
from teacher_passes import LANGUAGES, Budget, TeacherPasses, spread

from slmkit import cli, lineage, records, teacher, tracking
from slmkit.document_chunks import Chunk, chunks_of
from slmkit.embedding_endpoint import EmbeddingEndpoint
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True)
class Args:
    documents: Path
    chats: Path
    report: Path
    teacher: str = "embedded"
    teacher_model: str = "embedded"
    auth: str = "azure"
    num_pairs_per_chunk: int = 3
    question_types: str = "short,boolean,long,summary,conversation"
    chunk_chars: int = 1200
    include_context: bool = True
    max_num_chunks: int | None = None
    min_pairs_per_chunk: int = 1
    min_pairs_per_topic: int = 3
    num_passes: int = 2
    num_neighbors: int = 2
    embedding_endpoint: str | None = None
    embedding_model: str | None = None
    max_total_tokens: int | None = None
    max_cost: float | None = None
    prompt_price: float | None = None
    completion_price: float | None = None
    concurrency: int = 8
    max_retries: int = 6
    max_error_fraction: float = 0.05
    seed: int = 42


def run(args: Args) -> dict[str, float]:
    question_types = parse_question_types(args.question_types)
    check_parameters(args)
    teacher_name = teacher.name(args.teacher, args.teacher_model)
    tracking.set_tags({"teacher": teacher_name})
    counts: Counter[str] = Counter()
    answers_so_far = teacher.keep_until_done(args.report)
    with records.write_records(args.report / "quarantine.jsonl") as refuse:
        chunks = list(read_chunks(args, counts, refuse))
        seeds = SeedChats(question_types, args.num_pairs_per_chunk, args.include_context, counts, refuse)
        made = asyncio.run(build(args, chunks, seeds, answers_so_far, counts, refuse)) if chunks else {}
    coverage_report.write_data(args.report, {"teacher": teacher_name, "counts": dict(sorted(counts.items())), **made})
    check(counts, args)
    with records.write_records(args.chats) as write:
        for chat in seeds.chats(chunks):
            write(chat)
    coverage_report.write_page(args.report, args.chats)
    if not made["budget"]["used_up"]:  # else a larger budget goes on from them
        teacher.forget(answers_so_far)

    metrics = {
        f"data/num_{name}": float(counts[name]) for name in ("documents", "chunks", "chunks_asked", "pairs", "chats")
    }
    metrics |= {f"data/{name}": float(value) for name, value in made["coverage"].items()}
    for what in ("chunks", "topics"):
        metrics[f"data/num_{what}_below_minimum"] = float(made["yield"][f"num_{what}_below_minimum"])
    metrics |= {f"teacher/{name}": value for name, value in made["usage"].items()}
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    lineage.write(args, SPEC)
    coverage = made["coverage"]
    print(
        f"teacher={teacher_name}: {counts['chats']} chats from {counts['chunks_with_chats']} of {counts['chunks']} "
        f"chunks ({counts['documents_with_chats']} of {counts['documents']} documents); coverage "
        f"{coverage['coverage']:.2f} of the source, {coverage['coverage_first_pass']:.2f} after the first pass; "
        f"{counts['pairs'] - counts['chats']} pairs refused, see {args.report / 'quarantine.jsonl'}"
    )
    if made["budget"]["used_up"]:
        print(f"stopped by budget after {counts['chunks_asked']} of {counts['chunks_wanted']} chunks")
    return metrics


async def build(
    args: Args,
    chunks: list[Chunk],
    seeds: SeedChats,
    answers_so_far: Path,
    counts: Counter[str],
    refuse: Refuse,
) -> dict[str, object]:
    """Ask about the chunks, then again about what is not covered; gives what the report says."""
    wanted = chosen(chunks, args.max_num_chunks)
    counts["chunks_wanted"], counts["chunks_left_out"] = len(wanted), len(chunks) - len(wanted)
    prices = None if args.prompt_price is None else (args.prompt_price, args.completion_price)
    parameters = {"num_pairs": args.num_pairs_per_chunk, "question_types": ", ".join(seeds.question_types)}
    async with teacher.connect(
        args.teacher,
        args.teacher_model,
        extractive_teacher.answer,
        auth=args.auth,
        concurrency=args.concurrency,
        max_retries=args.max_retries,
        cache_path=answers_so_far,
        prices=prices,
    ) as client:
        free = args.teacher == teacher.EMBEDDED
        budget = Budget(client, None if free else args.max_total_tokens, None if free else args.max_cost)
        passes = TeacherPasses(client, budget, seeds, parameters, args.seed)
        new = await passes.ask(wanted)
        coverage = SourceCoverage(spread(chunks), args.num_neighbors, embedding(args))
        await coverage.prepare()
        await coverage.add([(chunk, pair.text()) for chunk, pair in new])
        first_pass = coverage.share()
        for again in range(1, args.num_passes):
            missing = set(coverage.uncovered())
            missing.update(chunk for chunk in wanted if len(seeds.kept.get(chunk, ())) < args.min_pairs_per_chunk)
            targets = [chunk for chunk in wanted if chunk in missing]
            if budget.used_up or not targets:
                break
            counts["chunks_asked_again"] += len(targets)
            new = await passes.ask(targets, again)
            await coverage.add([(chunk, pair.text()) for chunk, pair in new])

    for chunk, (outcome, reason) in passes.outcomes.items():
        counts.update(["chunks_asked", f"chunks_{outcome}"])
        if reason:
            refuse(refused(chunk, reason))
    counts["chunks_not_asked"] = len(wanted) - counts["chunks_asked"]
    counts["documents_with_chats"] = len({chunk.document_id for chunk, kept in seeds.kept.items() if kept})
    return {
        "usage": client.usage.summary(),
        "budget": budget.summary(),
        "coverage": {**coverage.summary(), "coverage_first_pass": first_pass},
        "covered": coverage_report.by_group(coverage, chunks),
        "yield": coverage_report.by_topic(wanted, seeds, args.min_pairs_per_chunk, args.min_pairs_per_topic),
        "uncovered": [coverage_report.uncovered_row(chunk) for chunk in coverage.uncovered()],
    }


def read_chunks(args: Args, counts: Counter[str], refuse: Refuse) -> Iterator[Chunk]:
    """The chunks that can be asked about, in order; what cannot is counted and refused."""
    ids: set[str] = set()

    def refuse_line(line: records.Refused) -> None:
        counts["documents"] += 1
        counts["documents_refused"] += 1
        refuse({"reason": line.reason, "source": line.source, "line": line.line, "text": line.text})

    for document, source, line in records.read_located(args.documents, refuse_line):
        if not all(isinstance(document.get(name), str) and document[name].strip() for name in ("id", "text")):
            refuse_line(records.Refused(source, line, "a document needs an id and a text", str(document)[:200]))
            continue
        if document["id"] in ids:
            refuse_line(records.Refused(source, line, f"a second document {document['id']}", document["text"][:200]))
            continue
        ids.add(document["id"])
        counts["documents"] += 1
        for chunk in chunks_of(document, args.chunk_chars):
            counts["chunks"] += 1
            if chunk.language in LANGUAGES:
                yield chunk
            else:
                counts["chunks_in_other_languages"] += 1
                refuse(refused(chunk, f"language {chunk.language} is not one of {', '.join(sorted(LANGUAGES))}"))


def chosen(chunks: list[Chunk], max_num_chunks: int | None) -> list[Chunk]:
    """As many chunks as may be asked about, evenly over all of them, in an order that stays even when cut short."""
    num, wanted = len(chunks), min(max_num_chunks or len(chunks), len(chunks))
    return spread(chunk for i, chunk in enumerate(chunks) if (i + 1) * wanted // num > i * wanted // num)


def embedding(args: Args) -> EmbeddingEndpoint | None:
    if args.embedding_endpoint is None:
        return None
    settings = {"auth": args.auth, "concurrency": args.concurrency, "max_retries": args.max_retries}
    return EmbeddingEndpoint(args.embedding_endpoint, args.embedding_model, **settings)


def parse_question_types(text: str) -> list[str]:
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [part for part in chosen if part not in QUESTION_TYPES]:
        raise UserError(f"question_types: {unknown[0]!r} is not one of {', '.join(QUESTION_TYPES)}")
    if not chosen:
        raise UserError(f"question_types is empty: name at least one of {', '.join(QUESTION_TYPES)}")
    return chosen


def check_parameters(args: Args) -> None:
    """What the bounds in component.yml cannot say."""
    if (args.prompt_price is None) != (args.completion_price is None):
        raise UserError("prompt_price and completion_price go together: give both or none")
    if args.max_cost is not None and args.prompt_price is None:
        raise UserError("max_cost needs prompt_price and completion_price, per million tokens, to tell what is spent")
    if (args.embedding_endpoint is None) != (args.embedding_model is None):
        raise UserError("embedding_endpoint and embedding_model go together: give both or none")


def check(counts: Counter[str], args: Args) -> None:
    """Stop when too much failed, or nothing came out."""
    records.check_share(counts["documents_refused"], counts["documents"], args.max_error_fraction, "documents")
    records.check_share(counts["chunks_failed"], counts["chunks_asked"], args.max_error_fraction, "chunks")
    if counts["chunks_wanted"] and not counts["chunks_asked"]:
        raise UserError("the budget is less than one question takes: raise max_total_tokens or max_cost")
    if not counts["chats"]:
        raise UserError(
            f"no chat came out of {counts['documents']} documents ({counts['chunks']} chunks, "
            f"{counts['pairs']} pairs): see {args.report / 'quarantine.jsonl'}"
        )


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
