"""detect_drift's prompt drift: other answers, lengths, refusals, forms and languages for the same prompts."""

import importlib
import math

import numpy as np
import pytest
import scipy.stats

from tests.components.drifting_canaries import canaries, right


@pytest.fixture(scope="module")
def answer_drift(load_main):
    for name in ("compare_candidates", "score_answers", "detect_drift"):
        load_main(name)
    return importlib.import_module("answer_drift")


@pytest.fixture(scope="module")
def judge(answer_drift):
    settings = importlib.import_module("drift_settings")

    def judge(baseline, current, **values):
        settings_of = settings.PromptDriftSettings(**{"num_resamples": 999, **values})
        signal = answer_drift.prompt_drift(baseline, current, settings_of, 1, 0)
        return signal, {effect.name: effect for effect in signal.effects}

    return judge


def twice(outputs, again=None, **more):
    return canaries(outputs, **more) + canaries(outputs if again is None else again, repeat=1, **more)


def test_the_same_answers_are_no_drift(judge):
    signal, effects = judge(twice(right(30)), twice(right(30)))
    assert signal.verdict == "none" and len(effects) == 5
    ratio = effects.pop("characters_ratio")
    assert (ratio.change, ratio.low, ratio.high) == (1, 1, 1)
    assert {(effect.change, effect.p_value) for effect in effects.values()} == {(0, 1)}


@pytest.mark.parametrize(("changed", "verdict"), [(10, "drift"), (9, "none")])
def test_changed_answers_by_hand(judge, changed, verdict):
    """Each of the changed ones lost a toss of a coin; Holm multiplies by the five measures; 0.0067 is allowed."""
    signal, effects = judge(twice(right(40)), twice(right(40 - changed, changed)))
    effect = effects["answers_changed"]
    assert (effect.baseline, effect.current) == (0, pytest.approx(changed / 40))
    assert effect.p_value == pytest.approx(5 * 2**-changed)
    assert signal.verdict == verdict


def test_what_changes_from_repeat_to_repeat_is_no_drift(judge):
    """b0 and b1 differ in 20 canaries, b0 and c0 in 22, of which 4 are others: 4 against 2 tosses."""
    then = twice(right(60), right(40) + ["wrong"] * 20)
    now = twice(["left"] * 4 + right(38) + ["left"] * 18, right(60))
    signal, effects = judge(then, now)
    effect = effects["answers_changed"]
    assert (effect.baseline, effect.current) == (pytest.approx(20 / 60), pytest.approx(22 / 60))
    assert effect.detail.startswith("4 higher, 2 lower, 54 the same")
    assert effect.p_value == 1  # 22/64 * 5
    assert signal.verdict == "none"


def test_repeats_of_either_side_tell_noise_and_without_any_nothing_is_judged(judge):
    _, effects = judge(canaries(right(40)), twice(right(30, 10)))
    assert effects["answers_changed"].p_value == pytest.approx(5 * 2**-10)
    signal, effects = judge(canaries(right(40)), canaries(right(20, 20)))
    effect = effects["answers_changed"]
    assert (effect.current, effect.p_value, effect.drift) == (0.5, None, False)
    assert signal.verdict == "none" and "not judged" in signal.reasons[0]


def test_more_repeats_tell_more(judge):
    """Three against three: b0 with b1 and b2, and with c0 and c1; a canary is one cluster."""
    then = twice(right(40)) + canaries(right(40), repeat=2)
    now = twice(right(30, 10)) + canaries(right(30, 10), repeat=2)
    _, effects = judge(then, now)
    assert effects["answers_changed"].num_current == 80
    assert effects["answers_changed"].p_value == pytest.approx(5 * 2**-10)


def test_spelling_that_means_the_same_is_the_same_answer(judge):
    _, effects = judge(twice(["Right"] * 30), twice(["right. "] * 30))
    assert effects["answers_changed"].change == 0


def test_ten_documents_are_too_few_for_five_measures(judge):
    ten = {"cluster": lambda number: f"d{number % 10}"}
    signal, _ = judge(canaries(right(50), **ten), canaries(["I'm sorry, I cannot help."] * 50, **ten))
    assert signal.verdict == "insufficient" and "10 independent groups" in signal.reasons[0]


# --- length ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "drifts"), [(2, True), (0.5, True), (1.2, False)])
def test_the_length_of_the_answers(judge, factor, drifts):
    lengths = [10 * (number % 7 + 1) for number in range(40)]
    then = ["a" * length for length in lengths]
    now = ["a" * int(length * factor) for length in lengths]
    _, effects = judge(twice(then), twice(now))
    effect = effects["characters_ratio"]
    assert [effect.change, effect.low, effect.high] == pytest.approx([factor] * 3)
    assert effect.baseline == pytest.approx(scipy.stats.gmean(lengths))
    assert effect.p_value == pytest.approx(4 * 2 * math.exp(-20))  # Hoeffding, of 40 alike; second of five by Holm
    assert effect.drift == drifts


