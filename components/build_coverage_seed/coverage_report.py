"""What was asked, kept and refused and what of the source that covers, as JSON and as one HTML page."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import coverage_charts
from seed_chats import SeedChats
from source_coverage import SourceCoverage

from slmkit import records
from slmkit.document_chunks import Chunk
from slmkit.html_report import badge, page, table

NUM_EXAMPLES = 3
MAX_ROWS = 30
CHUNKS = {
    "with_chats": "at least one chat",
    "without_pairs": "the teacher found nothing to ask",
    "with_refused_pairs_only": "every pair was refused",
    "filtered": "a content filter refused",
    "failed": "no answer",
    "not_asked": "not asked: the budget was used up",
    "left_out": "left out by max_num_chunks",
    "in_other_languages": "in another language, not asked about",
}


def by_group(coverage: SourceCoverage, chunks: Sequence[Chunk]) -> dict[str, dict[str, list[int]]]:
    """By language and by file, for each measured chunk in the order of the source: 1 when it is covered, else 0."""
    covered = dict(zip(coverage.chunks, map(int, coverage.covered()), strict=True))
    groups: dict[str, dict[str, list[int]]] = {"language": {}, "source": {}}
    for chunk in filter(covered.__contains__, chunks):
        groups["language"].setdefault(chunk.language, []).append(covered[chunk])
        groups["source"].setdefault(chunk.source, []).append(covered[chunk])
    return groups


def by_topic(chunks: Iterable[Chunk], seeds: SeedChats, min_per_chunk: int, min_per_topic: int) -> dict[str, object]:
    """How many chats came of the chunks and topics, and which fell below the minimum."""
    topics: Counter[str] = Counter()
    num_chunks_below = 0
    for chunk in chunks:
        num_chats = len(seeds.kept.get(chunk, ()))
        topics[chunk.topic] += num_chats
        num_chunks_below += num_chats < min_per_chunk
    below = {topic: number for topic, number in topics.items() if number < min_per_topic}
    return {
        "num_topics": len(topics),
        "num_topics_below_minimum": len(below),
        "num_chunks_below_minimum": num_chunks_below,
        "min_pairs_per_chunk": min_per_chunk,
        "min_pairs_per_topic": min_per_topic,
        "topics_below_minimum": dict(sorted(below.items(), key=lambda item: item[1])[: 10 * MAX_ROWS]),
    }


def uncovered_row(chunk: Chunk) -> dict[str, object]:
    return {
        "document_id": chunk.document_id,
        "chunk": chunk.position,
        "topic": chunk.topic,
        "language": chunk.language,
        "text": chunk.text[:200],
    }


def write_data(folder: Path, report: Mapping) -> None:
    """``report.json``, and the uncovered chunks in a file of their own."""
    with records.write_records(folder / "uncovered_chunks.jsonl") as write:
        for row in report.get("uncovered", []):
            write(row)
    with records.whole_file(folder / "report.json") as partial:
        content = {name: value for name, value in report.items() if name != "uncovered"}
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_page(folder: Path, chats: Path) -> None:
    """The page of what stands in the files of the folder and in the chats."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    with records.whole_file(folder / "report.html") as partial:
        partial.write_text(render(report, chats, folder), encoding="utf-8")


