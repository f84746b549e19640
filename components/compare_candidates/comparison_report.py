"""The comparison as one self-contained page of HTML: a headline, charts, slices, examples, and how it was measured."""

from pathlib import Path
from typing import Any

import jinja2
from candidate_scores import Candidate

MAX_EXAMPLES = {"won": 6, "lost": 6, "neither": 3}
MAX_CHARACTERS = 1500


def render(comparison: dict[str, Any], items: dict[str, dict], candidates: list[Candidate]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "points": points, "span": span, "shorten": shorten}
    environment.globals["points"] = points
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        pair=comparison["comparisons"][0],
        headline=headline(comparison),
        meaning=meaning(comparison),
        axis=Axis(comparison),
        examples=examples(comparison, items, candidates),
    )


def percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def points(share: float) -> str:
    """A difference in percentage points, with a sign that is a minus and no hyphen."""
    return (
        f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}").replace("\N{MINUS SIGN}0.0", "0.0").replace("+0.0", "0.0")
    )


def span(interval: dict[str, float | None], show=percent) -> str:
    if interval["low"] is None:
        return "no interval"
    low, high = show(interval["low"]).removesuffix("\N{NO-BREAK SPACE}%"), show(interval["high"])
    return f"{low} to {high}"


def shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"


def headline(comparison: dict[str, Any]) -> str:
    """The result in one sentence, for the log and on top of the page."""
    pair, metric = comparison["comparisons"][0], comparison["metric"]
    means = {candidate["name"]: candidate["metrics"][metric]["mean"] for candidate in comparison["candidates"]}
    difference = pair["metrics"][metric]
    questions = f"{comparison['num_items']:,} {'held-out ' if comparison['held_out']['num_items'] else ''}questions"
    ours, theirs = percent(means[pair["candidate"]]), percent(means[pair["baseline"]])
    result = (
        f"{pair['candidate']} answers {ours} of {questions} exactly, {pair['baseline']} {theirs}"
        if metric == "exact_match"
        else f"{pair['candidate']} scores {ours} in {metric} on {questions}, {pair['baseline']} {theirs}"
    )
    return (
        f"{result}: {points(difference['difference'])} points "
        f"({percent(comparison['confidence_level']).replace('.0', '')} interval {span(difference, points)})."
    )


def meaning(comparison: dict[str, Any]) -> str:
    pair = comparison["comparisons"][0]
    difference = pair["metrics"][comparison["metric"]]
    if difference["low"] > 0:
        return f"The whole interval lies above zero: {pair['candidate']} is better by more than chance explains."
    if difference["high"] < 0:
        return f"The whole interval lies below zero: {pair['candidate']} is worse by more than chance explains."
    return "The interval includes zero: these questions do not tell which of the two is better."


class Axis:
    """Where a difference stands on the common axis of the charts, in percent of their width."""

    def __init__(self, comparison: dict[str, Any]):
        intervals = [pair["metrics"][comparison["metric"]] for pair in comparison["comparisons"]]
        intervals += [difference for part in comparison["slices"] for difference in part["differences"].values()]
        ends = [0.0, *(i[end] for i in intervals for end in ("low", "high", "difference") if i[end] is not None)]
        margin = 0.04 * (max(ends) - min(ends)) or 0.1
        self.low, self.high = min(ends) - margin, max(ends) + margin

    def __call__(self, value: float) -> str:
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"


def examples(comparison: dict[str, Any], items: dict[str, dict], candidates: list[Candidate]) -> dict[str, list[dict]]:
    """Questions won, lost and answered wrongly by both, the clearest first and the languages in turn."""
    pair, metric = comparison["comparisons"][0], comparison["metric"]
    shown = {candidate.name: candidate for candidate in candidates}
    both = [shown[pair["baseline"]], shown[pair["candidate"]]]
    if any(candidate.predictions is None for candidate in both):
        return {}
    kinds: dict[str, list[tuple]] = {"won": [], "lost": [], "neither": []}
    rank_in_language: dict[tuple, int] = {}
    gains = {id: both[1].scores[id][metric] - both[0].scores[id][metric] for id in items}
    for id in sorted(items, key=lambda id: (-abs(gains[id]), id)):
        kind = "won" if gains[id] > 0 else "lost" if gains[id] < 0 else "neither"
        if kind == "neither" and both[1].scores[id][metric] > 0:
            continue
        language = (items[id].get("slices") or {}).get("language")
        rank = rank_in_language[kind, language] = rank_in_language.get((kind, language), 0) + 1
        kinds[kind].append((rank, id))
    return {
        kind: [example(id, items[id], both, metric) for _, id in sorted(ranked)[: MAX_EXAMPLES[kind]]]
        for kind, ranked in kinds.items()
        if ranked
    }


def example(id: str, item: dict, candidates: list[Candidate], metric: str) -> dict[str, Any]:
    """A question as asked (what stands before its last paragraph is context), its references and each answer."""
    context, _, question = item["messages"][-1]["content"].strip().rpartition("\n\n")
    slices = item.get("slices") or {}
    answers = []
    for candidate in candidates:
        prediction = candidate.predictions.get(id) or {"error": "no prediction"}
        answers.append(
            {
                "name": candidate.name,
                "score": candidate.scores[id][metric],
                "output": prediction.get("output") or "",
                "error": prediction.get("error"),
            }
        )
    return {
        "language": slices.get("language") or "en",
        "slices": [str(value) for key, value in slices.items() if value and key != "held_out"],
        "question": question,
        "context": context,
        "references": item.get("references") or [],
        "answers": answers,
    }
