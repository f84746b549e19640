"""detect_drift's prompt sensitivity: agreement over wordings and repeats, and the worst of the wordings, by hand."""

import importlib

import numpy as np
import pytest

from slmkit.errors import UserError
from tests.components.drifting_canaries import canaries, right


@pytest.fixture(scope="module")
def prompt_sensitivity(load_main):
    load_main("compare_candidates")
    load_main("detect_drift")
    return importlib.import_module("prompt_sensitivity")


@pytest.fixture(scope="module")
def judge(prompt_sensitivity):
    settings = importlib.import_module("drift_settings")

    def judge(baseline, current, **values):
        settings_of = settings.PromptSensitivitySettings(**{"num_resamples": 9999, **values})
        signal = prompt_sensitivity.prompt_sensitivity(baseline, current, settings_of, 1, 0)
        return signal, {effect.name: effect for effect in signal.effects}

    return judge


def asked(original, again, order, synonyms):
    """Each original twice, and each of two variants."""
    return [
        *canaries(original),
        *canaries(again, repeat=1),
        *canaries(order, edit="order"),
        *canaries(synonyms, edit="synonyms"),
    ]


def test_the_measures_of_one_canary(prompt_sensitivity):
    answer = importlib.import_module("answer_drift").extracted(None)

    def measures(*outputs):
        return prompt_sensitivity._measures(asked(*([output] for output in outputs)), answer)

    assert measures("right", "right", "Right.", "right") == {
        "variant_consistency": 1,
        "worst_case_accuracy": 0,  # "Right." is scored by who scores, here as wrong
        "repeat_consistency": 1,
    }
    assert measures("right", "left", "right", "up")["variant_consistency"] == pytest.approx(1 / 3)
    assert measures("right", "left", "right", "right") == {
        "variant_consistency": 1,
        "worst_case_accuracy": 1,
        "repeat_consistency": 0,
    }
    failed = measures("right", None, None, None)
    assert failed == {"variant_consistency": 0, "worst_case_accuracy": 0, "repeat_consistency": 0}


def test_variants_that_come_to_disagree(judge):
    then = asked(*[right(40)] * 4)
    now = asked(right(40), right(40), right(28, 12), right(40))
    signal, effects = judge(then, now)
    worst, variants, repeats = (
        effects[name] for name in ("worst_case_accuracy", "variant_consistency", "repeat_consistency")
    )
    assert worst.change == pytest.approx(-0.3)
    assert worst.p_value == pytest.approx(3 * 2**-12, abs=5e-4)  # Holm over three
    assert variants.change == pytest.approx(-12 * (2 / 3) / 40)  # one of three pairs agrees
    assert (repeats.change, repeats.p_value) == (0, 1)
    assert [worst.drift, variants.drift, repeats.drift] == [True, True, False]
    assert signal.verdict == "drift" and len(signal.reasons) == 2


def test_becoming_steadier_is_no_drift(judge):
    signal, _ = judge(asked(right(40), right(40), right(10, 30), right(40)), asked(*[right(40)] * 4))
    assert signal.verdict == "none"


def test_repeats_that_come_to_disagree(judge):
    _, effects = judge(asked(*[right(40)] * 4), asked(right(40), right(28, 12), right(40), right(40)))
    assert [name for name, effect in effects.items() if effect.drift] == ["repeat_consistency"]


def test_another_number_of_repeats(judge):
    then = asked(*[right(30)] * 4) + canaries(right(30), repeat=2)
    assert judge(then, asked(*[right(30)] * 4))[0].verdict == "none"
    only_variants = canaries(right(30)) + canaries(right(30), edit="order")
    assert set(judge(only_variants, only_variants)[1]) == {"variant_consistency", "worst_case_accuracy"}


def test_without_variants_and_repeats_there_is_nothing_to_see(judge):
    signal, _ = judge(canaries(right(30)), canaries(right(30)))
    assert signal.verdict == "no_data" and "prepare_canaries" in signal.reasons[0]


def test_a_canary_without_variants_beside_some_with(judge):
    then = canaries(right(30)) + canaries(right(25), edit="order")
    _, effects = judge(then, then)
    assert effects["variant_consistency"].num_current == 25


def test_other_variants_than_the_baseline_are_named(judge):
    then = canaries(right(30)) + canaries(right(30), edit="order")
    now = canaries(right(30)) + canaries(right(30), edit="politeness")
    with pytest.raises(UserError, match="wording 'c0 order' and 29 more of the baseline missing now"):
        judge(then, now)


def test_failures_count_and_too_many_say_nothing(judge):
    then = asked(*[right(40)] * 4)
    signal, effects = judge(then, asked(right(40), right(40), [None] * 10 + right(30), right(40)))
    assert effects["worst_case_accuracy"].change == pytest.approx(-0.25) and signal.verdict == "drift"
    assert judge(then, asked(right(40), right(40), [None] * 40, right(40)))[0].verdict == "insufficient"


def test_false_alarms(judge):
    rng = np.random.default_rng(2)

    def ask():
        return asked(*(["right" if is_right else "wrong" for is_right in rng.random(40) < 0.8] for _ in range(4)))

    assert sum(judge(ask(), ask(), num_resamples=999)[0].verdict == "drift" for _ in range(60)) <= 2  # 0.4 expected
