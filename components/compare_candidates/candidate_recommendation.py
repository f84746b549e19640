"""Which candidate to take: the cheapest, or else the quickest, of those that are shown to be near the best."""

from typing import Any

from paired_statistics import PairedScores

from slmkit.wilson_interval import wilson


def recommend(candidates: list[dict[str, Any]], scores: PairedScores, margin: float, in_points: bool) -> dict[str, str]:
    """The candidate and the reason in a sentence; ``scores`` has a column a candidate."""
    allowed = f"{100 * margin:g} points" if in_points else f"{margin:g}"
    best = max(range(len(candidates)), key=lambda i: scores.means[i])
    near = [i for i in range(len(candidates)) if i == best or _within(scores, i, best, margin, in_points)]
    name = candidates[best]["name"]
    if len(near) == 1:
        alike = [one["name"] for i, one in enumerate(candidates) if i != best and not _shown(scores, best, i)]
        reason = f"and no other is shown to be within {allowed} of it."
        if alike:
            reason = f"but these questions do not tell it from {_listed(alike)}: more of them would decide."
        return {"candidate": name, "reason": f"{name} has the best score, {reason}"}

    def by(figure) -> int | None:
        """The candidate with the lowest figure, of equal ones that with the better score; None where one has none."""
        figures = {i: figure(candidates[i]) for i in near}
        if None in figures.values():
            return None
        return min(near, key=lambda i: (figures[i], -scores.means[i]))

    cheapest = by(lambda one: one["cost_per_1000"])
    quickest = by(lambda one: one["latency_ms"] and one["latency_ms"]["p95"])
    taken = best if cheapest is None and quickest is None else quickest if cheapest is None else cheapest
    # A price of nothing for everyone tells nothing.
    if cheapest is not None and quickest is not None and len({candidates[i]["cost_per_1000"] for i in near}) == 1:
        cheapest, taken = None, quickest
    one = candidates[taken]
    among = f"of the {len(near)} candidates that are shown to be no more than {allowed} below the best score ({name})"
    if cheapest is not None:
        reason = f"{one['name']} costs least, {one['cost_per_1000']:.4g} per 1,000 requests, {among}."
    elif quickest is not None:
        reason = f"{one['name']} answers fastest, {one['latency_ms']['p95']:,.0f} ms at p95, {among}."
    else:
        reason = f"{one['name']} has the best score {among}; neither cost nor latency is known of all of them."
    return {"candidate": one["name"], "reason": reason}


def _within(scores: PairedScores, i: int, best: int, margin: float, in_points: bool) -> bool:
    """Whether a candidate is shown to be no more than the margin below the best."""
    found = scores.difference(i, best)
    low = found["low"]
    if low is not None and low == found["high"] and in_points:
        # Nothing varied. In how many more clusters they may differ, by up to 1 each, is a share that was 0 of them.
        low -= wilson(0, scores.worth)[1]
    return low is not None and low > -margin


def _shown(scores: PairedScores, better: int, worse: int) -> bool:
    low = scores.difference(better, worse)["low"]
    return low is not None and low > 0


def _listed(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
