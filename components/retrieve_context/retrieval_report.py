"""How often a document that holds the answer is found, and at which rank, as JSON and as one HTML page."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from context_prompts import Passage, language_of, question_of

from slmkit import records
from slmkit.html_report import badge, page, table

DEPTH = 10  # ranks that the mean reciprocal rank looks at
NUM_MISSES = 5  # shown of a language
SHOWN_CHARS = 200


def measure(
    items: Sequence[dict[str, Any]],
    found: Sequence[Sequence[Passage]],
    contexts: Sequence[Sequence[Passage]],
    corpus: set[str] | None,
    top_k: int,
) -> dict[str, Any]:
    """Over the items whose source is known and in the corpus: a hit is a passage of any of its sources."""
    rows, misses, num_absent, num_unknown = [], defaultdict(list), 0, 0
    for item, passages, context in zip(items, found, contexts, strict=True):
        sources = set(item.get("source_ids") or [])
        present = sources if corpus is None else sources & corpus
        num_unknown += not sources
        num_absent += bool(sources) and not present
        if not present:
            continue
        ranks = [rank for rank, passage in enumerate(passages, start=1) if passage.document_id in present]
        in_context = any(passage.document_id in present for passage in context)
        rows.append({"language": language_of(item), "rank": min(ranks, default=None), "in_context": in_context})
        if not in_context:
            misses[rows[-1]["language"]].append(_miss(item, sources, passages, rows[-1]["rank"]))
    languages = sorted({row["language"] for row in rows})
    groups = {"all": rows} | {name: [row for row in rows if row["language"] == name] for name in languages}
    lengths = [sum(len(passage.text) for passage in context) for context in contexts]
    return {
        "num_items": len(items),
        "num_without_context": lengths.count(0),
        "num_source_unknown": num_unknown,
        "num_source_absent": num_absent,
        "context_chars": {"mean": statistics.fmean(lengths), "max": max(lengths)},
        "top_k": top_k,
        "retrieval": {name: _rates(group, top_k) for name, group in groups.items()} if rows else {},
        "misses": [miss for language in languages for miss in misses[language][:NUM_MISSES]],
    }


def _rates(rows: Sequence[dict[str, Any]], top_k: int) -> dict[str, float]:
    ranks = [row["rank"] or float("inf") for row in rows]
    rates = {f"hit_at_{k}": statistics.fmean(rank <= k for rank in ranks) for k in sorted({1, 3, 5, top_k})}
    rates[f"mrr_at_{DEPTH}"] = statistics.fmean(1 / rank if rank <= DEPTH else 0.0 for rank in ranks)
    rates["in_context"] = statistics.fmean(row["in_context"] for row in rows)
    return {"num_items": len(rows), **rates}


def _miss(
    item: dict[str, Any], sources: Iterable[str], passages: Sequence[Passage], rank: int | None
) -> dict[str, Any]:
    best = passages[0] if passages else Passage("", "")
    return {
        "id": item["id"],
        "question": question_of(item)[-SHOWN_CHARS:],
        "source_ids": sorted(sources),
        "rank": rank,
        "best_document": best.document_id,
        "best_text": best.text[:SHOWN_CHARS],
    }


def metrics(measured: dict[str, Any]) -> dict[str, float]:
    named = {f"retrieval/{name}": float(value) for name, value in measured["retrieval"].get("all", {}).items()}
    for name in ("num_without_context", "num_source_unknown", "num_source_absent"):
        named[f"retrieval/{name}"] = float(measured[name])
    named["retrieval/context_chars"] = measured["context_chars"]["mean"]
    return named


def headline(measured: dict[str, Any], retriever: str) -> str:
    rates = measured["retrieval"].get("all")
    if rates:
        shown = ", ".join(f"{_label(name)} {rates[name]:.1%}" for name in rates if name.startswith(("hit", "in")))
        said = f"{shown}, MRR {rates[f'mrr_at_{DEPTH}']:.3f} over {rates['num_items']} items with a known source"
    else:
        said = "no item names a source that is in the corpus, so that nothing can be said about hits"
    return (
        f"{retriever}: {said}; {measured['num_items']} items, {measured['num_without_context']} without context, "
        f"{measured['num_source_absent']} whose source is not in the corpus"
    )


def write(folder: Path, measured: dict[str, Any], retriever: str, refused: list[dict[str, object]]) -> None:
    """report.json, report.html, and the refused documents each with its reason."""
    with records.whole_folder(folder) as report:
        write_quarantine(report, refused)
        text = json.dumps({"retriever": retriever, **measured}, ensure_ascii=False, indent=2)
        (report / "report.json").write_text(text + "\n", encoding="utf-8")
        (report / "report.html").write_text(_page(measured, retriever), encoding="utf-8")


def write_quarantine(folder: Path, refused: list[dict[str, object]]) -> None:
    with records.write_records(folder / "quarantine.jsonl") as refuse:
        for row in refused:
            refuse(row)


def _page(measured: dict[str, Any], retriever: str) -> str:
    rates = measured["retrieval"]
    counts = {
        "items": measured["num_items"],
        "without context, left as they were": measured["num_without_context"],
        "no source known": measured["num_source_unknown"],
        "source not in the corpus": measured["num_source_absent"],
        "characters of context, mean": round(measured["context_chars"]["mean"]),
        "characters of context, most": measured["context_chars"]["max"],
        **{name.replace("_", " "): number for name, number in measured.get("corpus", {}).items()},
    }
    sections = [
        f"<p>{badge(retriever, 'good')} the {measured['top_k']} best passages before each question</p>",
        "<h2>Is the document with the answer found?</h2>",
        "<p class='note'>Share of the items with a known source in the corpus for which a passage of it is among the "
        "first k, and the share whose context holds one after max_context_chars. By document id, not by words.</p>",
    ]
    if rates:
        head = ["language", *map(_label, rates["all"])]
        sections.append(table(head, [[name, *group.values()] for name, group in rates.items()]))
    else:
        sections.append("<p>No item names a source that is in the corpus.</p>")
    sections += ["<h2>Counts</h2>", table(["what", "number"], counts.items())]
    misses = [
        (
            miss["question"],
            ", ".join(miss["source_ids"]),
            miss["rank"] or f"not in {max(DEPTH, measured['top_k'])}",
            miss["best_text"],
        )
        for miss in measured["misses"]
    ]
    head = ["question", "source", "its rank", "the best passage instead"]
    return page("Retrieved context", *sections, "<h2>Misses</h2>", table(head, misses))


def _label(name: str) -> str:
    return name.replace("_at_", "@").replace("mrr", "MRR").replace("_", " ").replace("num items", "items")
