"""Which trial is ended, by the examples of Azure ML's documentation and values worked out by hand."""

import math

import pytest
from azure.ai.ml.sweep import BanditPolicy, MedianStoppingPolicy, TruncationSelectionPolicy

from localml import early_termination
from localml.errors import RunError


def ended(policy, own, *others, minimize=False) -> bool:
    return early_termination.reason(policy, minimize, own, others) is not None


@pytest.mark.parametrize(("value", "end"), [(0.66, True), (0.67, False), (0.8, False)])
def test_bandit_slack_factor_when_maximizing(value, end):
    """The documentation's example: the best is 0.8, and 0.8 / (1 + 0.2) = 0.667."""
    assert ended(BanditPolicy(slack_factor=0.2), [value], [0.8]) is end


@pytest.mark.parametrize(("value", "end"), [(0.59, True), (0.61, False)])
def test_bandit_slack_amount_when_maximizing(value, end):
    assert ended(BanditPolicy(slack_amount=0.2), [value], [0.8]) is end


@pytest.mark.parametrize(
    ("policy", "value", "end"),
    [
        (BanditPolicy(slack_factor=0.1), 2.21, True),  # 2 * (1 + 0.1) = 2.2
        (BanditPolicy(slack_factor=0.1), 2.19, False),
        (BanditPolicy(slack_amount=0.5), 2.51, True),
        (BanditPolicy(slack_amount=0.5), 2.49, False),
    ],
)
def test_bandit_when_minimizing(policy, value, end):
    assert ended(policy, [value], [3.0], [2.0], minimize=True) is end


def test_a_bandit_leaves_the_best_alone_below_zero():
    """A log-likelihood of -2: a slack of 10 % reaches down to -2.2, not up to -1.8."""
    policy = BanditPolicy(slack_factor=0.1)
    assert not ended(policy, [-2.0], [-3.0])
    assert not ended(policy, [-2.19], [-2.0])
    assert ended(policy, [-2.21], [-2.0])


def test_its_own_best_value_counts_and_that_of_the_others_at_the_same_interval():
    policy = BanditPolicy(slack_amount=0.1)
    assert not ended(policy, [1.0, 5.0], [1.0, 1.0], minimize=True)
    assert not ended(policy, [2.0], [2.0, 0.1], minimize=True), "0.1 came at interval 2"
    assert not ended(policy, [2.0, 2.0], [0.1], minimize=True), "nothing to compare with at interval 2"


@pytest.mark.parametrize(
    ("every", "delay", "intervals"),
    [
        (1, 0, [1, 2, 3, 4, 5]),
        (0, 0, [1, 2, 3, 4, 5]),
        (2, 0, [2, 3, 4, 5]),
        (1, 4, [4, 5]),
        (2, 3, [4, 5]),
    ],
)
def test_intervals(every, delay, intervals):
    """Applied at multiples of evaluation_interval from delay_evaluation on; in between it stands as it was judged."""
    policy = BanditPolicy(slack_amount=0.1, evaluation_interval=every, delay_evaluation=delay)
    assert [n for n in range(1, 6) if ended(policy, [2.0] * n, [1.0] * 5, minimize=True)] == intervals


def test_median_stopping():
    """Running averages at interval 2 are 1, 2, 3 and the trial's own (6 + 2) / 2 = 4: the median is 2.5."""
    others = [1.0, 1.0, 9.0], [2.0, 2.0], [3.0, 3.0]
    policy = MedianStoppingPolicy(evaluation_interval=1)
    assert not ended(policy, [6.0, 2.0], *others, minimize=True)
    assert not ended(policy, [5.5, 2.5], *others, minimize=True)
    assert ended(policy, [5.4, 2.6], *others, minimize=True)


def test_truncation_selection():
    """Of five trials the lowest 20 % is one; of four it is none."""
    policy = TruncationSelectionPolicy(truncation_percentage=20, evaluation_interval=1)
    others = [0.2], [0.3], [0.4], [0.5]
    assert ended(policy, [0.1], *others)
    assert not ended(policy, [0.25], *others)
    assert not ended(policy, [0.1], *others[1:])


def test_a_loss_that_is_not_a_number_is_the_worst():
    assert ended(BanditPolicy(slack_factor=0.5), [math.nan], [2.0], minimize=True)
    assert not ended(BanditPolicy(slack_factor=0.5), [2.0], [math.nan], minimize=True)


@pytest.mark.parametrize("policy", [BanditPolicy(slack_amount=0.1), MedianStoppingPolicy()])
def test_alone_nothing_is_ended(policy):
    assert not ended(policy, [100.0])
    assert not ended(policy, [], [1.0])


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (BanditPolicy(), "slack_factor or slack_amount"),
        (BanditPolicy(slack_factor=0.1, slack_amount=0.1), "not both"),
        (BanditPolicy(slack_factor=-0.1), "above 0"),
        (BanditPolicy(slack_amount=0.1, delay_evaluation=-1), "below 0"),
        (TruncationSelectionPolicy(truncation_percentage=100), "100 is not between"),
    ],
)
def test_a_policy_that_could_not_be_applied(policy, found):
    with pytest.raises(RunError, match=f"^here.*{found}"):
        early_termination.check("here", policy)
