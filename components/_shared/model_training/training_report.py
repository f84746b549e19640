"""What a training did, to look at: its loss curve, its figures and its settings, as one HTML file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit import html_report, records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, DATA, PICTURE = "report.html", "report.json", "loss_curve.png"


def write(
    report: Path, title: str, history: list[dict[str, Any]], metrics: Mapping[str, float], parameters: Mapping[str, Any]
) -> None:
    """``history`` is the Trainer's log: rows with ``step`` and ``loss``, ``eval_loss`` or ``learning_rate``."""
    figure = loss_curve(history)
    with records.whole_folder(report) as folder:
        figure.savefig(folder / PICTURE, dpi=120, bbox_inches="tight")
        page = html_report.page(
            title,
            html_report.chart(figure, "Training and validation loss over the optimizer steps"),
            "<h2>Result</h2>",
            html_report.table(("metric", "value"), metrics.items()),
            "<h2>Settings</h2>",
            html_report.table(("setting", "value"), [(n, str(v)) for n, v in parameters.items() if v is not None]),
        )
        (folder / PAGE).write_text(page, encoding="utf-8")
        content = {"metrics": dict(metrics), "history": history}
        (folder / DATA).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def last_loss(history: list[dict[str, Any]], otherwise: float) -> float:
    """The training loss that was logged last; ``otherwise`` where there is none."""
    return next((row["loss"] for row in reversed(history) if "loss" in row), otherwise)


def loss_curve(history: list[dict[str, Any]]) -> "Figure":
    """Both losses over the steps, and the learning rate below them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for name, label, marker in (("loss", "training", ""), ("eval_loss", "validation", "o")):
        points = [(row["step"], row[name]) for row in history if name in row]
        if points:
            top.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=4)
    rates = [(row["step"], row["learning_rate"]) for row in history if "learning_rate" in row]
    if rates:
        bottom.plot(*zip(*rates, strict=True), color="gray")
    top.set_ylabel("loss")
    if top.lines:
        top.legend()
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("optimizer step")
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    return figure
