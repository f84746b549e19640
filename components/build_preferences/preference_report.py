"""What the pairs are made of, as report.json and one page: what made none, margins, length bias, examples."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from preference_pairs import REFERENCE, Pair

from slmkit import html_report, records

NUM_EXAMPLES = 8
MAX_CHARACTERS = 400
TOO_TELLING = 0.65  # of the pairs that the length alone decides


def write(
    folder: Path,
    pairs: Sequence[Pair],
    held_out: set[str],
    num_questions: Counter[str],
    num_answers: Counter[str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    lengths = [tuple(len(pair[side][0]["content"]) for side in ("chosen", "rejected")) for pair in pairs]
    num_held_out = sum(pair["cluster"] in held_out for pair in pairs)
    report = {
        "pairs": {
            "num_pairs": len(pairs),
            "num_train_pairs": len(pairs) - num_held_out,
            "num_validation_pairs": num_held_out,
            "num_questions_without_pair": num_questions.total() - len({pair["question_id"] for pair in pairs}),
            "mean_margin": fmean(map(margin, pairs)),
            "reference_chosen_fraction": fmean(pair["chosen_candidate"] == REFERENCE for pair in pairs),
            "chosen_longer_fraction": fmean(chosen > rejected for chosen, rejected in lengths),
            "rejected_longer_fraction": fmean(chosen < rejected for chosen, rejected in lengths),
            "mean_chosen_characters": fmean(chosen for chosen, _ in lengths),
            "mean_rejected_characters": fmean(rejected for _, rejected in lengths),
        },
        "questions": dict(num_questions.most_common()),
        "answers": dict(num_answers.most_common()),
        "settings": dict(settings),
    }
    with records.whole_folder(folder) as partial:
        (partial / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (partial / "report.html").write_text(render(report, pairs), encoding="utf-8")
    return report


def margin(pair: Pair) -> float:
    return pair["chosen_score"] - pair["rejected_score"]


def headline(report: Mapping[str, Any]) -> str:
    """The result in one sentence, for the log and on top of the page."""
    found = report["pairs"]
    others = [f"{reason} {number:,}" for reason, number in report["questions"].items() if reason != "made a pair"]
    return (
        f"{found['num_pairs']:,} pairs from {sum(report['questions'].values()):,} questions, "
        f"{found['num_validation_pairs']:,} of them held out; mean margin {found['mean_margin']:.2f} in "
        f"{report['settings']['metric']}, the reference preferred in {found['reference_chosen_fraction']:.0%}"
        + (f"; without a pair: {', '.join(others)}" if others else "")
    )


def render(report: Mapping[str, Any], pairs: Sequence[Pair]) -> str:
    return html_report.page(
        "Preference pairs",
        f"<p>{escape(headline(report))}.</p>",
        *("<h2>Questions</h2>", html_report.table(["outcome", "questions"], report["questions"].items())),
        *("<h2>Answers</h2>", html_report.table(["outcome", "answers"], report["answers"].items())),
        *("<h2>Margins and lengths</h2>", length_bias(report["pairs"]), chart(pairs)),
        *("<h2>Examples</h2>", examples(pairs)),
        *("<h2>Settings</h2>", html_report.table(["input", "value"], report["settings"].items())),
    )


def length_bias(found: Mapping[str, float]) -> str:
    """Preferences are often longer answers, and then length is all that a model learns from them."""
    longer, shorter = found["chosen_longer_fraction"], found["rejected_longer_fraction"]
    rule, share = ("longer", longer) if longer >= shorter else ("shorter", shorter)
    badge = html_report.badge(*(("length bias", "warn") if share > TOO_TELLING else ("little length bias", "good")))
    return (
        f"<p>{badge} Whoever always preferred the {rule} answer would be right in {share:.0%} of the pairs: "
        f"{found['mean_chosen_characters']:.0f} characters are preferred to {found['mean_rejected_characters']:.0f} on "
        "average.</p>"
    )


def chart(pairs: Sequence[Pair]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(list(map(margin, pairs)), bins=20, range=(0, 1), color="#4a7fb5")
    left.set(xlabel="margin of the scores", ylabel="pairs")
    lengths = [[len(pair[side][0]["content"]) for pair in pairs] for side in ("chosen", "rejected")]
    right.hist(lengths, bins=20, color=["#2e7d4f", "#b5524a"], label=["chosen", "rejected"])
    right.set(xlabel="characters")
    right.legend()
    return html_report.chart(figure, "Pairs by margin; answers by length, chosen and rejected")


def examples(pairs: Sequence[Pair]) -> str:
    """From the widest margin to the narrowest."""
    ranked = sorted(pairs, key=lambda pair: (-margin(pair), pair["id"]))
    step = max(1, len(ranked) // NUM_EXAMPLES)
    return html_report.table(
        ["question", "chosen", "rejected", "margin"],
        [
            (
                _shorten(pair["prompt"][-1]["content"]),
                f"{pair['chosen_candidate']}: {_shorten(pair['chosen'][0]['content'])}",
                f"{pair['rejected_candidate']}: {_shorten(pair['rejected'][0]['content'])}",
                margin(pair),
            )
            for pair in ranked[::step][:NUM_EXAMPLES]
        ],
    )


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"
