#!/usr/bin/env python
"""What retrieve_context's BM25 finds, by language and by the tokens that it counts, and how fast it is.

Three kinds of questions whose document is known, all in one mixed corpus each:
- teacher: what build_coverage_seed's embedded teacher asks about the documents (templates around a term of the text);
- sentence: a sentence taken out of the middle of a chunk, which has to find the chunk it came from (the inverse cloze
  task of Lee et al., 2019);
- gsm8k: people's questions, which have to find the worked answer (English, where the data is at hand).
Then seconds to index chunks made of the same sentences and to answer sentences, the alternatives in turns.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = ROOT / "components"
sys.path[:0] = [str(COMPONENTS / name) for name in ("retrieve_context", "score_answers", "_shared")]

from answer_tokens import characters, morphemes  # noqa: E402
from context_retrievers import Bm25  # noqa: E402
from retrieval_tokens import search_terms  # noqa: E402

from slmkit import document_chunks, records, textstats  # noqa: E402

FOLDERS = [ROOT / "pipelines" / "samples" / "documents", ROOT.parent / "shared" / "data" / "raw"]
GSM8K = ROOT.parent / "shared" / "data" / "benchmarks" / "gsm8k-test.jsonl"
LANGUAGES = ("en", "ja", "ko")
TOKENS: dict[str, Callable[[str], list[str]]] = {
    "pairs": search_terms,
    "characters": characters,
    "morphemes": lambda text: morphemes(text, textstats.language(text)),
    "words": lambda text: text.casefold().split(),
}
Questions = list[tuple[str, str, set[int]]]  # language, question, indices of the passages that count


def component(name: str, **flags: object) -> None:
    command = [sys.executable, str(COMPONENTS / name / "main.py")]
    command += [part for flag, value in flags.items() for part in (f"--{flag}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(COMPONENTS / "_shared")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr[-2000:])


def chunks_and_chats(folders: list[Path], scratch: Path, chunk_chars: int) -> tuple[list, list[dict]]:
    chunks, chats = [], []
    for number, folder in enumerate(folders):
        out = {name: scratch / f"{name}{number}" for name in ("documents", "chats", "report", "manifest")}
        component(
            "collect_documents",
            raw_data=folder,
            documents=out["documents"],
            held_out_documents=scratch / "held_out",
            manifest=out["manifest"],
            quarantine=scratch / "quarantine",
        )
        component(
            "build_coverage_seed",
            documents=out["documents"],
            include_context="false",
            chunk_chars=chunk_chars,
            chats=out["chats"],
            report=out["report"],
        )
        for document in records.read_records(out["documents"]):
            chunks += document_chunks.chunks_of(document, chunk_chars)
        chats += records.read_records(out["chats"])
    return chunks, chats


def teacher_questions(chunks: list, chats: list[dict]) -> tuple[list[str], Questions]:
    of_document = defaultdict(set)
    for index, chunk in enumerate(chunks):
        of_document[chunk.document_id].add(index)
    texts = [f"{chunk.title}\n{chunk.text}" for chunk in chunks]
    return texts, [
        (chat["language"], chat["messages"][0]["content"], set().union(*map(of_document.get, chat["source_ids"])))
        for chat in chats
    ]


def sentence_questions(chunks: list) -> tuple[list[str], Questions]:
    texts, questions = [], []
    for index, chunk in enumerate(chunks):
        sentences = textstats.sentences(chunk.text)
        middle = len(sentences) // 2
        if chunk.language in LANGUAGES and len(sentences) >= 3 and len(sentences[middle]) >= 10:
            questions.append((chunk.language, sentences.pop(middle), {index}))
        texts.append("\n".join(sentences))
    return texts, questions


def gsm8k_questions() -> tuple[list[str], Questions]:
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    return [row["answer"] for row in rows], [("en", row["question"], {i}) for i, row in enumerate(rows)]


def quality(kind: str, texts: list[str], questions: Questions) -> None:
    for name, terms in TOKENS.items():
        rankings = asyncio.run(Bm25(texts, terms).rank([question for _, question, _ in questions], 10))
        ranks = defaultdict(list)
        for (language, _, wanted), ranking in zip(questions, rankings, strict=True):
            rank = next((rank for rank, index in enumerate(ranking, 1) if index in wanted), float("inf"))
            ranks[language].append(rank)
        for language in sorted(ranks):
            of = ranks[language]
            at_1, at_5 = (sum(rank <= k for rank in of) / len(of) for k in (1, 5))
            mrr = sum(1 / rank for rank in of) / len(of)
            print(f"{kind:<10}{language:<10}{name:<12}{len(of):>10}{at_1:>8.3f}{at_5:>8.3f}{mrr:>8.3f}")


def speed(chunks: list, num_chunks: int, rounds: int) -> None:
    generator = random.Random(1)
    print(f"\n{'language':<10}{'tokens':<12}{'chunks':>10}{'chunks/s':>10}{'queries/s':>11}")
    for language in LANGUAGES:
        pool = [s for chunk in chunks if chunk.language == language for s in textstats.sentences(chunk.text)]
        size = max(1, round(600 * len(pool) / sum(map(len, pool))))
        texts = ["\n".join(generator.choices(pool, k=size)) for _ in range(num_chunks)]
        questions = generator.choices([sentence for sentence in pool if len(sentence) >= 10], k=500)
        best = defaultdict(lambda: [0.0, 0.0])
        for _ in range(rounds):
            for name, terms in TOKENS.items():
                started = time.process_time()
                index = Bm25(texts, terms)
                indexed = time.process_time()
                asyncio.run(index.rank(questions, 10))
                rates = (len(texts) / (indexed - started), len(questions) / (time.process_time() - indexed))
                best[name] = [max(pair) for pair in zip(best[name], rates, strict=True)]
        for name, (indexing, answering) in best.items():
            print(f"{language:<10}{name:<12}{num_chunks:>10,}{indexing:>10,.0f}{answering:>11,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", default=[folder for folder in FOLDERS if folder.is_dir()])
    parser.add_argument("--chunk-chars", type=int, default=400)
    parser.add_argument("--num-chunks", type=int, default=5_000, help="chunks of about 600 characters, for the speed")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        chunks, chats = chunks_and_chats(args.folders, Path(scratch), args.chunk_chars)
    print(f"{len(chunks)} chunks of at most {args.chunk_chars} characters")
    print(f"{'kind':<10}{'language':<10}{'tokens':<12}{'questions':>10}{'hit@1':>8}{'hit@5':>8}{'MRR@10':>8}")
    quality("teacher", *teacher_questions(chunks, chats))
    quality("sentence", *sentence_questions(chunks))
    if GSM8K.is_file():
        quality("gsm8k", *gsm8k_questions())
    speed(chunks, args.num_chunks, args.rounds)


if __name__ == "__main__":
    main()