def render(report: Mapping, chats: Path, folder: Path) -> str:
    counts, coverage, yields = Counter(report["counts"]), report["coverage"], report["yield"]
    uncovered = list(records.read_records(folder / "uncovered_chunks.jsonl"))
    num_chunks = counts["chunks"] - counts["chunks_in_other_languages"]
    share, kind = coverage["coverage"], "good" if coverage["coverage"] >= 0.9 else "warn"
    sections = [
        f"<p>{badge(f'coverage {share:.0%}', kind)} The questions and answers touch {share:.0%} of the chunks of the "
        f"source, {coverage['coverage_first_pass']:.0%} after the first pass. {counts['chats']:,} chats about "
        f"{counts['documents_with_chats']:,} of {counts['documents']:,} documents.</p>",
        _budget(report["budget"], counts),
        coverage_charts.headline(coverage),
        "<p class='note'>k-NN coverage: a chunk is covered when a question and its answer are as near to one of its "
        "passages as the nearest passages of other chunks are. Sentences about unrelated things show what chance "
        f"alone reaches. Of all passages {coverage['passage_coverage']:.0%} are covered: more pairs per chunk raise "
        f"that. Measured on {coverage['num_measured_chunks']:,} of {num_chunks:,} chunks.</p>",
        "<h2>Where it covers the source</h2>",
        coverage_charts.source_map(report["covered"]["source"]),
        table(["language", "chunks", "covered"], _shares(report["covered"]["language"])),
        f"<h2>Chunks that are not covered: {len(uncovered):,}</h2>",
        table(["topic", "chunk", "begins"], [[r["topic"], r["chunk"], r["text"]] for r in uncovered[:MAX_ROWS]]),
        f"<h2>Topics: {yields['num_topics_below_minimum']:,} of {yields['num_topics']:,} have fewer than "
        f"{yields['min_pairs_per_topic']} chats</h2>",
        table(["topic", "chats"], list(yields["topics_below_minimum"].items())[:MAX_ROWS]),
        "<h2>Kinds of questions</h2>",
        coverage_charts.question_types(chats),
        f"<h2>What became of {counts['pairs']:,} pairs</h2>",
        coverage_charts.funnel(counts),
        f"<h2>What became of {counts['chunks']:,} chunks</h2>",
        table(["outcome", "chunks"], [[text, n] for name, text in CHUNKS.items() if (n := counts[f"chunks_{name}"])]),
        f"<p>{counts['chunks_asked_again']:,} were asked about again.</p>",
        f"<h2>What the teacher {badge(report['teacher'], 'note')} was asked</h2>",
        table(["", ""], [[name.replace("_", " "), value] for name, value in report["usage"].items() if value]),
        "<h2>Examples</h2>",
        table(["kind", "question", "answer"], _examples(chats)),
        "<h2>Refused</h2>",
        table(["reason", "chunk", "question", "answer"], _refused_examples(folder / "quarantine.jsonl")),
    ]
    return page("Coverage seed", *sections)


def _budget(budget: Mapping, counts: Counter[str]) -> str:
    if not budget["used_up"]:
        return ""
    stopped = f"stopped by budget after {counts['chunks_asked']:,} of {counts['chunks_wanted']:,} chunks"
    return f"<p>{badge(stopped, 'bad')} {budget['total_tokens']:,.0f} tokens were used.</p>"


def _shares(groups: Mapping[str, list[int]]) -> list[list[object]]:
    return [[name, len(marks), f"{sum(marks) / len(marks):.0%}"] for name, marks in groups.items()]


def _examples(chats: Path) -> list[list[str]]:
    """The first few of each language and kind."""
    shown: Counter[str] = Counter()
    rows = []
    for chat in records.read_records(chats):
        kind = f"{chat['language']}, {chat['tags']['question_type']}"
        shown[kind] += 1
        if shown[kind] <= NUM_EXAMPLES:
            turns = [message["content"] for message in chat["messages"]]
            turns[0] = turns[0].rpartition("\n\n")[2]
            rows.append([kind, " → ".join(turns[::2]), " → ".join(turns[1::2])])
    return sorted(rows, key=lambda row: row[0])


def _refused_examples(quarantine: Path) -> Iterator[list[str]]:
    """The first few of each reason."""
    shown: Counter[str] = Counter()
    for row in records.read_records(quarantine):
        shown[row["reason"]] += 1
        if shown[row["reason"]] <= NUM_EXAMPLES:
            yield [row["reason"], row["text"][:160], row.get("question", ""), row.get("answer", "")]
