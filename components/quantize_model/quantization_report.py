"""The measurements as a page to look at, and as JSON for register_model."""

import json
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from paired_difference import Difference
from quantized_quality import Quality, num_threads, speedup

from slmkit import html_report

NUM_EXAMPLES = 12
PHASES = {"decode": "tokens a second, writing", "prefill": "tokens a second, reading the prompt"}


def write(folder: Path, found: Quality, log: Path) -> None:
    (folder / "quantization.json").write_text(
        json.dumps(as_json(found), ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    (folder / "report.html").write_text(page(found), encoding="utf-8")
    shutil.copyfile(log, folder / "quantizer.log")


def as_json(found: Quality) -> dict[str, Any]:
    args, before, after, of = found.args, found.before, found.after, found.difference
    return {
        "method": args.method,
        "source_model_sha256": before.sha256,
        "model_sha256": after.sha256,
        "passed": found.passed,
        "size_bytes": {
            "before": before.weight_bytes,
            "after": after.weight_bytes,
            "ratio": found.size_ratio,
            "folder_before": before.all_bytes,
            "folder_after": after.all_bytes,
        },
        "tokens_per_second": {
            phase: {
                "before": getattr(before, phase),
                "after": getattr(after, phase),
                "ratio": speedup(found, phase),
            }
            for phase in PHASES
        }
        | {"num_threads": num_threads(args)},
        "perplexity": {
            "before": before.perplexity,
            "after": after.perplexity,
            "ratio": after.perplexity / before.perplexity,
        },
        "metric": {
            "name": args.metric,
            "before": found.mean_score(before),
            "after": found.mean_score(after),
            "difference": of.mean,
            "low": of.low,
            "high": of.high,
            "confidence_level": 0.95,
            "num_items": of.num_items,
            "num_clusters": of.num_clusters,
            "num_not_asked": before.answers.count(None),
        },
        "slices": {
            language: {
                "before": was,
                "after": now,
                "difference": part.mean,
                "low": part.low,
                "high": part.high,
                "num_items": part.num_items,
            }
            for language, (was, now, part) in found.slices.items()
        },
        "max_quality_drop": args.max_quality_drop,
    }


def page(found: Quality) -> str:
    args, of = found.args, found.difference
    verdict = html_report.badge("passed", "good") if found.passed else html_report.badge("failed", "bad")
    limit = f"A loss of up to {100 * args.max_quality_drop:g} points is accepted (max_quality_drop)"
    outcome = (
        f"<p>{verdict} {escape(args.metric)} changed by {100 * of.mean:+.1f} points, 95 % interval "
        f"{_interval(of)}, over {of.num_items:,} questions in {of.num_clusters:,} "
        f"clusters. {limit}; the measured change decides, not the end of its interval.</p>"
    )
    if found.why_not:
        outcome += f"<p>{escape(found.why_not)}.</p>"
    elif -of.low > args.max_quality_drop:
        outcome += (
            f'<p class="note">So few questions leave open a loss of up to {-100 * of.low:.1f} points, which is more '
            "than accepted. More questions would tell.</p>"
        )
    changed = _changes(found)
    num_changed = f"{len(changed):,} of {of.num_items:,} answers differ"
    return html_report.page(
        f"Quantized by {args.method}",
        outcome,
        "<h2>Side by side</h2>",
        html_report.table(("measure", "before", "after", "ratio"), _measures(found)),
        f'<p class="note">Both by the engine that serves them, with {_threads(num_threads(args))}, in turns at each '
        f"question; speeds are those of the median question. {_engines(args.method)}</p>",
        "<h2>By language</h2>",
        html_report.table(
            ("language", "questions", f"{args.metric} before (%)", "after (%)", "change (points)", "95 % interval"),
            (
                (name, part.num_items, *map(_points, (was, now, part.mean)), _interval(part))
                for name, (was, now, part) in found.slices.items()
            ),
        ),
        _method_note(found),
        f"<h2>Answers</h2><p>{num_changed}; those that lost most come first.</p>",
        html_report.table(("question", "before", "after", "change (points)"), changed[:NUM_EXAMPLES]),
    )


def _measures(found: Quality) -> Iterator[tuple[object, ...]]:
    before, after = found.before, found.after
    yield "weights (MiB)", *_side_by_side(before.weight_bytes / 2**20, after.weight_bytes / 2**20)
    yield "whole folder (MiB)", *_side_by_side(before.all_bytes / 2**20, after.all_bytes / 2**20)
    for phase, words in PHASES.items():
        yield words, *_side_by_side(getattr(before, phase), getattr(after, phase))
    yield "perplexity of the references", *_side_by_side(before.perplexity, after.perplexity, num_digits=4)
    was, now = found.mean_score(before), found.mean_score(after)
    yield f"{found.args.metric} (%)", _points(was), _points(now), _side_by_side(was, now)[-1]


def _side_by_side(before: float | None, after: float | None, num_digits: int = 3) -> list[float | str]:
    """Both and their ratio, to the digits that a measurement is good for."""
    ratio = after / before if before and after is not None else None
    digits = f".{num_digits}g"
    return ["none" if value is None else float(f"{value:{digits}}") for value in (before, after, ratio)]


def _points(share: float) -> float:
    return round(100 * share, 1)


def _interval(of: Difference) -> str:
    return f"{100 * of.low:+.1f} to {100 * of.high:+.1f}"


def _threads(number: int) -> str:
    return "one thread" if number == 1 else f"{number} threads"


def _engines(method: str) -> str:
    if method == "onnx-int4":
        return (
            "Before: Transformers in float32. After: ONNX Runtime GenAI. Threads of Transformers sleep while they wait "
            "for each other, which slows a very small model; num_threads=1 compares without that."
        )
    return (
        "Both: Transformers in float32 on the CPU, which says nothing about the speed on a GPU, where vLLM or "
        "Transformers multiply in 4 or 8 bits."
    )


def _method_note(found: Quality) -> str:
    not_asked = found.before.answers.count(None)
    lost = f" {not_asked} questions are too long or refused by the template and count 0 for both." if not_asked else ""
    return (
        '<p class="note">Greedy answers, paired by question. The interval takes the questions of a cluster as one draw '
        "and, where few of them changed, adds one that gains all and one that loses all (Bonett and Price 2012), so "
        f"that few changes are not taken for certainty.{lost}</p>"
    )


def _changes(found: Quality) -> list[tuple[object, ...]]:
    """The answers that differ, the largest loss first."""
    rows = []
    for i, item in enumerate(found.items):
        was, now = found.before.answers[i], found.after.answers[i]
        if was != now:
            rows.append(
                (item.messages[-1]["content"], was, now, _points(found.after.scores[i] - found.before.scores[i]))
            )
    return sorted(rows, key=lambda row: row[-1])
