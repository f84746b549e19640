"""The model card: what a version is made of, how it was measured, why it was promoted or not, and its limits."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
from release_evidence import Decision, Quantization

# What Markdown takes for more than text; an underscore within a word is none of it.
_MARKDOWN = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")


def render(*, decision: Decision, comparison: dict[str, Any] | None, training: dict[str, Any], **more: Any) -> str:
    """The card in Markdown. Whatever is filled in is text on one line, be it a name, a parameter or a warning."""
    environment = jinja2.Environment(  # noqa: S701 (Markdown, not HTML: finalize escapes both)
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True, finalize=escaped
    )
    environment.filters |= {
        "score": score,
        "points": points,
        "described": described,
        "counts": counts,
        "changes": changes,
        "training_of": training_of,
    }
    return environment.get_template("MODEL_CARD.md.j2").render(
        summary=summary(decision),
        decision=decision,
        comparison=comparison,
        shares=(comparison or {}).get("share_metrics", []),
        training=training,
        train_data=training.get("inputs", {}).get("train_data", {}).get("lineage", {}),
        sources=dict.fromkeys(described(step) for step in made_from(training)),
        **more,
    )


def escaped(value: object) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", html.escape(one_line(value), quote=False))


def one_line(value: object) -> str:
    """Without line breaks and what else does not print, such as what turns the direction of writing."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())


def summary(decision: Decision) -> str:
    """The decision in a line, which is also the description in the registry."""
    return one_line(
        f"Candidate {decision.candidate}, judged {decision.verdict} against {decision.baseline}: "
        f"{decision.reasons[0].text}."
    )


def training_of(made: dict[str, Any]) -> dict[str, Any]:
    """The lineage of the last training of a model: of itself, or of what it was quantized or converted from."""
    inputs = made.get("inputs", {})
    if inputs.keys() & {"train_data", "train_preferences"}:
        return made
    earlier = next(
        (inputs[port]["lineage"] for port in ("model", "base_model") if "lineage" in inputs.get(port, {})), {}
    )
    return training_of(earlier) if earlier else made


def made_from(made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The steps before the training data, the last one first; not those before a model that answered for them."""
    for port, entry in made.get("inputs", {}).items():
        if "model" not in port and "lineage" in entry:
            yield entry["lineage"]
            yield from made_from(entry["lineage"])


def described(made: dict[str, Any] | None) -> str:
    """A step and its parameters in a line."""
    if not made:
        return "not known"
    return f"{made['component']} " + ", ".join(f"{name}={value}" for name, value in made["parameters"].items())


def counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in numbers.items())


def changes(quantization: Quantization) -> Iterator[tuple[str, str, str, str]]:
    """What the quantization did, as far as it was measured: the measure, before, after and the change."""
    speed, metric = quantization.tokens_per_second, quantization.metric
    for what, form, unit, change in (
        ("size", "{:,.1f} MB", 1e6, quantization.size_bytes),
        ("tokens a second, writing", "{:,.1f}", 1, speed and speed.decode),
        ("tokens a second, reading the prompt", "{:,.1f}", 1, speed and speed.prefill),
        ("perplexity", "{:.4g}", 1, quantization.perplexity),
    ):
        if change and change.before and change.after:
            before, after = form.format(change.before / unit), form.format(change.after / unit)
            yield what, before, after, f"x{change.after / change.before:.2f}"
    if metric:
        what = f"{metric.name} of {metric.num_items:,} questions"
        yield what, f"{metric.before:.1%}", f"{metric.after:.1%}", points(metric.model_dump())


def score(interval: dict[str, float | None], is_share: bool = True) -> str:
    show = "{:.1%}".format if is_share else "{:.3g}".format
    low, high = interval["low"], interval["high"]
    return show(interval["mean"]) + ("" if low is None else f" ({show(low)} to {show(high)})")


def points(interval: dict[str, float | None], is_share: bool = True) -> str:
    """A difference of shares in percentage points, of other numbers as it is."""
    low, high = interval["low"], interval["high"]
    show = (lambda share: f"{100 * share:+.1f}") if is_share else "{:+.3g}".format
    unit = " points" if is_share else ""
    return show(interval["difference"]) + unit + ("" if low is None else f" ({show(low)} to {show(high)})")
