"""The import as a page: where the model came from, what was checked, and what training it takes."""

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from template_checks import Finding

from model_training import memory_estimate
from model_training.memory_estimate import METHODS, Shape
from slmkit import html_report

LENGTHS = (1024, 4096)
FINDING = {True: ("fine", "good"), False: ("look at it", "warn")}
Row = dict[str, Any]


def memory_rows(shape: Shape) -> list[Row]:
    """The memory of each method, length and choice of gradient checkpointing, for one row at a time."""
    rows = []
    for method in METHODS:
        for max_length in LENGTHS:
            for checkpointing in (True, False):
                settings = {"method": method, "max_length": max_length, "gradient_checkpointing": checkpointing}
                alone = memory_estimate.estimate(shape, **settings)
                shared = None if method == "qlora" else memory_estimate.estimate(shape, **settings, num_gpus=8).total
                sku = memory_estimate.smallest_sku(shape, **settings)
                rows.append(
                    {
                        **settings,
                        **vars(alone),
                        "total": alone.total,
                        "zero3_on_8_gpus": shared,
                        "smallest_sku": sku.name if sku else None,
                    }
                )
    return rows


def usual(rows: list[Row]) -> dict[str, Row]:
    """The rows with gradient checkpointing, named like ``lora_4096``."""
    return {f"{row['method']}_{row['max_length']}": row for row in rows if row["gradient_checkpointing"]}


def lines(findings: Iterable[Finding], rows: list[Row]) -> Iterator[str]:
    """What to say in the log: what needs a look, and the memory for the longest rows."""
    for finding in findings:
        if not finding.passed:
            yield f"{finding.check}: {finding.text}"
    shown = [
        f"{row['method']} {row['total'] / 1e9:.1f} GB ({row['smallest_sku'] or 'more than one machine'})"
        for row in usual(rows).values()
        if row["max_length"] == LENGTHS[-1]
    ]
    yield f"training on {LENGTHS[-1]} tokens at a time with gradient checkpointing takes about {', '.join(shown)}"


def write(folder: Path, origin: Mapping[str, object], findings: Iterable[Finding], rows: list[Row]) -> None:
    """``report.html``, and the memory as ``memory.json``."""
    content = {"unit": "bytes per GPU", "per_device_train_batch_size": 1, "rows": rows}
    (folder / "memory.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(
        html_report.page(
            f"Imported model: {origin['source']}",
            html_report.table(["", ""], ([name.replace("_", " "), _text(value)] for name, value in origin.items())),
            "<h2>What was checked</h2>",
            _findings(findings),
            "<h2>Memory to train it</h2>",
            _memory(rows),
        ),
        encoding="utf-8",
    )


def _text(value: object) -> str:
    return f"{value:,}" if type(value) is int else str(value)


def _findings(findings: Iterable[Finding]) -> str:
    rows = "".join(
        f"<tr><td>{escape(finding.check)}</td><td>{html_report.badge(*FINDING[finding.passed])}</td>"
        f"<td>{escape(finding.text)}</td></tr>\n"
        for finding in findings
    )
    return f"<table>{rows}</table>"


def _memory(rows: list[Row]) -> str:
    parts = ("weights", "gradients", "optimizer", "activations", "loss")
    head = ["Method", "Tokens", "Checkpointing", *map(str.capitalize, parts), "One GPU", "Each of 8"]
    table = [
        [
            *(row["method"], row["max_length"], "yes" if row["gradient_checkpointing"] else "no"),
            *(row[part] / 1e9 for part in (*parts, "total")),
            "" if row["zero3_on_8_gpus"] is None else row["zero3_on_8_gpus"] / 1e9,
            row["smallest_sku"] or "none of one machine",
        ]
        for row in rows
    ]
    method = escape(memory_estimate.__doc__ or "").replace("\n\n", "</p><p>")
    return (
        f'<div style="font-size: .8rem">{html_report.table([*head, "Smallest Azure size"], table)}</div>'
        "<p>In GB, for one row of so many tokens at a time, on one GPU or on each of eight that share the model by "
        "ZeRO-3. A size fits if the sum is at most "
        f"{memory_estimate.USABLE:.0%} of a GPU's memory; one with several GPUs holds the model in parts (ZeRO-3). The "
        "T4 has no bfloat16, so it is reckoned with in fp32.</p>"
        f"<h3>How it is worked out</h3><p>{method}</p>"
    )
