"""The ranking of the candidates as a table for the log."""

from typing import Any

from comparison_report import metric_name, units


def ranking(comparison: dict[str, Any]) -> str:
    """A line a candidate, the best first: score, difference to the baseline, and the score on each benchmark."""
    metric, show = metric_name(comparison), units(comparison)
    pairs = {pair["candidate"]: pair["metrics"][metric] for pair in comparison["comparisons"]}
    parts = comparison["benchmarks"] if len(comparison["benchmarks"]) > 1 else []
    rows = [["", metric, f"{100 * comparison['confidence_level']:g} % interval", "difference", ""]]
    rows[0] += [f"{part['benchmark']} ({part['metric']})" for part in parts]
    for one in sorted(comparison["candidates"], key=lambda one: -one["metrics"][metric]["mean"]):
        name, score = one["name"], one["metrics"][metric]
        found = pairs.get(name)
        difference = [show[metric].difference(found["difference"]), show[metric].span(found)] if found else ["", ""]
        of_parts = [show[part["metric"]].value(part["means"][name]["mean"]) for part in parts]
        rows.append([name, show[metric].value(score["mean"]), show[metric].span(score), *difference, *of_parts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([f"  {name:<{widths[0]}}", *aligned]).rstrip())
    return "\n".join(lines)
