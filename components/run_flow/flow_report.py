"""Which node of a flow is at fault, for every variant: report.json, and one page for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from fault_attribution import DEFINITION
from flow_evaluation import Evaluation, mean
from flow_graph import BASELINE, Flow, FromNode, FromRow, Node, as_text
from flow_intervals import Interval, mean_interval, score_interval
from flow_items import Item
from flow_runs import END_TO_END, MODES

from slmkit import html_report, records

INTERVALS = (
    "Isolated, a node reads gold instead of what came before it. Isolated and lost upstream (isolated less end to end) "
    "are over the items that have both scores. In parentheses 95 % intervals: bootstrap over clusters, of pairs where "
    "it is a difference, none where nothing varies; Wilson's for shares. compare_candidates tests the variants."
)
MAX_EXAMPLES = 12
MAX_CHARACTERS = 300


def build(candidate: str, evaluation: Evaluation) -> dict[str, Any]:
    """All numbers of the report; ``candidate`` is the name before those of the variants."""
    flow, items = evaluation.flow, evaluation.items
    final = {name: evaluation.column(END_TO_END, name, flow.output) for name in evaluation.candidates}
    languages = {id: (item.record.get("slices") or {}).get("language") for id, item in items.items()}
    entries = []
    for name, chosen in evaluation.candidates.items():
        scores, wrong = final[name], evaluation.faults[name]
        gained = {id: score - final[BASELINE][id] for id, score in scores.items()}
        entries.append(
            {
                "name": f"{candidate}.{name}",
                "variants": dict(chosen),
                "score": score_interval(scores, evaluation.clusters, evaluation.seed),
                "difference": None if name == BASELINE else mean_interval(gained, evaluation.clusters, evaluation.seed),
                "num_failed": sum("error" in evaluation.prediction(name, id) for id in items),
                "num_wrong": len(wrong),
                "by_language": {
                    str(language): mean(scores[id] for id in items if languages[id] == language)
                    for language in dict.fromkeys(languages.values())
                    if language
                },
                "nodes": [asdict(row) for row in evaluation.node_scores(name)],
            }
        )
    return {
        "num_items": len(items),
        "num_clusters": len(set(evaluation.clusters.values())),
        "metric": flow[flow.output].metric,
        "flow": [_node(node) for node in flow.nodes],
        "output": flow.output,
        "sweep": flow.sweep,
        "notes": [*flow.notes, *_gaps(flow, items)],
        "definition": " ".join(DEFINITION.split()),
        "candidates": entries,
        "requests": [asdict(traffic) for traffic in evaluation.runs.traffic],
    }


def _node(node: Node) -> dict[str, Any]:
    first = next(iter(node.variants.values()))
    return {
        "name": node.name,
        "reads": {name: _said(value) for name, value in first.inputs.items()},
        "variants": {name: variant.prompt.path.name for name, variant in node.variants.items()},
        "output": node.output,
        "metric": node.metric,
        "min_score": node.min_score,
    }


def _said(value: Any) -> str:
    if isinstance(value, FromRow):
        return f"${{row.{value.name}}}"
    if isinstance(value, FromNode):
        return f"${{{'.'.join((value.node, 'output', *value.keys))}}}"
    return as_text(value)


def _gaps(flow: Flow, items: Mapping[str, Item]) -> list[str]:
    """What could not be judged or isolated, and why."""
    notes = []
    for node in flow.nodes:
        without = sum(not item.golds(flow, node.name) for item in items.values())
        if without:
            notes.append(
                f"{node.name}: {without} of {len(items)} items have no {node.gold!r} in node_outputs, so the node is "
                "not judged on them"
            )
        for before in sorted(node.upstream):
            lacking = sum(before not in item.gold for item in items.values())
            if lacking:
                notes.append(
                    f"{node.name}: not isolated on {lacking} of {len(items)} items, which have no gold of {before}"
                )
    return notes


def write(folder: Path, evaluation: Evaluation, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write both forms, and return the numbers; the settings name the candidate."""
    report = build(settings["candidate"], evaluation)
    content = json.dumps({**report, "settings": settings}, ensure_ascii=False, indent=2) + "\n"
    page = html_report.page(
        "Prompt flow: the node at fault",
        f"<p>{escape(headline(report))}</p>",
        *(f"<p>{html_report.badge('note', 'warn')} {escape(note)}</p>" for note in report["notes"]),
        *("<h2>Nodes of the baseline</h2>", chart(report["candidates"][0]), _nodes(report["candidates"][0])),
        f'<p class="note">{escape(report["definition"])}</p>',
        f'<p class="note">{escape(INTERVALS)}</p>',
        *("<h2>Variants</h2>", _variants(report)),
        *("<h2>Each prompt by itself</h2>", _prompts(report)),
        *("<h2>Wrong answers of the baseline</h2>", _examples(evaluation)),
        *("<h2>The flow</h2>", _flow(report)),
        *("<h2>Requests</h2>", _requests(report)),
        *("<h2>Settings</h2>", html_report.table(["input", "value"], settings.items())),
    )
    with records.whole_folder(folder) as partial:
        (partial / "report.json").write_text(content, encoding="utf-8")
        (partial / "report.html").write_text(page, encoding="utf-8")
    return report


def headline(report: Mapping[str, Any]) -> str:
    """The result in one or two sentences, for the log and on top of the page."""
    baseline, *others = report["candidates"]
    wrong = baseline["num_wrong"]
    text = f"{baseline['name']}: {report['metric']} {_span(baseline['score'])} on {report['num_items']} items"
    if wrong:
        worst = max(baseline["nodes"], key=lambda row: row["num_at_fault"])
        text += f"; of {wrong} wrong answers {worst['num_at_fault']} are the fault of node {worst['node']}"
    text += "."
    if others:
        best = max(others, key=lambda entry: entry["score"]["mean"])
        text += (
            f" Best of {len(others)} other variants: {best['name']} with {_span(best['score'])}, "
            f"{_span(best['difference'], sign='+')} against the baseline."
        )
    return text


