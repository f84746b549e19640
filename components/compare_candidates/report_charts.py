"""Numbers as they are written in the report, and where they stand in its charts."""

import math
from dataclasses import dataclass
from typing import Any

HEIGHT = 240  # of the plot of quality against cost, in pixels
LABEL_HEIGHT = 17


def percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


@dataclass(frozen=True)
class Units:
    """Percent and points where the values lie from 0 to 1, or else plain numbers; a minus is no hyphen."""

    share: bool
    decimals: int

    def value(self, value: float) -> str:
        return percent(value) if self.share else signed(f"{value:,.{self.decimals}f}")

    def difference(self, value: float) -> str:
        text = signed(f"{100 * value:+.1f}" if self.share else f"{value:+,.{self.decimals}f}")
        return text[1:] if not any(digit in text for digit in "123456789") else text

    def size(self, value: float) -> str:
        return f"{100 * value:.1f}" if self.share else f"{value:,.{self.decimals}f}"

    def span(self, interval: dict[str, Any]) -> str:
        if interval["low"] is None:
            return "no interval"
        show = self.difference if "difference" in interval else self.value
        low, high = show(interval["low"]), show(interval["high"])
        return f"{low.removesuffix(percent(0)[-2:])} to {high}"


def decimals_for(scores: list[dict[str, Any]]) -> int:
    """As many decimals as show two digits of the widest interval."""
    width = max([score["high"] - score["low"] for score in scores if score["low"] is not None], default=0)
    size = width or max(abs(score["mean"]) for score in scores) or 1
    return min(12, max(0, 1 - math.floor(math.log10(size))))


def signed(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


class Scale:
    """Where a value stands between two ends, in percent of the width."""

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high

    def part(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def __call__(self, value: float) -> str:
        return f"{100 * self.part(value):.2f}%"

    def ticks(self, units: Units) -> list[str]:
        if units.share:
            return ["0\N{NO-BREAK SPACE}%", "25", "50", "75", "100\N{NO-BREAK SPACE}%"]
        return [units.value(self.low + (self.high - self.low) * i / 4) for i in range(5)]


def spread(values: list[float], margin: float) -> Scale:
    low, high = min(values), max(values)
    around = margin * (high - low) or 0.1 * abs(low) or 0.1
    return Scale(low - around, high + around)


def difference_scale(intervals: list[dict[str, Any]]) -> Scale:
    """An axis that holds 0 and all ends of these intervals."""
    ends = [one[end] for one in intervals for end in ("low", "high", "difference") if one[end] is not None]
    return spread([0.0, *ends], 0.04)


def score_scale(scores: list[dict[str, Any]], units: Units) -> Scale:
    return Scale(0, 1) if units.share else spread(ends_of(scores), 0.1)


def ends_of(scores: list[dict[str, Any]]) -> list[float]:
    return [score[end] for score in scores for end in ("low", "mean", "high") if score[end] is not None]


def quality_chart(ranking: list[dict[str, Any]], metric: str, units: Units) -> dict[str, Any] | None:
    """Scores against cost, or where less than two candidates have one against latency; None where neither is known."""
    figures = {
        "cost": ("per 1,000 requests", {one["name"]: one["cost_per_1000"] for one in ranking}),
        "latency": ("ms at p95", {one["name"]: (one["latency_ms"] or {}).get("p95") for one in ranking}),
    }
    for what, (unit, figure) in figures.items():
        known = [one for one in ranking if figure[one["name"]] is not None]
        if len(known) < 2 or not any(figure[one["name"]] for one in known):
            continue
        ys = spread(ends_of([one["metrics"][metric] for one in known]), 0.12)
        across = Scale(0, 1.08 * max(figure[one["name"]] for one in known))
        rows, columns = round_steps(ys.low, ys.high), round_steps(across.low, across.high)
        return {
            "what": what,
            "unit": unit,
            "height": HEIGHT,
            "left_out": [one["name"] for one in ranking if one not in known],
            "rows": [(round(down(ys, value), 1), units.value(value)) for value in rows],
            "columns": [(right(across.part(value)), f"{value:,.4g}") for value in columns],
            "points": points_of(known, figure, metric, across, ys),
        }
    return None


def points_of(known: list[dict], figure: dict[str, float], metric: str, across: Scale, ys: Scale) -> list[dict]:
    """Each candidate's point, its label beside it and, of labels that would overlap, one below the other."""
    points: list[dict] = []
    for one in sorted(known, key=lambda one: -one["metrics"][metric]["mean"]):
        score, part = one["metrics"][metric], across.part(figure[one["name"]])
        y = down(ys, score["mean"])
        ends = [down(ys, score[end]) if score[end] is not None else y for end in ("low", "high")]
        side, label_y = "end" if part > 0.55 else "start", y
        for other in points:
            if other["anchor"] == side and abs(other["label_y"] - label_y) < LABEL_HEIGHT:
                label_y = other["label_y"] + LABEL_HEIGHT
        points.append(
            {
                "name": one["name"],
                "x": right(part),
                "y": round(y, 1),
                "low": round(ends[0], 1),
                "high": round(ends[1], 1),
                "anchor": side,
                "dx": -12 if side == "end" else 12,
                "label_y": round(label_y, 1),
            }
        )
    return points


def down(ys: Scale, value: float) -> float:
    return HEIGHT * (1 - ys.part(value))


def right(part: float) -> str:
    """A share of the width right of the labels of the rows."""
    return f"{9 + 90 * part:.2f}%"


def round_steps(low: float, high: float) -> list[float]:
    """Three to six round numbers between two ends."""
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