def test_the_interval_of_the_ratio_is_that_of_a_bootstrap(judge):
    rng = np.random.default_rng(3)
    lengths = rng.integers(5, 200, size=(2, 80))
    then, now = ([["a" * n for n in side]] for side in lengths)
    _, effects = judge(canaries(*then), canaries(*now), num_resamples=9999)
    logs = np.log(lengths[1]) - np.log(lengths[0])
    drawn = logs[np.random.default_rng(4).integers(80, size=(9999, 80))].mean(axis=1)
    t = scipy.stats.t.ppf(0.975, 79) * math.sqrt(80 / 79)
    low, high = np.exp(np.quantile(drawn, scipy.stats.norm.cdf([-t, t])))
    effect = effects["characters_ratio"]
    assert [effect.low, effect.high] == [pytest.approx(low, rel=0.02), pytest.approx(high, rel=0.02)]


# --- refusals, forms and languages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot assist with this request.",
        "As an AI language model, I have no opinion.",
        "We are unable to say.",
        "I must decline to answer.",
        "申し訳ありませんが、その質問にはお答えできません。",
        "恐れ入りますが、対応いたしかねます。",
        "AIアシスタントとして、意見は持ちません。",
        "죄송하지만 그 질문에는 답변할 수 없습니다.",
        "도와드릴 수 없어요.",
        "AI 언어 모델로서 의견이 없습니다.",
    ],
)
def test_refusals(answer_drift, text):
    assert answer_drift.REFUSAL.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "Eastfield",
        "The answer is 42; see the help page.",
        "You cannot park here on Sunday.",
        "Visitors are sorry to leave.",
        "日曜日は利用できません。",
        "申し訳程度の庭があります。",
        "8時～22時",
        "일요일에는 이용할 수 없습니다.",
        "주차장이 없습니다.",
        "AI 교실이 열립니다.",
    ],
)
def test_answers_that_refuse_nothing(answer_drift, text):
    assert not answer_drift.REFUSAL.search(text)


def test_refusals_that_come_and_go(judge):
    refusals = ["I'm sorry, I cannot help with that."] * 12 + right(28)
    signal, effects = judge(canaries(right(40)), canaries(refusals))
    assert (effects["refusal_rate"].change, effects["refusal_rate"].drift) == (pytest.approx(0.3), True)
    assert any(reason.startswith("Refusals went from 0.0% to 30.0%") for reason in signal.reasons)
    assert judge(canaries(refusals), canaries(right(40)))[1]["refusal_rate"].drift


def test_answers_that_do_not_parse(judge):
    then, now = ["Answer: right"] * 40, ["Answer: RIGHT."] * 20 + ["It is right"] * 20
    _, effects = judge(twice(then), twice(now), answer_pattern=r"Answer: (\w+)")
    assert effects["parse_failure_rate"].drift and effects["parse_failure_rate"].current == 0.5
    assert effects["answers_changed"].current == 0.5
    assert not judge(twice(now), twice(then), answer_pattern=r"Answer: (\w+)")[1]["parse_failure_rate"].drift


def test_empty_and_missing_answers_are_counted(judge):
    signal, effects = judge(twice(right(100)), twice([""] * 12 + [None] * 8 + right(80)))
    assert effects["parse_failure_rate"].current == pytest.approx(0.2)
    assert effects["answers_changed"].current == pytest.approx(0.2)
    assert effects["characters_ratio"].num_current == 2 * 92
    assert signal.verdict == "drift"


def test_another_language(judge):
    slices = {"references": ["日曜日"], "slices": {"language": "ja"}}
    then, now = ["日曜日です"] * 40, ["It is Sunday"] * 15 + ["日曜日です"] * 25
    _, effects = judge(canaries(then, **slices), canaries(now, **slices))
    effect = effects["language_switch_rate"]
    assert (effect.baseline, effect.current, effect.drift) == (0, 0.375, True)


@pytest.mark.parametrize(
    ("references", "language", "output"),
    [
        (["250"], "ja", "250"),  # a number is in no language
        (["Bob"], "ja", "Bob"),  # the reference's language, not the question's
        (["250"], "ja", "２５０席"),
        (["250"], "ko-KR", "250석"),
        (["250"], "und", "250 seats"),
        (["250"], "fr", "250 places"),  # of whose words nothing is known
    ],
)
def test_what_is_no_other_language(answer_drift, references, language, output):
    (one,) = canaries([output], references=references, slices={"language": language})
    assert not answer_drift._other_language(one)


def test_too_many_failures_say_nothing(judge):
    signal, effects = judge(twice(right(40)), twice([None] * 20 + right(20)))
    assert (signal.verdict, effects) == ("insufficient", {})


def test_false_alarms_and_detection(judge):
    """Answers drawn from a few for each canary, twice then and twice now; then another choice for two in three."""
    rng = np.random.default_rng(7)
    words = np.array(["one", "two words", "three words here"])

    def ask(num_changed=0):
        favorite = np.where(np.arange(60) < num_changed, 1, 0)
        return twice(*(list(words[np.where(rng.random(60) < 0.8, favorite, 2)]) for _ in range(2)))

    assert sum(judge(ask(), ask())[0].verdict == "drift" for _ in range(60)) <= 2  # 0.4 expected at most
    assert all(judge(ask(), ask(40))[0].verdict == "drift" for _ in range(5))
