"""The comparison as one self-contained page of HTML: a headline, charts, slices, examples, and how it was measured."""

import functools
from pathlib import Path
from typing import Any

import jinja2
import report_charts
from candidate_scores import Candidate
from markupsafe import Markup
from report_charts import Units, decimals_for, percent
from report_examples import examples

MAX_CHARACTERS = 1500
MAX_NAME = 26


def render(comparison: dict[str, Any], items: dict[str, dict], candidates: list[Candidate]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    metric = metric_name(comparison)
    pair = shown_pair(comparison)
    several = len(comparison["comparisons"]) > 1
    shows = units(comparison)
    show = shows[metric]
    environment.filters |= {
        "percent": percent,
        "p_value": p_value,
        "shorten": functools.partial(cut, most=MAX_CHARACTERS),
        "cut": functools.partial(cut, most=MAX_NAME),
        "value": lambda value, units=show: units.value(value),
        "difference": lambda interval, units=show: units.difference(interval["difference"]),
        "span": lambda interval, units=show: units.span(interval),
        "shade": lambda interval, units=show: shade(interval, units),
        "smallest_effect": smallest_effect,
    }
    whole = whole_part(comparison)
    ranking = sorted(comparison["candidates"], key=lambda one: -one["metrics"][metric]["mean"]) if several else None
    scale = report_charts.score_scale([one["metrics"][metric] for one in comparison["candidates"]], show)
    environment.globals |= {
        "comparison": comparison,
        "metric": metric,
        "pair": pair,
        "show": show,
        "shows": shows,
        "scale": scale,
        "level": percent(comparison["confidence_level"]).replace(".0", ""),
        "alpha": 1 - comparison["confidence_level"],
        "ranking": ranking,
    }
    slices = [found for part in comparison["slices"] for found in part["differences"].values()]
    return environment.get_template("report.html.j2").render(
        title=f"{len(ranking)} candidates" if several else f"{pair['candidate']} against {pair['baseline']}",
        headline=comparison["recommendation"]["reason"] if several else headlines(comparison)[0],
        meaning=counted(comparison) if several else meaning(comparison, pair),
        whole=whole,
        axis=report_charts.difference_scale([*whole["differences"].values(), *slices]),
        axes=axes(comparison),
        ticks=scale.ticks(show),
        chart=report_charts.quality_chart(ranking, metric, show) if several else None,
        one_in=round(1 / (1 - comparison["confidence_level"])),
        examples=examples(comparison, items, candidates, pair, shows),
    )


def metric_name(comparison: dict[str, Any]) -> str:
    return comparison["metric"] if isinstance(comparison["metric"], str) else "score"


def units(comparison: dict[str, Any]) -> dict[str, Units]:
    """How the numbers of each metric are written."""
    names = [*comparison["candidates"][0]["metrics"], *(part["metric"] for part in comparison["benchmarks"])]
    scores = {
        name: [one["metrics"][name] for one in comparison["candidates"] if name in one["metrics"]] for name in names
    }
    for part in comparison["benchmarks"]:
        scores[part["metric"]] += part["means"].values()
    return {name: Units(name in comparison["share_metrics"], decimals_for(scores[name])) for name in names}


def shown_pair(comparison: dict[str, Any]) -> dict[str, Any]:
    """The pair that examples are shown of: the recommended candidate, or else the best, against the baseline."""
    taken = (comparison["recommendation"] or {}).get("candidate")
    by_difference = sorted(
        comparison["comparisons"], key=lambda pair: -pair["metrics"][metric_name(comparison)]["difference"]
    )
    return next((pair for pair in by_difference if pair["candidate"] == taken), by_difference[0])


def whole_part(comparison: dict[str, Any]) -> dict[str, Any]:
    """All questions in the form of a slice."""
    metric = metric_name(comparison)
    return {
        "num_items": comparison["num_items"],
        "means": {one["name"]: one["metrics"][metric] for one in comparison["candidates"]},
        "differences": {pair["candidate"]: pair["metrics"][metric] for pair in comparison["comparisons"]},
    }


def axes(comparison: dict[str, Any]) -> dict[str, report_charts.Scale]:
    """One axis of differences a metric, so that benchmarks stand to scale."""
    by_metric: dict[str, list[dict]] = {}
    for part in comparison["benchmarks"]:
        by_metric.setdefault(part["metric"], []).extend(part["differences"].values())
    return {metric: report_charts.difference_scale(found) for metric, found in by_metric.items()}


def headlines(comparison: dict[str, Any]) -> list[str]:
    """The result of each candidate in one sentence, for the log and on top of the page."""
    metric = metric_name(comparison)
    show = units(comparison)[metric]
    means = {one["name"]: show.value(one["metrics"][metric]["mean"]) for one in comparison["candidates"]}
    questions = f"{comparison['num_items']:,} {'held-out ' if comparison['held_out']['num_items'] else ''}questions"
    level = percent(comparison["confidence_level"]).replace(".0", "")
    said = []
    for pair in comparison["comparisons"]:
        ours, theirs, found = pair["candidate"], pair["baseline"], pair["metrics"][metric]
        result = (
            f"{ours} answers {means[ours]} of {questions} exactly, {theirs} {means[theirs]}"
            if metric == "exact_match"
            else f"{ours} scores {means[ours]} in {metric} on {questions}, {theirs} {means[theirs]}"
        )
        points = " points" if show.share else ""
        said.append(f"{result}: {show.difference(found['difference'])}{points} ({level} interval {show.span(found)}).")
    return said


def meaning(comparison: dict[str, Any], pair: dict[str, Any]) -> str:
    found = pair["metrics"][metric_name(comparison)]
    if too_few(found, comparison):
        return f"The same difference everywhere, and yet so few clusters do not show it: p {p_value(found['p_value'])}."
    if found["low"] > 0:
        return f"The whole interval lies above zero: {pair['candidate']} is better by more than chance explains."
    if found["high"] < 0:
        return f"The whole interval lies below zero: {pair['candidate']} is worse by more than chance explains."
    return "The interval includes zero: these questions do not tell which of the two is better."


def too_few(found: dict[str, Any], comparison: dict[str, Any]) -> bool:
    """Whether an interval without width leaves 0 out where the test does not: in five clusters or less."""
    return found["low"] == found["high"] != 0 and found["p_value"] > 1 - comparison["confidence_level"]


def counted(comparison: dict[str, Any]) -> str:
    found = [pair["metrics"][metric_name(comparison)] for pair in comparison["comparisons"]]
    told = [one for one in found if not too_few(one, comparison)]
    better, worse = sum(one["low"] > 0 for one in told), sum(one["high"] < 0 for one in told)
    baseline = comparison["comparisons"][0]["baseline"]
    same = len(found) - better - worse
    return f"Against {baseline}, by more than chance explains: {better} better, {worse} worse, {same} not told apart."


def smallest_effect(part: dict[str, Any], show: Units) -> str:
    """The minimum detectable effects of a benchmark, from the smallest to the largest of its candidates."""
    effects = [one["minimum_detectable_effect"] for one in part["differences"].values()]
    known = sorted({show.size(effect) for effect in effects if effect is not None}, key=lambda text: (len(text), text))
    if not known:
        return "not known"
    return (known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}") + (" points" if show.share else "")


def shade(interval: dict[str, Any], show: Units) -> str:
    """The color of a grid's cell: none where the interval holds 0, else the deeper the larger the difference."""
    if interval["low"] is None or interval["low"] <= 0 <= interval["high"]:
        return ""
    size = abs(interval["difference"]) / (0.3 if show.share else max(abs(interval["low"]), abs(interval["high"])))
    direction = "up" if interval["difference"] > 0 else "down"
    return Markup('class="shade {}" style="--deep: {:.0f}%"').format(direction, 12 + 38 * min(1, size))


def p_value(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"= {p:.4f}"


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " …"
