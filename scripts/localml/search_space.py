"""Draws the parameters of a sweep's trials from its search space, by the rules and in the spelling of Azure ML."""

import itertools
import json
import math
import random
from collections.abc import Iterator
from typing import Any

from localml.errors import RunError

MAX_TRIALS = 1000  # what Azure ML allows
_TRIES_PER_TRIAL = 100  # then a space of few values has no more combinations to give


def draw(
    where: str, space: dict[str, Any], algorithm: Any, count: int | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """The parameters of each trial, no combination twice, and notes on what is done otherwise than asked for.

    ``space`` holds the distributions of ``azure.ai.ml.sweep``. The same space, algorithm and seed give the same trials;
    without a seed it is 0, so that a sweep can be reused.
    """
    if not space:
        raise RunError(f"{where}.search_space: is empty; name the inputs that the trials vary")
    if count is not None and not 1 <= count <= MAX_TRIALS:
        raise RunError(f"{where}.limits.max_total_trials: {count} is not between 1 and {MAX_TRIALS}")
    rules = {name: _rule(f"{where}.search_space.{name}", distribution) for name, distribution in space.items()}
    kind = str(getattr(algorithm, "type", algorithm) or "random").lower()
    if kind == "grid":
        return list(itertools.islice(_grid(where, rules), count or MAX_TRIALS)), []
    if kind not in ("random", "bayesian"):
        raise RunError(f"{where}.sampling_algorithm: {kind!r} is not one of bayesian, grid, random")
    if count is None:
        raise RunError(f"{where}.limits: needs max_total_trials, since {kind} sampling has no end of its own")
    notes = []
    if kind == "bayesian":
        notes.append("bayesian sampling is not done here: the trials are drawn at random")
    if str(getattr(algorithm, "rule", None) or "random").lower() == "sobol":
        notes.append("sobol sequences are not drawn here: the trials are drawn at random from the same seed")
    base = _base(where, getattr(algorithm, "logbase", None))
    source = random.Random(getattr(algorithm, "seed", None) or 0)
    trials: dict[str, dict[str, Any]] = {}
    for _ in range(count * _TRIES_PER_TRIAL):
        trial = {name: _value(f"{where}.search_space.{name}", *rule, source, base) for name, rule in rules.items()}
        trials.setdefault(json.dumps(trial, sort_keys=True), trial)
        if len(trials) == count:
            break
    else:
        notes.append(f"the search space has only {len(trials)} combinations: max_total_trials={count} is not reached")
    return list(trials.values()), notes


def _rule(where: str, distribution: Any) -> tuple[str, list[Any]]:
    """Kind and arguments of a distribution, as ``("quniform", [min_value, max_value, q])``."""
    kind, arguments = distribution._to_rest_object()
    if kind == "choice":
        values = arguments[0]
        if not values or any(isinstance(value, (dict, list)) for value in values):
            raise RunError(f"{where}.values: expected one or more plain values; nested ones cannot run on this machine")
        return kind, values
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in arguments):
        raise RunError(f"{where}: {kind} needs finite numbers, found {arguments}")
    if kind == "randint" and arguments[0] < 1:
        raise RunError(f"{where}.upper: {arguments[0]} is below 1")
    if kind.endswith("uniform") and arguments[0] > arguments[1]:
        raise RunError(f"{where}: min_value {arguments[0]} is above max_value {arguments[1]}")
    if kind.endswith("normal") and arguments[1] < 0:
        raise RunError(f"{where}.sigma: {arguments[1]} is below 0")
    if kind.startswith("q") and arguments[2] <= 0:
        raise RunError(f"{where}.q: {arguments[2]} is not above 0")
    return kind, arguments


def _base(where: str, logbase: Any) -> float:
    try:
        base = math.e if logbase in (None, "e") else float(logbase)
    except ValueError:
        base = math.nan
    if not (base > 0 and base != 1 and math.isfinite(base)):
        raise RunError(
            f"{where}.sampling_algorithm.logbase: {logbase!r} is neither e nor a number above 0 other than 1"
        )
    return base


def _grid(where: str, rules: dict[str, tuple[str, list[Any]]]) -> Iterator[dict[str, Any]]:
    for name, (kind, _) in rules.items():
        if kind != "choice":
            raise RunError(f"{where}.search_space.{name}: grid sampling takes choice only, found {kind}")
    for values in itertools.product(*(dict.fromkeys(values) for _, values in rules.values())):
        yield dict(zip(rules, values, strict=True))


def _value(where: str, kind: str, arguments: list[Any], source: random.Random, base: float) -> Any:
    if kind == "choice":
        return source.choice(arguments)
    if kind == "randint":
        return source.randrange(arguments[0])
    name = kind.removeprefix("q")
    value = source.uniform(*arguments[:2]) if name.endswith("uniform") else source.gauss(*arguments[:2])
    try:
        if name.startswith("log"):
            value = base**value
        if kind.startswith("q"):
            # Twelve digits, so that 3 steps of 0.1 are 0.3.
            value = float(f"{round(value / arguments[2]) * arguments[2]:.12g}")
    except OverflowError:
        raise RunError(f"{where}: {kind} {arguments} gives numbers that are too large; it takes logarithms") from None
    return value
