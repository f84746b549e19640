"""detect_drift's LLM drift: accuracy of the canaries against the baseline's, by hand."""

import importlib
import math

import numpy as np
import pytest
import scipy.stats

from slmkit.errors import UserError
from tests.components.drifting_canaries import canaries, right

LEVEL = 0.05 * math.log(1 + (math.e - 1) / 12)  # of the first of 12 looks, 0.0067


@pytest.fixture(scope="module")
def judge(load_main):
    """The signal; few draws, as the p of 0/1 scores needs none."""
    load_main("compare_candidates")
    load_main("detect_drift")
    canary_drift, settings = (importlib.import_module(name) for name in ("canary_drift", "drift_settings"))

    def judge(baseline, current, look=1, seed=0, **values):
        settings_of = settings.LlmDriftSettings(**{"num_resamples": 999, **values})
        return canary_drift.llm_drift(baseline, current, settings_of, look, seed)

    return judge


def overall(signal):
    return signal.effects[0]


@pytest.mark.parametrize(
    ("losses", "wins", "p", "verdict"),
    [
        (12, 2, (1 + 14 + 91) / 2**14, "drift"),  # two wins or fewer of 14 tosses
        (11, 2, (1 + 13 + 78) / 2**13, "none"),
        (2, 12, 1.0, "none"),  # better than before is no drift
        (0, 0, 1.0, "none"),
    ],
)
def test_mcnemar_by_hand(judge, losses, wins, p, verdict):
    same = 60 - losses - wins
    then = right(losses, wins) + right(same)
    now = right(0, losses) + right(wins) + right(same)
    signal = judge(canaries(then), canaries(now))
    effect = overall(signal)
    assert (signal.verdict, effect.p_value) == (verdict, pytest.approx(p))
    assert effect.change == pytest.approx((wins - losses) / 60)
    assert effect.low <= effect.change <= effect.high
    assert f"{wins} higher, {losses} lower, {same} the same; exact McNemar" in effect.detail
    assert (effect.drift, len(signal.reasons)) == (verdict == "drift", 1)


def test_a_late_look_of_pocock_spends_less_than_the_first(judge):
    then, now = canaries(right(60)), canaries(right(60 - 8, 8))  # p = 1/256 = 0.0039
    assert judge(then, now, look=1).verdict == "drift"
    assert judge(then, now, look=12).verdict == "none"  # 0.0027 is allowed
    assert judge(then, now, look=13).verdict == "drift"  # the first of the next schedule


def test_a_fall_too_small_to_matter_is_no_drift(judge):
    then, now = canaries(right(1000)), canaries(right(985, 15))
    assert judge(then, now).verdict == "none"
    assert judge(then, now, min_fall=0.01).verdict == "drift"


def test_canaries_of_one_document_count_as_one(judge):
    five_a_document = {"cluster": lambda number: f"d{number // 5}"}
    then, now = canaries(right(60), **five_a_document), canaries(right(20, 40), **five_a_document)
    signal = judge(then, now)
    assert overall(signal).p_value == pytest.approx(2**-8)  # eight documents fell
    assert signal.verdict == "drift"
    two = {"cluster": lambda number: f"d{number % 2}"}
    signal = judge(canaries(right(60), **two), canaries(right(0, 60), **two))
    assert signal.verdict == "insufficient" and "2 independent groups" in signal.reasons[0]


def test_a_prompt_under_many_ids_is_one_question(judge):
    answers = importlib.import_module("canary_answers")
    asked = [(f"c{number}", "the same" if number < 30 else f"another {number}") for number in range(40)]
    items = [{"id": id, "messages": [{"role": "user", "content": text}]} for id, text in asked]
    items.insert(0, items[1] | {"id": "c1:order", "canary_id": "c1", "edit": "order", "messages": []})
    found = answers._clusters(items)
    assert {found[f"c{number}"] for number in range(30)} == {"c0"} and len(set(found.values())) == 11
    of = {"cluster": lambda number: found[f"c{number}"]}
    assert judge(canaries(right(40), **of), canaries(right(10, 30)[::-1], **of)).verdict == "none"


