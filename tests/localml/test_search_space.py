"""What is drawn from a search space, against the definitions of Azure ML and values worked out by hand."""

import math
import statistics

import pytest
from azure.ai.ml import sweep

from localml import search_space
from localml.errors import RunError

NUM_DRAWS = 1000


def drawn(distribution, count=NUM_DRAWS, **algorithm) -> list:
    trials, _ = search_space.draw("s", {"x": distribution}, sweep.RandomSamplingAlgorithm(**algorithm), count)
    return [trial["x"] for trial in trials]


def share_below(values, limit) -> float:
    return sum(value < limit for value in values) / len(values)


# The share of draws below a limit has a standard deviation of at most 0.016 with 1000 draws: 0.06 is beyond chance.
@pytest.mark.parametrize(
    ("distribution", "lowest", "highest", "quarter", "median"),
    [
        (sweep.Uniform(2, 6), 2, 6, 3, 4),
        (sweep.LogUniform(math.log(1e-5), math.log(1e-1)), 1e-5, 1e-1, 1e-4, 1e-3),
        (sweep.Normal(10, 2), -math.inf, math.inf, 10 - 0.6745 * 2, 10),
        (sweep.LogNormal(0, 1), 0, math.inf, math.exp(-0.6745), 1),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_continuous_distributions(distribution, lowest, highest, quarter, median):
    values = drawn(distribution, seed=1)
    assert len(values) == NUM_DRAWS and all(lowest <= value <= highest for value in values)
    assert share_below(values, quarter) == pytest.approx(0.25, abs=0.06)
    assert share_below(values, median) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (sweep.Choice(["a", "b"]), {"a", "b"}),
        (sweep.Randint(3), {0, 1, 2}),
        # round(x / q) * q: of 0 to 1 in steps of 0.5, and of 0.1 to 0.3 in steps of 0.1 without a rest
        (sweep.QUniform(0, 1, 0.5), {0.0, 0.5, 1.0}),
        (sweep.QUniform(0.1, 0.3, 0.1), {0.1, 0.2, 0.3}),
        (sweep.QLogUniform(0, math.log(4), 2), {2.0, 4.0}),  # 1 to 4, so 0.5 to 2 steps
        (sweep.QNormal(5, 0, 2), {4.0}),  # 5 / 2 rounds to the even 2
        (sweep.QLogNormal(math.log(100), 0, 30), {90.0}),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_discrete_distributions_give_each_value_once(distribution, expected):
    trials, notes = search_space.draw("s", {"x": distribution}, "random", 10)
    values = [trial["x"] for trial in trials]
    assert len(values) == len(set(values)) and set(values) == expected
    assert notes == [f"the search space has only {len(expected)} combinations: max_total_trials=10 is not reached"]


def test_quantized_uniform_gives_the_ends_half_as_often():
    """round() leaves half an interval to each end: of 0..10 in steps of 5, 1/4, 1/2 and 1/4."""
    space = {"x": sweep.QUniform(0, 10, 5), "y": sweep.Uniform(0, 1)}  # y makes every trial another
    trials, _ = search_space.draw("s", space, sweep.RandomSamplingAlgorithm(seed=2), NUM_DRAWS)
    values = [trial["x"] for trial in trials]
    assert [values.count(value) / NUM_DRAWS for value in (0, 5, 10)] == pytest.approx([0.25, 0.5, 0.25], abs=0.06)


def test_logbase():
    values = drawn(sweep.LogUniform(-4, -2), seed=3, logbase=10)
    assert min(values) >= 1e-4 and max(values) <= 1e-2
    assert statistics.median(values) == pytest.approx(1e-3, rel=0.3)


def test_a_seed_gives_the_same_trials_and_more_trials_begin_with_the_same():
    space = sweep.Uniform(0, 1)
    assert drawn(space, 5, seed=7) == drawn(space, 5, seed=7) == drawn(space, 9, seed=7)[:5]
    assert drawn(space, 5, seed=7) != drawn(space, 5, seed=8)
    assert drawn(space, 5) == drawn(space, 5, seed=0)


def test_grid_gives_every_combination_in_order():
    space = {"a": sweep.Choice([1, 2, 2]), "b": sweep.Choice(["x", "y"])}
    trials, notes = search_space.draw("s", space, "grid", None)
    assert [(trial["a"], trial["b"]) for trial in trials] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    assert notes == []
    assert search_space.draw("s", space, sweep.GridSamplingAlgorithm(), 3)[0] == trials[:3]


@pytest.mark.parametrize(
    ("algorithm", "note"),
    [
        (sweep.BayesianSamplingAlgorithm(), "bayesian sampling is not done here"),
        (sweep.RandomSamplingAlgorithm(rule="sobol"), "sobol sequences are not drawn here"),
    ],
)
def test_what_is_not_done_here_is_said(algorithm, note):
    trials, notes = search_space.draw("s", {"x": sweep.Uniform(0, 1)}, algorithm, 3)
    assert len(trials) == 3 and note in notes[0]


@pytest.mark.parametrize(
    ("distribution", "algorithm", "found"),
    [
        (sweep.Choice([]), "random", "x.values: expected one or more"),
        (sweep.Choice([{"a": 1}]), "random", "nested"),
        (sweep.Uniform(2, 1), "random", "min_value 2 is above max_value 1"),
        (sweep.Uniform(0, math.inf), "random", "finite"),
        (sweep.Uniform(0, None), "random", "finite"),
        (sweep.LogUniform(0, 1e6), "random", "too large; it takes logarithms"),
        (sweep.Normal(0, -1), "random", "sigma: -1"),
        (sweep.QUniform(0, 1, 0), "random", "q: 0 is not above 0"),
        (sweep.Randint(0), "random", "upper: 0"),
        (sweep.Uniform(0, 1), "grid", "choice only, found uniform"),
        (sweep.Uniform(0, 1), "annealing", "'annealing' is not one of"),
        (sweep.Uniform(0, 1), sweep.RandomSamplingAlgorithm(logbase="x"), "logbase: 'x'"),
        (sweep.Uniform(0, 1), sweep.RandomSamplingAlgorithm(logbase=1), "logbase: 1"),
    ],
)
def test_a_space_that_cannot_be_drawn_from(distribution, algorithm, found):
    with pytest.raises(RunError, match=f"^s\\..*{found}"):
        search_space.draw("s", {"x": distribution}, algorithm, 5)


def test_random_sampling_needs_an_end():
    with pytest.raises(RunError, match="needs max_total_trials"):
        search_space.draw("s", {"x": sweep.Uniform(0, 1)}, "random", None)