def _span(interval: Interval | None, sign: str = "") -> str:
    if interval is None:
        return "-"
    mean, low, high = (None if value is None else f"{value:{sign if value else ''}.3f}" for value in interval.values())
    return mean if low is None else f"{mean} ({low} to {high})"


def _nodes(entry: Mapping[str, Any]) -> str:
    return html_report.table(
        ["node", "variant", "metric", "end to end", "isolated", "lost upstream", "at fault", "share of all items"],
        [
            (
                row["node"],
                row["variant"],
                row["metric"],
                _score(row["end_to_end"]),
                _score(row["isolated"]),
                _span(row["upstream_loss"], sign="+"),
                row["num_at_fault"],
                _span(row["at_fault_fraction"]),
            )
            for row in entry["nodes"]
        ],
    )


def _variants(report: Mapping[str, Any]) -> str:
    languages = list(dict.fromkeys(name for entry in report["candidates"] for name in entry["by_language"]))
    nodes = [f"{node['name']} at fault" for node in report["flow"]]
    return html_report.table(
        ["variant", report["metric"], "against the baseline", *languages, "failed", "wrong", *nodes],
        [
            (
                entry["name"],
                _span(entry["score"]),
                _span(entry["difference"], sign="+"),
                *(entry["by_language"][name] for name in languages),
                entry["num_failed"],
                entry["num_wrong"],
                *(row["num_at_fault"] for row in entry["nodes"]),
            )
            for entry in report["candidates"]
        ],
    )


def _prompts(report: Mapping[str, Any]) -> str:
    """Isolated, a prompt does the same whatever the other nodes do."""
    rows = {(row["node"], row["variant"]): row for entry in report["candidates"] for row in entry["nodes"]}
    return html_report.table(
        ["node", "prompt", "metric", "isolated", "items"],
        [
            (
                node["name"],
                f"{variant} ({file})",
                node["metric"],
                _score(rows[node["name"], variant]["isolated"]),
                rows[node["name"], variant]["num_isolated"],
            )
            for node in report["flow"]
            for variant, file in node["variants"].items()
        ],
    )


def _score(value: float | None) -> float | str:
    return "-" if value is None else value


def chart(entry: Mapping[str, Any]) -> str:
    """Two bars a node; what lies between them comes from the nodes before."""
    from matplotlib.figure import Figure

    rows = entry["nodes"]
    figure = Figure(figsize=(9, 0.8 + 0.6 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    at = range(len(rows))
    for offset, key, color in ((-0.18, "isolated", "#9db8d2"), (0.18, "end_to_end", "#4a7fb5")):
        values = [row[key] or 0 for row in rows]
        left.barh([y + offset for y in at], values, height=0.34, color=color, label=key.replace("_", " "))
    left.set(xlim=(0, 1), xlabel="score", yticks=list(at), yticklabels=[row["node"] for row in rows])
    left.invert_yaxis()
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.3), ncols=2, frameon=False)
    right.barh(list(at), [row["num_at_fault"] for row in rows], height=0.5, color="#b5524a")
    right.set(xlabel="wrong answers by node at fault")
    right.xaxis.get_major_locator().set_params(integer=True)
    return html_report.chart(figure, "Score of each node isolated and end to end; wrong answers by node at fault")


def _examples(evaluation: Evaluation) -> str:
    rows, faults = [], evaluation.faults[BASELINE]
    for id, name in list(faults.items())[:: max(1, len(faults) // MAX_EXAMPLES)][:MAX_EXAMPLES]:
        item = evaluation.items[id]
        said = (evaluation.runs.outcomes.get((mode, BASELINE, name, id)) for mode in MODES)
        outputs = ("-" if one is None else one.error or as_text(one.value) for one in said)
        right = " | ".join(map(as_text, item.golds(evaluation.flow, name))) or "-"
        rows.append((_short(item.question), name, *map(_short, outputs), _short(right)))
    return html_report.table(["question", "node at fault", "it said", "isolated it said", "right"], rows)


def _flow(report: Mapping[str, Any]) -> str:
    return html_report.table(
        ["node", "reads", "prompts", "output", "right when"],
        [
            (
                node["name"] + (" (answer)" if node["name"] == report["output"] else ""),
                ", ".join(f"{name}: {value}" for name, value in node["reads"].items()),
                ", ".join(f"{name}: {file}" for name, file in node["variants"].items()),
                node["output"],
                f"{node['metric']} >= {node['min_score']:g}",
            )
            for node in report["flow"]
        ],
    )


def _requests(report: Mapping[str, Any]) -> str:
    return html_report.table(
        ["node", "needed", "different", "asked now", "without an answer", "cut at the longest answer"],
        [tuple(row.values()) for row in report["requests"]],
    )


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The baseline for MLflow, and how much sharing saved."""
    baseline = report["candidates"][0]
    found = {f"eval/{report['metric']}": baseline["score"]["mean"], "eval/num_failed": baseline["num_failed"]}
    for row in baseline["nodes"]:
        found[f"eval/{row['node']}/num_at_fault"] = row["num_at_fault"]
        found |= {f"eval/{row['node']}/{key}": row[key] for key in MODES if row[key] is not None}
    for key in ("num_needed", "num_distinct", "num_asked"):
        found[f"perf/{key}_requests"] = sum(row[key] for row in report["requests"])
    return {name: float(value) for name, value in found.items()}


def _short(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"