@pytest.mark.parametrize("base", [0.35, 0.7, 0.95])
def test_a_fall_of_just_the_least_change_is_drift(judge, base):
    """0.7 - 0.68 is a little less than 0.02."""
    num = round(1000 * base)
    then, now = canaries(right(num, 1000 - num)), canaries(right(num - 20, 1020 - num))
    assert judge(then, now).verdict == "drift"


def test_as_many_documents_as_would_do_without_slices_are_too_few_with_them(judge):
    """2^-8 is within 0.0067 and not within half of it."""
    eight = {"cluster": lambda number: f"d{number % 8}"}
    assert judge(canaries(right(48), **eight), canaries(right(0, 48), **eight)).verdict == "drift"
    eight["slices"] = lambda number: {"language": "ja" if number % 2 else "en"}
    signal = judge(canaries(right(48), **eight), canaries(right(0, 48), **eight))
    assert signal.verdict == "insufficient" and "8 independent groups" in signal.reasons[0]


def test_draws_are_no_limit_of_what_can_be_shown(judge):
    """The first look of O'Brien and Fleming allows 1e-11, and 999 draws show 5e-4."""
    now = canaries(right(200), score=lambda number: 0.1 + number / 1e4)
    signal = judge(canaries(right(200)), now, looks={"spending": "obrien_fleming"})
    falls = 0.9 - np.arange(200) / 1e4
    assert signal.effects[0].p_value == pytest.approx(math.exp(-(falls.sum() ** 2) / (2 * (falls**2).sum())))
    assert signal.verdict == "drift"


def test_the_interval_is_that_of_a_bootstrap_over_documents(judge):
    rng = np.random.default_rng(5)
    documents, then, now = rng.integers(40, size=200), rng.random(200) < 0.8, rng.random(200) < 0.6
    sides = [
        canaries(["right" if is_right else "wrong" for is_right in side], cluster=lambda number: str(documents[number]))
        for side in (then, now)
    ]
    effect = overall(judge(*sides, num_resamples=9999))
    sums = np.array([[(now.astype(int) - then)[documents == d].sum(), (documents == d).sum()] for d in range(40)])
    drawn = sums[np.random.default_rng(6).integers(40, size=(9999, 40))].sum(axis=1)
    t = scipy.stats.t.ppf(0.975, 39) * math.sqrt(40 / 39)  # few documents: expanded percentiles
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], scipy.stats.norm.cdf([-t, t]))
    assert (effect.low, effect.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))


def test_scores_that_are_no_yes_or_no_are_permuted(judge):
    rng = np.random.default_rng(1)
    scores = rng.random((2, 40)) * [[1.0], [0.6]]
    sides = [canaries(right(40), score=lambda number, side=side: float(side[number])) for side in scores]
    effect = overall(judge(*sides, num_resamples=9999))
    signs = np.random.default_rng(2).choice([-1, 1], size=(20000, 40))
    fall = scores[0] - scores[1]
    expected = (signs @ fall >= fall.sum()).mean()
    assert effect.p_value == pytest.approx(expected, abs=0.003)
    assert effect.detail.endswith("permutation by cluster")


# --- slices ----------------------------------------------------------------------------------------------------------


def in_languages(outputs, num_ja, **more):
    return canaries(outputs, slices=lambda number: {"language": "ja" if number < num_ja else "en"}, **more)


def test_one_slice_falls_and_the_whole_does_not(judge):
    then = in_languages(right(20) + right(195, 5), 20)
    now = in_languages(right(10, 10) + right(190, 5) + right(5), 20)
    signal = judge(then, now)
    whole, english, japanese = signal.effects
    assert (whole.slice, english.slice, japanese.slice) == (None, "language=en", "language=ja")
    tail = sum(math.comb(20, wins) for wins in range(6)) / 2**20  # 15 fell, 5 rose
    assert whole.p_value == pytest.approx(2 * tail)  # half of alpha is for the whole
    assert japanese.p_value == pytest.approx(2 * 2 * 2**-10)  # Holm over two slices, on the other half
    assert [effect.drift for effect in signal.effects] == [False, False, True]
    assert signal.verdict == "drift" and "(language=ja)" in signal.reasons[0]


