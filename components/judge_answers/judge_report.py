"""The judge's work as report.json and one page: what it said, how far to trust it, what failed, and examples."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import judge_reliability
import judge_verdicts

from slmkit import html_report, records

if TYPE_CHECKING:
    from judge_rubric import Rubric

NUM_EXAMPLES = 5
MAX_CHARACTERS = 500
BIASED = 0.1  # an interval above it is a judge that looks at positions
UNSTEADY = 0.67  # below it Krippendorff draws no conclusions
OUTCOMES = {1.0: "won", 0.5: "tie", 0.0: "lost"}
ODD = "tie, as the orders disagree"


def write(
    args: Any,
    rubric: "Rubric",
    items: Mapping[str, Any],
    sides: Sequence[Any],
    of_item: Mapping[str, Sequence[Mapping[str, Any]]],
    scores: Sequence[Mapping[str, Any]],
    metric: str,
) -> dict[str, Any]:
    rows = [row for of_one in of_item.values() for row in of_one]
    pairs = [pair for of_one in of_item.values() for pair in judge_verdicts.swapped(of_one)]
    if len(sides) > 1:
        said = Counter(_outcome(pair) for pair in pairs)
        distribution = {name: said[name] for name in ("won", "tie", ODD, "lost")}
    else:
        given = Counter(row["score"] for row in rows if "score" in row)
        distribution = {str(value): given[value] for value in range(1, 6)}
    report = {
        "rubric": rubric.name,
        "metric": metric,
        "judge": args.endpoint_model or args.model.name,
        "candidate": sides[0].name,
        "baseline": sides[1].name if len(sides) > 1 else None,
        "num_items": len(items),
        "mean_scores": {
            side.name: fmean(row[metric] for row in scores if row["candidate"] == side.name) for side in sides
        },
        "num_without_answer": {side.name: len(items) - len(side.answers) for side in sides},
        "num_verdicts": len(rows),
        "num_failed": sum("error" in row for row in rows),
        "failures": dict(judge_verdicts.failures(rows).most_common()),
        "num_asked_again": sum(row["num_asked"] > 1 for row in rows),
        "distribution": distribution,
        "self_agreement": judge_reliability.self_agreement(rows),
        "position_bias": judge_reliability.position_bias(pairs),
        "settings": {name: value for name, value in vars(args).items() if not isinstance(value, Path)},
    }
    with records.whole_folder(args.report) as partial:
        text = json.dumps(report, ensure_ascii=False, indent=2) + "\n"
        (partial / "report.json").write_text(text, encoding="utf-8")
        page = render(report, items, sides, of_item)
        (partial / "report.html").write_text(page, encoding="utf-8")
    return report


def _outcome(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> str:
    one, other = map(judge_verdicts.preferred, pair)
    return OUTCOMES[one] if one == other else ODD


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    found = {f"eval/{report['metric']}": report["mean_scores"][report["candidate"]]}
    found["judge/num_verdicts"] = float(report["num_verdicts"])
    found["judge/failed_fraction"] = report["num_failed"] / report["num_verdicts"] if report["num_verdicts"] else 0.0
    if agreement := report["self_agreement"]:
        found["judge/exact_agreement"] = agreement["exact_agreement"]
    if bias := report["position_bias"]:
        found["judge/position_bias"] = bias["share"]
    return found


def headline(report: Mapping[str, Any]) -> str:
    """The result in a few sentences, for the log and on top of the page."""
    mean = report["mean_scores"][report["candidate"]]
    against = f" against {report['baseline']}" if report["baseline"] else ""
    result = (
        f"{report['candidate']}{against}: {report['metric']} {mean:.1%} on {report['num_items']:,} questions by "
        f"{report['judge']}"
    )
    return ". ".join([result, *reliability(report)]) + "."


def reliability(report: Mapping[str, Any]) -> Iterator[str]:
    if missing := sum(report["num_without_answer"].values()):
        yield f"Answers missing or failed, and scored 0: {missing:,}"
    yield f"{report['num_failed']:,} of {report['num_verdicts']:,} verdicts failed"
    if bias := report["position_bias"]:
        yield (
            f"The verdict follows the position in {bias['share']:.0%} of {bias['num_pairs']:,} swapped pairs "
            f"({bias['low']:.0%} to {bias['high']:.0%})"
        )
    if agreement := report["self_agreement"]:
        alpha = agreement["krippendorff_alpha"]
        yield f"Repeats agree in {agreement['exact_agreement']:.0%}" + (
            f", Krippendorff's alpha {alpha:.2f}" if alpha is not None else "; all verdicts are equal"
        )


def render(report: Mapping[str, Any], items: Mapping, sides: Sequence[Any], of_item: Mapping[str, list]) -> str:
    sections = [f"<p>{escape(headline(report))}</p>", warnings(report)]
    sections += ["<h2>Verdicts</h2>", chart(report), "<h2>How far to trust the judge</h2>", trust(report)]
    if report["failures"]:
        failed = html_report.table(["reason", "verdicts"], report["failures"].items())
        sections += ["<h2>Verdicts that failed</h2>", failed]
    for title, ids in examples(of_item):
        rows = [row for id in ids for row in example(id, items, sides, of_item[id])]
        sections += [
            f"<h2>{title}</h2>",
            html_report.table(["question", "answers", "verdicts", "reason of the first"], rows),
        ]
    settings = {name: value for name, value in report["settings"].items() if value is not None}
    sections += ["<h2>Settings</h2>", html_report.table(["input", "value"], settings.items())]
    return html_report.page(f"{report['candidate']} judged for {report['rubric']}", *sections)


def warnings(report: Mapping[str, Any]) -> str:
    found = []
    bias, agreement = report["position_bias"], report["self_agreement"]
    if bias and bias["low"] > BIASED:
        found.append(("position bias", "This judge goes by the position of an answer; its ties are no draws."))
    alpha = agreement and agreement["krippendorff_alpha"]
    if alpha is not None and alpha < UNSTEADY:
        found.append(("unsteady", "This judge does not repeat its verdicts; ask a better one, or more often."))
    return "".join(f"<p>{html_report.badge(word, 'warn')} {text}</p>" for word, text in found)


def trust(report: Mapping[str, Any]) -> str:
    rows = [("verdicts", f"{report['num_verdicts']:,}"), ("failed", f"{report['num_failed']:,}")]
    rows.append(("asked again, as the form was wrong", f"{report['num_asked_again']:,}"))
    rows += [(f"answers of {name} missing or failed", f"{n:,}") for name, n in report["num_without_answer"].items()]
    if bias := report["position_bias"]:
        rows.append(("pairs with a verdict in both orders", f"{bias['num_pairs']:,}"))
        rows.append(("the first answer wins in both orders", f"{bias['num_first_wins_twice']:,}"))
        rows.append(("the second answer wins in both orders", f"{bias['num_second_wins_twice']:,}"))
        rows.append(("the orders disagree, which counts as a tie", f"{bias['num_inconsistent']:,}"))
        share = f"{bias['share']:.1%} ({bias['low']:.1%} to {bias['high']:.1%}, Wilson's 95 % interval)"
        rows.append(("position bias: the same position wins twice", share))
    if agreement := report["self_agreement"]:
        alpha = agreement["krippendorff_alpha"]
        rows.append(("exact agreement of repeats", f"{agreement['exact_agreement']:.1%}"))
        rows.append(("Krippendorff's alpha", "all verdicts are equal" if alpha is None else f"{alpha:.3f}"))
    else:
        rows.append(("agreement of repeats", "not known; set num_repeats to 2 or more"))
    return html_report.table(["what", "found"], rows)


def chart(report: Mapping[str, Any]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    bars = axes.bar(list(report["distribution"]), list(report["distribution"].values()), color="#4a7fb5")
    axes.bar_label(bars)
    axes.set(
        xlabel=f"{report['candidate']} against {report['baseline']}" if report["baseline"] else "score",
        ylabel="swapped pairs" if report["baseline"] else "verdicts",
    )
    axes.spines[["top", "right"]].set_visible(False)
    described = ", ".join(f"{name}: {number}" for name, number in report["distribution"].items())
    return html_report.chart(figure, f"Verdicts by what they say: {described}")


def examples(of_item: Mapping[str, list]) -> Iterator[tuple[str, list[str]]]:
    """The ids to show: where the judge is at odds with itself, the lowest, and the highest."""
    values = {id: (judge_verdicts.grade(rows), judge_verdicts.win(rows)) for id, rows in of_item.items()}
    value = {id: grade if win is None else win for id, (grade, win) in values.items() if (grade, win) != (None, None)}
    odd = [id for id in value if any(_outcome(pair) == ODD for pair in judge_verdicts.swapped(of_item[id]))]
    ranked = sorted(value.keys() - odd, key=lambda id: (value[id], id))
    highest = ranked[NUM_EXAMPLES:][-NUM_EXAMPLES:][::-1]
    shown = {"Lowest": ranked[:NUM_EXAMPLES], "Highest": highest, "The orders disagree": odd[:NUM_EXAMPLES]}
    yield from ((title, ids) for title, ids in shown.items() if ids)


def example(id: str, items: Mapping, sides: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple]:
    """A line an order, with the verdicts of all repeats and a reason; question and answers stand in the first."""
    question = _shorten(items[id]["messages"][-1]["content"])
    answers = " | ".join(f"{side.name}: {_shorten(side.answers[id])}" for side in sides)
    names = {1.0: sides[0].name, 0.5: "tie", 0.0: sides[-1].name, None: "failed"}
    for order in (None, *judge_verdicts.ORDERS):
        of_order = [row for row in rows if row.get("order") == order]
        if of_order:
            said = [
                names[judge_verdicts.preferred(row)] if order else str(row.get("score", "failed")) for row in of_order
            ]
            shown = f" ({order.replace('_', ' ')})" if order else ""
            reasons = [row.get("reason") or row.get("error", "") for row in of_order]
            yield question, answers, ", ".join(said) + shown, _shorten(reasons[0])
            question = answers = ""


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"
