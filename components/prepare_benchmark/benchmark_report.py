"""What a benchmark holds, as report.json and one page: items by subject, right letters, lengths, contamination."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmark_formats import LETTERS

from slmkit import html_report
from slmkit.records import Refused

MAX_CHARACTERS = 300
NUM_REFUSED = 10
UNEVEN = 1.5  # times its share, from where on the most frequent letter is worth a word


def summary(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    lengths = sorted(sum(len(turn["content"]) for turn in item["messages"]) for item in items)
    choices = [item for item in items if "choices" in item]
    gold = Counter(LETTERS[item["gold"]] for item in choices)
    return {
        "benchmark": items[0]["slices"]["benchmark"],
        "languages": dict(Counter(item["slices"]["language"] for item in items).most_common()),
        "subjects": dict(sorted(Counter(item["slices"].get("subject", "all") for item in items).items())),
        "gold": {
            "num_items": len(choices),
            "letters": dict(sorted(gold.items())),
            "chance": sum(1 / len(item["choices"]) for item in choices) / len(choices) if choices else None,
            "most_frequent": max(gold.values()) / len(choices) if choices else None,
        },
        "prompt_characters": {
            "median": _quantile(lengths, 50),
            "p95": _quantile(lengths, 95),
            "max": lengths[-1],
        },
        "num_clusters": len({item.get("cluster", item["id"]) for item in items}),
    }


def _quantile(ordered: Sequence[int], percent: int) -> float:
    return quantiles(ordered, n=100, method="inclusive")[percent - 1] if len(ordered) > 1 else ordered[0]


def headline(report: Mapping[str, Any]) -> str:
    """The result in one sentence, for the log and on top of the page."""
    counts, found = report["counts"], report["contamination"]
    out = {
        "refused": counts["refused"],
        "left out as few-shot examples": counts["left_out_as_examples"],
        "not drawn": counts["not_drawn"],
    }
    said = [f"{number:,} {what}" for what, number in out.items() if number]
    seen = f"; {found['question_fraction']:.1%} of the items stand in the training data" if found else ""
    return (
        f"{counts['items']:,} items of {report['benchmark']} in {len(report['subjects']):,} "
        f"{'subjects' if len(report['subjects']) > 1 else 'subject'}, {report['parameters']['num_fewshot']}-shot"
        f"{'; ' * bool(said)}{', '.join(said)}{seen}"
    )


def write(
    folder: Path, report: Mapping[str, Any], items: Sequence[Mapping[str, Any]], refused: Sequence[Refused]
) -> None:
    content = json.dumps(report, ensure_ascii=False, indent=2)
    (folder / "report.json").write_text(content + "\n", encoding="utf-8")
    (folder / "report.html").write_text(render(report, items, refused), encoding="utf-8")


def render(report: Mapping[str, Any], items: Sequence[Mapping[str, Any]], refused: Sequence[Refused]) -> str:
    lengths = report["prompt_characters"]
    sections = [
        f"<p>{escape(headline(report))}.</p>",
        f"<h2>The first prompt</h2>{prompt(items[0])}",
        f"<h2>Contamination</h2>{contamination(report)}",
    ]
    if report["gold"]["num_items"]:
        sections.append(f"<h2>Right letters</h2>{letters(report['gold'])}")
    sections += [
        "<h2>Prompt length</h2>"
        f"<p>Characters with all examples: {lengths['median']:,.0f} in the middle, {lengths['p95']:,.0f} at 95 %, "
        f"{lengths['max']:,} at most.</p>{charts(report, items)}",
        "<h2>Subjects</h2>" + html_report.table(["subject", "items"], report["subjects"].items()),
        "<h2>Refused rows</h2>"
        + html_report.table(
            ["place", "reason", "row"],
            [(f"{row.source}:{row.line}", row.reason, _shorten(row.text)) for row in refused[:NUM_REFUSED]],
        )
        + (f"<p>{len(refused):,} in all; each in quarantine.jsonl.</p>" if len(refused) > NUM_REFUSED else ""),
        "<h2>Rows</h2>" + html_report.table(["rows", "number"], _words(report["counts"])),
        "<h2>Settings</h2>" + html_report.table(["input", "value"], _words(report["parameters"])),
    ]
    return html_report.page(f"Benchmark: {report['benchmark']}", *sections)


def prompt(item: Mapping[str, Any]) -> str:
    rows = [(turn["role"], turn["content"]) for turn in item["messages"]]
    rows.append(("right", item.get("labels", item.get("choices", item["references"]))[item.get("gold", 0)]))
    cells = "".join(
        f'<tr><td class="note">{escape(role)}</td><td style="white-space: pre-wrap">{escape(text)}</td></tr>'
        for role, text in rows
    )
    return f"<table>{cells}</table>"


def contamination(report: Mapping[str, Any]) -> str:
    found = report["contamination"]
    if not found:
        return f"<p>{html_report.badge('not checked', 'warn')} No train_data was given.</p>"
    share, settings = found["question_fraction"], report["parameters"]
    badge = html_report.badge(*((f"{share:.1%} contaminated", "bad") if share else ("none found", "good")))
    return (
        f"<p>{badge} Held against {found['num_chats']:,} training chats. An item counts when at least "
        f"{settings['min_overlap']:.0%} of the n-grams of its question ({settings['ngram_words']} words, or "
        f"{settings['ngram_characters']} characters in Japanese, Korean and Chinese) stand there; question and right "
        f"answer together: {found['question_and_answer_fraction']:.1%}. "
        f"{found['too_short_for_ngrams_fraction']:.1%} of the questions are shorter than one n-gram; these count when "
        "a line of a chat is the question and the chat holds the answer. Items that count have the slice "
        "contaminated=yes, so that a comparison shows the others apart.</p>"
    ) + html_report.table(
        ["item", "question", "n-grams found"],
        [(row["id"], _shorten(row["question"]), f"{row['overlap']:.0%}") for row in found["examples"]],
    )


def letters(gold: Mapping[str, Any]) -> str:
    most, chance = gold["most_frequent"], gold["chance"]
    badge = html_report.badge(*(("uneven", "warn") if most > UNEVEN * chance else ("balanced", "good")))
    total = gold["num_items"]
    return (
        f"<p>{badge} Guessing scores {chance:.1%}; always naming the most frequent letter {most:.1%}.</p>"
    ) + html_report.table(
        ["right letter", "items", "share"],
        [(letter, number, f"{number / total:.1%}") for letter, number in gold["letters"].items()],
    )


def charts(report: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    lengths = [sum(len(turn["content"]) for turn in item["messages"]) for item in items]
    axes.hist(lengths, bins=40, color="#4a7fb5")
    axes.set(xlabel="characters of a prompt with its examples", ylabel="items")
    return html_report.chart(figure, "Items by the length of their prompts")


def _words(rows: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name.replace("_", " "), value) for name, value in rows.items() if value is not None]


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " ..."
