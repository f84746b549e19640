"""Questions for the report that one candidate won or lost against the baseline, with what both answered."""

from typing import Any

from candidate_scores import Candidate
from report_charts import Units

MAX_EXAMPLES = {"won": 6, "lost": 6, "neither": 3}


def examples(
    comparison: dict[str, Any],
    items: dict[str, dict],
    candidates: list[Candidate],
    pair: dict[str, Any],
    shows: dict[str, Units],
) -> dict[str, list[dict]]:
    """Questions won, lost and answered wrongly by both, the clearest first and the languages in turn."""
    shown = {candidate.name: candidate for candidate in candidates}
    both = [shown[pair["baseline"]], shown[pair["candidate"]]]
    if any(candidate.predictions is None for candidate in both):
        return {}
    metrics = metrics_of(comparison, items)
    scores = {id: [one.scores[id][metrics[id]] for one in both] for id in items}
    gains = {id: ours - theirs for id, (theirs, ours) in scores.items()}
    kinds: dict[str, list[tuple]] = {"won": [], "lost": [], "neither": []}
    rank_in_language: dict[tuple, int] = {}
    for id in sorted(items, key=lambda id: (-abs(gains[id]), id)):
        kind = "won" if gains[id] > 0 else "lost" if gains[id] < 0 else "neither"
        if kind == "neither" and (scores[id][1] > 0 or not shows[metrics[id]].share):
            continue
        language = (items[id].get("slices") or {}).get("language")
        rank = rank_in_language[kind, language] = rank_in_language.get((kind, language), 0) + 1
        kinds[kind].append((rank, id))
    return {
        kind: [
            example(items[id], [one.predictions.get(id) for one in both], both, scores[id], shows[metrics[id]])
            for _, id in sorted(ranked)[: MAX_EXAMPLES[kind]]
        ]
        for kind, ranked in kinds.items()
        if ranked
    }


def metrics_of(comparison: dict[str, Any], items: dict[str, dict]) -> dict[str, str]:
    """By id, the metric that a question is compared in."""
    metric = comparison["metric"]
    if isinstance(metric, str):
        return dict.fromkeys(items, metric)
    return {id: metric[str((item.get("slices") or {}).get("benchmark") or "all")] for id, item in items.items()}


def example(
    item: dict, predictions: list[dict | None], candidates: list[Candidate], scores: list[float], shown: Units
) -> dict[str, Any]:
    """A question as asked (what stands before its last paragraph is context), its references and each answer."""
    context, _, question = item["messages"][-1]["content"].strip().rpartition("\n\n")
    slices = item.get("slices") or {}
    references = item.get("references") or []
    choices, gold = item.get("choices"), item.get("gold")
    if not references and isinstance(choices, list) and isinstance(gold, int) and 0 <= gold < len(choices):
        references = [str(choices[gold])]
    answers = []
    for candidate, prediction, score in zip(candidates, predictions, scores, strict=True):
        made = prediction or {"error": "no prediction"}
        answers.append(
            {
                "name": candidate.name,
                "score": score,
                "output": made.get("output") or "",
                "error": made.get("error"),
            }
        )
    return {
        "language": slices.get("language") or "en",
        "slices": [str(value) for key, value in slices.items() if value and key != "held_out"],
        "question": question,
        "context": context,
        "references": references,
        "answers": answers,
        "right_or_wrong": shown.share and set(scores) <= {0, 1},
        "shown": shown,
    }