def test_small_slices_and_those_that_are_the_whole_are_left_out(judge):
    slices = {"slices": lambda number: {"benchmark": "one", "language": "ja" if number < 19 else "en"}}
    signal = judge(canaries(right(60), **slices), canaries(right(60), **slices))
    assert [effect.slice for effect in signal.effects] == [None, "language=en"]
    twice = {"slices": lambda number: {"a": str(number < 30), "b": str(number < 30)}}
    signal = judge(canaries(right(60), **twice), canaries(right(60), **twice))
    assert [effect.slice for effect in signal.effects] == [None, "a=False", "a=True"]


# --- repeats, failures and what does not belong together -----------------------------------------------------------


def test_all_repeats_count_and_a_baseline_with_other_repeats_is_compared_by_those_of_both(judge):
    then = canaries(right(30)) + canaries(right(30), repeat=1) + canaries(right(0, 30), repeat=2)
    now = canaries(right(30)) + canaries(right(18, 12), repeat=1)
    effect = overall(judge(then, now))
    assert (effect.num_current, effect.change) == (60, pytest.approx(-12 / 60))
    assert effect.p_value == pytest.approx(2**-12)
    assert overall(judge(now, then)).num_current == 60


def test_edited_prompts_are_not_part_of_it(judge):
    then = canaries(right(30)) + canaries(right(30), edit="order")
    now = canaries(right(30)) + canaries(right(0, 30), edit="order")
    assert overall(judge(then, now)).change == 0


def test_missing_answers_are_wrong_ones_and_too_many_leave_nothing_to_say(judge):
    then = canaries(right(100))
    signal = judge(then, canaries(right(90) + [None] * 10))
    assert signal.verdict == "drift" and overall(signal).change == pytest.approx(-0.1)
    assert "10 without an answer" in overall(signal).detail
    for failed in (11, 100):
        signal = judge(then, canaries(right(100 - failed) + [None] * failed))
        assert signal.verdict == "insufficient" and f"{failed} of 100 prompts got no answer now" in signal.reasons[0]
    signal = judge(canaries([None] * 100), then)
    assert signal.verdict == "insufficient" and "in the baseline" in signal.reasons[0]


def test_nothing_asked_and_nothing_to_compare_with(judge):
    assert judge([], canaries(right(30))).verdict == "no_data"
    assert judge(canaries(right(30)), []).verdict == "no_data"


def test_one_canary_is_not_enough(judge):
    signal = judge(canaries(["right"]), canaries(["wrong"]))
    assert (signal.verdict, signal.effects) == ("insufficient", ())
    signal = judge(canaries(["right"]), canaries(["wrong"]), min_canaries=1)
    assert signal.verdict == "insufficient" and "1 independent groups" in signal.reasons[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[1:], "canary 'c0' of the baseline missing now"),
        (lambda rows: rows[:-2], "canary 'c28' and 1 more of the baseline missing now"),
        (lambda rows: rows + canaries(["right"], first=77), "canary 'c77' of the window missing in the baseline"),
        (lambda rows: [*rows, rows[0]], "current canaries: 'c0:0' stands twice"),
        (lambda rows: rows + canaries(right(29), repeat=1), "repeat"),
    ],
)
def test_canaries_that_do_not_match_are_named(judge, change, said):
    baseline = canaries(right(30)) + (canaries(right(30), repeat=1) if said == "repeat" else [])
    with pytest.raises(UserError, match=said):
        judge(baseline, change(canaries(right(30))))


# --- no drift, and drift ---------------------------------------------------------------------------------------------


def test_false_alarms_and_detection(judge):
    """Answers drawn anew each time, by how hard the question is: 100 windows without drift, 20 with a fall of 30."""
    rng = np.random.default_rng(11)
    hardness = rng.choice([0.4, 0.9, 1.0], size=60)

    def ask(share=1.0):
        return canaries(["right" if is_right else "wrong" for is_right in rng.random(60) < share * hardness])

    assert sum(judge(ask(), ask()).verdict == "drift" for _ in range(100)) <= 2  # 0.7 expected at most
    assert sum(judge(ask(), ask(0.6)).verdict == "drift" for _ in range(20)) >= 16
