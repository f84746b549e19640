"""What each mode asked, kept and refused and why, as JSON and as one page with charts and examples."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slmkit import html_report, records

if TYPE_CHECKING:
    from chat_synthesis import Synthesis
    from matplotlib.figure import Figure

NUM_EXAMPLES = 2
REASONS = {
    "wrong_language": "not in the language asked for",
    "prompt_leak": "repeats the instructions",
    "refusal": "the answer is a refusal",
    "unanswerable": "the answer says that the text does not tell",
    "identical": "the question is that of the parent",
    "no_information_gain": "the question is too similar to that of the parent",
    "ungrounded": "the answer is not found in the context",
    "near_duplicate": "too similar to a seed or to an earlier chat",
    "low_score": "judged below min_judge_score",
    "invalid_verdict": "no valid verdict of the judge",
    "surplus": "more than asked for",
}
REQUESTS = {
    "asked": "sent",
    "failed": "without an answer",
    "filtered": "refused by the teacher or its content filter",
    "nothing_to_ask": "the teacher found nothing to ask",
    "left_out_by_budget": "left out, max_total_tokens was used up",
}


def write_json(
    args: object,
    teacher: str,
    modes: Sequence[str],
    synthesis: "Synthesis",
    usage: Mapping[str, float],
) -> dict:
    counts, leaves = synthesis.counts, synthesis.leaves
    by_mode = {mode: _of_mode(mode, counts) for mode in modes}
    report = {
        "teacher": teacher,
        "is_model": teacher != "embedded",
        "judge": args.judge,
        "num_chats": sum(row["kept"] for row in by_mode.values()),
        "inputs": {name: counts[name] for name in ("documents", "seed_chats", "personas") if counts[name]},
        "inputs_refused": {name: counts[f"{name}_refused"] for name in ("documents", "seed_chats", "personas")},
        "modes": by_mode,
        "leaves": {
            "min_chats_per_leaf": args.min_chats_per_leaf,
            "below_minimum": sorted(path for path, number in leaves.items() if number < args.min_chats_per_leaf),
            "chats": dict(leaves),
        },
        "languages": {name.partition("/")[2]: n for name, n in counts.items() if name.startswith("language/")},
        "examples": synthesis.examples,
        "usage": usage,
    }
    with records.whole_file(args.report / "report.json") as partial:
        partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _of_mode(mode: str, counts: Counter[str]) -> dict:
    kept, candidates = counts[f"{mode}/kept"], counts[f"{mode}/candidates"]
    operations: dict[str, dict[str, int]] = {}
    for name, number in counts.items():
        where, _, outcome = name.partition("/")
        if where.startswith(f"{mode}:"):
            operations.setdefault(where.partition(":")[2], {})[outcome] = number
    return {
        "kept": kept,
        "candidates": candidates,
        "accepted_fraction": round(kept / candidates, 4) if candidates else 0.0,
        "requests": {name: counts[f"{mode}/{name}"] for name in REQUESTS},
        "refused": {name: counts[f"{mode}/{name}"] for name in REASONS if counts[f"{mode}/{name}"]},
        "operations": dict(sorted(operations.items())),
    }


def metrics(report: Mapping) -> dict[str, float]:
    found = {"data/num_chats": float(report["num_chats"])}
    for mode, row in report["modes"].items():
        found[f"data/accepted_fraction_{mode}"] = row["accepted_fraction"]
        found[f"data/num_chats_{mode}"] = float(row["kept"])
    for reason in REASONS:
        refused = sum(row["refused"].get(reason, 0) for row in report["modes"].values())
        found[f"data/num_refused_{reason}"] = float(refused)
    if report["leaves"]["chats"]:
        found["data/num_leaves_below_minimum"] = float(len(report["leaves"]["below_minimum"]))
    return found


def write_page(folder: Path, report: Mapping) -> None:
    """The page of what stands in ``report.json`` and in the quarantine."""
    with records.whole_file(folder / "report.html") as partial:
        partial.write_text(_render(report, folder / "quarantine.jsonl"), encoding="utf-8")


def _render(report: Mapping, quarantine: Path) -> str:
    modes = report["modes"]
    no_model = "" if report["is_model"] else html_report.badge("no model: rules and copied text", "warn")
    judge = "none" if report["judge"] == "none" else "rules, no model" if not report["is_model"] else "the teacher"
    sections = [
        f"<p>Teacher: {html_report.badge(report['teacher'], 'good' if report['is_model'] else 'warn')} {no_model}"
        f" Judge: {judge}.</p>",
        "<h2>Acceptance</h2>",
        html_report.table(
            ["mode", "chats kept", "candidates", "accepted"],
            [[mode, row["kept"], row["candidates"], f"{row['accepted_fraction']:.1%}"] for mode, row in modes.items()],
        ),
        html_report.chart(
            _outcomes(modes, report["languages"]), "Chats kept and refused by mode and operation, and by language"
        ),
        "<h2>Refused</h2>",
        html_report.table(
            ["reason", *modes],
            [
                [text, *(row["refused"].get(name, 0) for row in modes.values())]
                for name, text in REASONS.items()
                if any(name in row["refused"] for row in modes.values())
            ],
        ),
        "<h2>Requests</h2>",
        html_report.table(
            ["", *modes],
            [[text, *(row["requests"][name] for row in modes.values())] for name, text in REQUESTS.items()],
        ),
        *_leaves(report["leaves"]),
        "<h2>Examples</h2>",
        html_report.table(
            ["mode, operation, language", "made from", "questions → answers"], _examples(report["examples"])
        ),
        "<h2>Examples of what was refused</h2>",
        html_report.table(["reason", "operation", "question", "answer"], _refused_examples(quarantine)),
        "<h2>What the teacher was asked</h2>",
        html_report.table(["", "number"], [[k.replace("_", " "), v] for k, v in report["usage"].items() if v]),
    ]
    return html_report.page("Synthesized chats", *sections)


def _leaves(leaves: Mapping) -> Iterator[str]:
    if not leaves["chats"]:
        return
    below = len(leaves["below_minimum"])
    verdict = (
        html_report.badge(f"{below} of {len(leaves['chats'])} leaves below the minimum", "bad")
        if below
        else html_report.badge("every leaf has its minimum", "good")
    )
    yield f"<h2>Leaves of the taxonomy</h2><p>At least {leaves['min_chats_per_leaf']} chats each: {verdict}</p>"
    yield html_report.table(["leaf", "chats"], leaves["chats"].items())


def _examples(examples: Mapping[str, Sequence]) -> Iterator[list[str]]:
    for kind, rows in sorted(examples.items()):
        for made_from, exchanges in rows:
            turns = [f"{exchange['question']} → {exchange['answer']}" for exchange in exchanges]
            yield [kind, made_from, " | ".join(turns)]


def _refused_examples(quarantine: Path) -> Iterator[list[str]]:
    shown: Counter[str] = Counter()
    for row in records.read_records(quarantine):
        if row.get("exchanges"):
            shown[row["reason"]] += 1
            if shown[row["reason"]] <= NUM_EXAMPLES:
                first = row["exchanges"][0]
                reason = f"{row['reason']} ({row['detail']})" if "detail" in row else row["reason"]
                yield [reason, row["operation"], first["question"], first["answer"]]


def _outcomes(modes: Mapping[str, Mapping], languages: Mapping[str, int]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 1])
    rows = [(f"{mode}: {name}", found) for mode, row in modes.items() for name, found in row["operations"].items()][
        ::-1
    ]
    names = [name for name, _ in rows]
    kept = [found.get("kept", 0) for _, found in rows]
    refused = [sum(found.values()) - found.get("kept", 0) for _, found in rows]
    left.barh(names, kept, color="#3d8b5f", label="kept")
    left.barh(names, refused, left=kept, color="#c0564b", label="refused")
    left.legend(fontsize=8)
    right.bar(list(languages), list(languages.values()), color="#4a7fb5")
    right.set_title("chats by language", fontsize=9)
    for axis in (left, right):
        axis.tick_params(labelsize=8)
    return figure
