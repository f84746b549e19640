"""How the effects of drift are named and written for people, and where they stand on their axes."""

import math
import re

from drift_signal import Effect
from report_charts import Scale, percent, signed

NAMES = {
    "characters_ratio": "Characters of an answer",
    "variant_consistency": "Agreement over wordings",
    "repeat_consistency": "Agreement over repeats",
    "worst_case_accuracy": "Accuracy at the worst wording",
    "parse_failure_rate": "Answers that do not parse",
    "language_switch_rate": "Answers in another language",
    "refusal_rate": "Refusals",
    "classifier_auc": "New against old questions (AUC)",
    "text_mmd": "Distance of the texts (MMD)",
    "length_psi": "Change of length (PSI)",
    "language_distance": "Change of the language mix (JS)",
    "null_alarm_rate": "Plain alarms within the baseline",
    "latency_p50_milliseconds": "Latency, median",
    "latency_p95_milliseconds": "Latency, 95th percentile",
    "error_fraction": "Requests that failed",
    "throttled_fraction": "Requests that were throttled",
}
SHARE = re.compile(r"(accuracy|rate|consistency|answers_changed|_fraction)$")
MILLISECONDS = re.compile(r"_(ms|milliseconds)$|latency")
DASH = "\N{EN DASH}"


def title(name: str) -> str:
    known = NAMES.get(name)
    return known or re.sub(r"_(ms|milliseconds|seconds)$", "", name).replace("_", " ").capitalize()


def slice_title(slice: str) -> str:
    """language=ja as "language: ja"."""
    key, equals, value = slice.partition("=")
    return f"{key.replace('_', ' ')}: {value}" if equals else slice


def value(number: float | None, name: str) -> str:
    if number is None:
        return DASH
    if SHARE.search(name):
        return percent(number)
    if MILLISECONDS.search(name) and not name.endswith("_ratio"):
        return f"{number:,.0f}\N{NO-BREAK SPACE}ms"
    return signed(f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}")


def tick(number: float, name: str) -> str:
    return value(number, name).replace(".0\N{NO-BREAK SPACE}%", "\N{NO-BREAK SPACE}%")


def is_ratio(effect: Effect) -> bool:
    """Whether the change is now over then, and not now less then."""
    if effect.change is None or not effect.baseline or effect.current is None:
        return effect.name.endswith("_ratio")
    difference, ratio = effect.current - effect.baseline, effect.current / effect.baseline
    return abs(effect.change - ratio) < abs(effect.change - difference)


def change(effect: Effect) -> str:
    return "" if effect.change is None else _changed(effect.change, effect)


def span(effect: Effect) -> str:
    if effect.change is None or effect.low is None or effect.high is None:
        return ""
    return f"{_changed(effect.low, effect)} to {_changed(effect.high, effect)}"


def _changed(number: float, effect: Effect) -> str:
    if is_ratio(effect):
        return f"× {number:.2f}"
    if SHARE.search(effect.name):
        return signed(f"{100 * number:+.1f}")
    return signed(f"{number:+,.0f}" if abs(number) >= 100 else f"{number:+.3g}")


def p_value(number: float) -> str:
    return "< 0.001" if number < 0.001 else f"= {min(1.0, number):.3f}"


class Axis:
    """The axis of a change with "no change" in its middle; ratios stand by their logarithms."""

    def __init__(self, effects: list[Effect]):
        self.ratio = any(map(is_ratio, effects))
        ends = [end for effect in effects for end in (effect.low, effect.high, effect.change) if end is not None]
        reach = 1.08 * max((abs(self._on_axis(end)) for end in ends), default=1.0) or 1.0
        self.scale = Scale(-reach, reach)

    def _on_axis(self, number: float) -> float:
        return math.log(max(number, 1e-6)) if self.ratio else number

    def __call__(self, number: float) -> str:
        return self.scale(self._on_axis(number))

    def zero(self) -> str:
        return self.scale(0.0)


def has_plot(effect: Effect) -> bool:
    return effect.change is not None and effect.low is not None and effect.high is not None
