"""Retrieve passages for each question and put them before it, and measure how often the right document is found."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import retrieval_report
from azure_search import AzureSearch
from context_prompts import ContextPrompt, Passage, question_of, within
from context_retrievers import Bm25, Embeddings, Hybrid, Retriever

from slmkit import checked_files, cli, document_chunks, lineage, records, tracking
from slmkit.embedding_endpoint import EmbeddingEndpoint
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
DEFAULT_PROMPT = Path(__file__).with_name("context_prompt.yml")


@dataclass(frozen=True)
class Args:
    eval_items: Path
    augmented_eval_items: Path
    report: Path
    documents: Path | None = None
    context_prompt: Path | None = None
    retriever: str = "bm25"
    top_k: int = 3
    chunk_chars: int = 1200
    max_context_chars: int = 4000
    embedding_endpoint: str | None = None
    embedding_model: str | None = None
    search_endpoint: str | None = None
    search_index: str | None = None
    search_id_field: str = "id"
    search_text_field: str = "content"
    auth: str = "azure"
    concurrency: int = 8
    max_retries: int = 6
    max_error_fraction: float = 0.05


def run(args: Args) -> dict[str, float]:
    check_parameters(args)
    items = read_items(args.eval_items)
    depth = max(args.top_k, retrieval_report.DEPTH)
    questions = list(map(question_of, items))
    refused: list[dict[str, object]] = []
    if args.retriever == "azure_ai_search":
        found, corpus = asyncio.run(search(args, questions, depth)), None
    else:
        chunks = read_chunks(args, refused)
        texts = [passage_text(chunk) for chunk in chunks]
        passages = [Passage(chunk.document_id, text) for chunk, text in zip(chunks, texts, strict=True)]
        rankings = asyncio.run(retriever(args, texts).rank(questions, depth))
        found = [[passages[index] for index in ranking] for ranking in rankings]
        corpus = {chunk.document_id for chunk in chunks}

    prompt = checked_files.load(args.context_prompt or DEFAULT_PROMPT, ContextPrompt)
    contexts = [within(best[: args.top_k], args.max_context_chars) for best in found]
    with records.write_records(args.augmented_eval_items) as write:
        for item, context in zip(items, contexts, strict=True):
            write(prompt.around(item, context) if context else item | {"context_ids": []})
    measured = retrieval_report.measure(items, found, contexts, corpus, args.top_k)
    if corpus is not None:
        measured["corpus"] = {"documents": len(corpus), "passages": len(passages), "documents_refused": len(refused)}
    retrieval_report.write(args.report, measured, args.retriever, refused)
    metrics = retrieval_report.metrics(measured)
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    lineage.write(args, SPEC)
    print(retrieval_report.headline(measured, args.retriever))
    return metrics


def retriever(args: Args, texts: list[str]) -> Retriever:
    if args.retriever == "bm25":
        return Bm25(texts)
    settings: dict[str, Any] = {"auth": args.auth, "concurrency": args.concurrency, "max_retries": args.max_retries}
    embeddings = Embeddings(texts, EmbeddingEndpoint(args.embedding_endpoint, args.embedding_model, **settings))
    return embeddings if args.retriever == "embeddings" else Hybrid(Bm25(texts), embeddings)


async def search(args: Args, questions: list[str], depth: int) -> list[list[Passage]]:
    service = AzureSearch(
        args.search_endpoint,
        args.search_index,
        id_field=args.search_id_field,
        text_field=args.search_text_field,
        auth=args.auth,
        concurrency=args.concurrency,
        max_retries=args.max_retries,
    )
    return [[Passage(*row) for row in rows] for rows in await service.search(questions, depth)]


def passage_text(chunk: document_chunks.Chunk) -> str:
    """The chunk under the title of its document, which often names what the chunk is about."""
    return f"{chunk.title}\n{chunk.text}" if chunk.title and not chunk.text.startswith(chunk.title) else chunk.text


def read_chunks(args: Args, refused: list[dict[str, object]]) -> list[document_chunks.Chunk]:
    """The chunks of all documents, in order; a line that is no document, or a second one of its id, is refused."""
    chunks: list[document_chunks.Chunk] = []
    ids: set[str] = set()

    def refuse(line: records.Refused) -> None:
        refused.append({"reason": line.reason, "source": line.source, "line": line.line, "text": line.text})

    for document, source, line in records.read_located(args.documents, refuse):
        if not all(isinstance(document.get(name), str) and document[name].strip() for name in ("id", "text")):
            refuse(records.Refused(source, line, "a document needs an id and a text", str(document)[:200]))
        elif document["id"] in ids:
            refuse(records.Refused(source, line, f"a second document {document['id']}", document["text"][:200]))
        else:
            ids.add(document["id"])
            chunks += document_chunks.chunks_of(document, args.chunk_chars)
    first = "".join(f" (the first: {row['source']}:{row['line']}: {row['reason']})" for row in refused[:1])
    try:
        records.check_share(len(refused), len(refused) + len(ids), args.max_error_fraction, f"documents{first}")
    except UserError:
        with records.whole_folder(args.report) as folder:
            retrieval_report.write_quarantine(folder, refused)
        raise
    if not chunks:
        raise UserError(f"{args.documents}: no documents; there is nothing to retrieve from")
    return chunks


def read_items(path: Path) -> list[dict[str, Any]]:
    """The eval items, each of which ends with a question."""
    items: dict[str, dict[str, Any]] = {}
    for item, source, line in records.read_located(path):
        where = f"{source}:{line}"
        if not isinstance(item.get("id"), str) or not item["id"].strip():
            raise UserError(f"{where}: no 'id' (a text); every record needs one")
        if item["id"] in items:
            raise UserError(f"{where}: id {item['id']!r} stands twice in the eval items; ids must be unique")
        try:
            records.check_chat(item)
            records.check_slices(item)
        except ValueError as error:
            raise UserError(f"{where}: eval item {item['id']!r}: {error}") from None
        if item["messages"][-1]["role"] != "user":
            raise UserError(f"{where}: eval item {item['id']!r} must end with the user's turn, which is the question")
        sources = item.get("source_ids") or []
        if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
            raise UserError(f"{where}: the 'source_ids' of eval item {item['id']!r} are not a list of document ids")
        items[item["id"]] = item
    if not items:
        raise UserError(f"{path}: no eval items; there is nothing to retrieve for")
    return list(items.values())


def check_parameters(args: Args) -> None:
    """Each retriever has what it needs, and nothing is given that it would not read."""
    needed = {"bm25": ("documents",), "azure_ai_search": ("search_endpoint", "search_index")}
    needed["embeddings"] = needed["hybrid"] = ("documents", "embedding_endpoint", "embedding_model")
    wanted = needed[args.retriever]
    if missing := [name for name in wanted if getattr(args, name) is None]:
        raise UserError(f"the retriever {args.retriever} needs {' and '.join(missing)}")
    of_others = sorted({name for names in needed.values() for name in names} - set(wanted))
    if unread := [name for name in of_others if getattr(args, name) is not None]:
        raise UserError(
            f"the retriever {args.retriever} does not read {' and '.join(unread)}; choose another, or omit it"
        )


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
