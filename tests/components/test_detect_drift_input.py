"""Input drift: what is found, what is left alone, and the measures against hand-worked values and other libraries."""

import json
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel

COMPONENTS = Path(__file__).resolve().parents[2] / "components"
for folder in ("detect_drift", "compare_candidates"):
    if str(COMPONENTS / folder) not in sys.path:
        sys.path.append(str(COMPONENTS / folder))

import input_drift  # noqa: E402
import mix_change  # noqa: E402
import null_windows  # noqa: E402
import telling_terms  # noqa: E402
import text_change  # noqa: E402
import traffic_conversations  # noqa: E402
import traffic_window  # noqa: E402
from drift_settings import InputDriftSettings  # noqa: E402

from slmkit.errors import UserError  # noqa: E402

SETTINGS = InputDriftSettings()
TEMPLATES = {
    "en": ["Is the {} in stock in {}?", "How much is a {} in {}, please?", "When does the {} counter in {} open?"],
    "ja": ["{}は{}に在庫がありますか。", "{}の値段を{}で教えてください。", "{}の窓口は{}で何時に開きますか。"],
    "ko": ["{} 재고가 {}에 있나요?", "{} 가격이 {}에서 얼마인가요?", "{} 창구는 {}에서 언제 여나요?"],
}
NEW = {"en": "Cancel membership card {} of {} now", "ja": "会員カード{}を{}で解約", "ko": "멤버십 카드 {} {} 해지"}


def request(*said, language="en", minute=0, tokens=20):
    """A chat of which the user says every other message."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    stamp = (datetime(2026, 11, 22) + timedelta(minutes=minute)).isoformat() + "Z"
    return {"messages": messages, "language": language, "timestamp": stamp, "prompt_tokens": tokens}


def window(seed, num, new=0.0, languages=(0.4, 0.3, 0.3), longer=1.0):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num):
        language = str(rng.choice(["en", "ja", "ko"], p=languages))
        template = NEW[language] if rng.random() < new else TEMPLATES[language][rng.integers(3)]
        text = template.format(f"A{rng.integers(40)}", f"B{rng.integers(40)}")
        rows.append(request(text, language=language, minute=i, tokens=int(rng.lognormal(3, 0.4) * longer)))
    return rows


def drifted(signal):
    return {effect.name for effect in signal.effects if effect.drift}


def test_new_questions_are_seen_and_named():
    signal = input_drift.input_drift(window(1, 300), window(2, 300, new=0.5), SETTINGS, seed=0)
    assert signal.verdict == "drift" and {"classifier_auc", "text_mmd"} <= drifted(signal)
    auc = next(effect for effect in signal.effects if effect.name == "classifier_auc")
    # Half of the window is never asked in the baseline: 1/2 + 1/2 * 1/2 for a perfect classifier.
    assert auc.baseline == 0.5 and auc.current == pytest.approx(0.75, abs=0.06)
    assert auc.low < auc.change < auc.high and auc.current == pytest.approx(0.5 + auc.change)
    assert all(f"{word} (0% -> " in auc.detail for word in ("membership", "カード", "멤버십"))
    assert "cancel" not in auc.detail  # it always comes with membership
    assert any("Cancel membership card" in reason or "解約" in reason for reason in signal.reasons)
    json.dumps([vars(effect) for effect in signal.effects], allow_nan=False)


def test_length_and_language_are_seen_on_their_own():
    longer = input_drift.input_drift(window(1, 400), window(2, 400, longer=1.6), SETTINGS, seed=0)
    assert drifted(longer) == {"length_psi"} and "tokens" in longer.reasons[0]
    moved = input_drift.input_drift(window(1, 400), window(2, 400, languages=(0.1, 0.3, 0.6)), SETTINGS, seed=0)
    assert "language_distance" in drifted(moved)
    said = next(reason for reason in moved.reasons if reason.startswith("The mix of languages has changed: "))
    assert re.search(r"\ben (3|4)\d% -> 1?\d%", said), said


def test_quiet_without_drift_also_where_hours_differ():
    """Each hour of either window asks in a language of its own: by single conversations that would be drift."""

    def hourly(seed):
        rng = np.random.default_rng(seed)
        hours = [np.eye(3)[rng.integers(3)] for _ in range(10)]
        rows = [row for i, hour in enumerate(hours) for row in window((seed, i), 30, languages=hour)]
        return [row | {"timestamp": f"2026-11-22T{i // 60:02}:{i % 60:02}"} for i, row in enumerate(rows)]

    alarms, plain = [], []
    for seed in range(3):
        signal = input_drift.input_drift(hourly(100 + seed), hourly(200 + seed), SETTINGS, seed=seed)
        alarms.append(signal.verdict)
        plain.append(signal.effects[-1].current)
    assert alarms == ["none"] * 3
    assert min(plain) > 0.2 and "is judged by that" in signal.reasons[-1]
    steady = input_drift.input_drift(window(1, 300), window(2, 300), SETTINGS, seed=0)
    assert steady.verdict == "none" and not drifted(steady)
    assert steady.effects[-1].name == "null_alarm_rate" and steady.effects[-1].current < 0.06


def test_repeats_are_no_evidence():
    usual = window(1, 300)
    bot = request("Cancel membership card 7 of B1 now", minute=3)
    flooded = input_drift.input_drift(usual, window(2, 250) + [bot] * 500, SETTINGS, seed=0)
    assert flooded.verdict == "none"
    only = input_drift.input_drift(usual, [bot] * 500, SETTINGS, seed=0)
    assert only.verdict == "insufficient" and "repeat as few as 1 conversations" in only.reasons[0]


def test_a_conversation_counts_once():
    rows = [
        request("Hello"),
        request("hello ", "Hi!", "Where is B1?"),
        request("ＨＥＬＬＯ", "Hi!", "where  is b1?", "There.", "Thanks"),
        request("Hello", "Hi!", "Where is B2?"),
        request("Open today?"),
    ]
    found = traffic_conversations.distinct(rows, [request("OPEN today?"), request("New")], 5, seed=0)
    said = {traffic_conversations.question(row): label for row, label in zip(found.rows, found.labels, strict=True)}
    assert said.pop("Open today?") == 0 and said.pop("New") == 1 and said.pop("Where is B2?") == -1
    assert list(said.values()) == [-1] and said.keys() <= {"Where is B1?", "where  is b1?", "Thanks"}
    assert (found.num_baseline, found.num_current) == (3, 2)


def test_what_is_asked_in_both_windows_stays_at_its_time_in_the_baseline():
    baseline = [request(f"Question {i}", minute=i) for i in range(40)]
    current = [request(f"Question {i}", minute=700) for i in range(40)]
    rows = traffic_conversations.distinct(baseline, current, 40, seed=0).rows
    assert {row["timestamp"] for row in rows} == {row["timestamp"] for row in baseline}


def test_a_change_of_how_often_the_same_is_asked_is_owned_to_be_unseen():
    faq = [request(f"Question {i}", minute=i) for i in range(160)]
    signal = input_drift.input_drift(faq[:80] * 2, faq[:80] + faq[40:80] * 2, SETTINGS, seed=0)
    assert signal.verdict == "none" and "80 of 80 different conversations" in signal.reasons[-1]
    signal = input_drift.input_drift(faq, faq[100:] + window(3, 100), SETTINGS, seed=0)
    assert not any("different conversations" in reason for reason in signal.reasons)


def test_half_a_day_against_a_week_of_restless_hours():
    """Few hours do not even out, and what they differ by is judged as that of few; of steady ones nothing changes."""

    def hours(seed, num, an_hour, mixes):
        rng = np.random.default_rng(seed)
        drawn = [rng.choice(["en", "ja", "ko"], size=an_hour, p=mix) for mix in mixes(rng, num)]
        asked = [(hour, str(language)) for hour, languages in enumerate(drawn) for language in languages]
        return [request(f"{rng.integers(1 << 60)}", language=language, minute=hour) for hour, language in asked]

    def scales(mixes):
        week, half_day = hours(0, 168, 5, mixes), hours(1, 12, 70, mixes)
        length = null_windows.relative_length(week, half_day)
        assert length == pytest.approx(11 / 167)
        them = traffic_conversations.distinct(week, half_day, len(half_day), 0)
        found = (input_drift._of_languages(them, SETTINGS, of, 0) for of in (1.0, length))
        return [one.null_values.scale() for one in found]

    equal, shorter = scales(lambda rng, num: rng.dirichlet((0.5, 0.3, 0.2), num))
    assert equal == pytest.approx(0.5**0.5) and shorter > 1.2
    equal, shorter = scales(lambda rng, num: np.full((num, 3), 1 / 3))
    assert equal == pytest.approx(0.5**0.5) and shorter < 1.1


@pytest.mark.parametrize(
    ("baseline", "current", "verdict"),
    [
        ([], window(1, 200), "no_data"),
        (window(1, 200), [], "no_data"),
        (window(1, 149), window(2, 200), "insufficient"),
        ([request("the same")] * 300, [request("the same")] * 300, "insufficient"),
        (window(1, 200), window(1, 200), "none"),  # the very same conversations
        (
            [request("!" * (i + 1), language=None) for i in range(160)],
            [request("?" * (i + 1), language=None) for i in range(160)],
            "drift",
        ),
    ],
)
def test_verdicts_of_unusual_windows(baseline, current, verdict):
    signal = input_drift.input_drift(baseline, current, SETTINGS, seed=0)
    assert signal.verdict == verdict and signal.reasons
    assert all(np.isfinite(v) for e in signal.effects for v in vars(e).values() if isinstance(v, float))


@pytest.mark.parametrize(
    ("name", "value"), [("timestamp", "now"), ("timestamp", 3), ("latency_ms", 10**400), ("prompt_tokens", -1)]
)
def test_what_is_no_time_and_no_number_of_this_world_is_named(tmp_path, name, value):
    row = {"id": "a", "status": 200} | request("Hello") | {name: value}
    (tmp_path / "traffic.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=f"traffic.jsonl:1: '{name}' is .* and not a"):
        traffic_window.read(tmp_path / "traffic.jsonl", None)


def test_same_seed_same_signal():
    baseline, current = window(1, 150), window(2, 150, new=0.3)
    first = input_drift.input_drift(baseline, current, SETTINGS, seed=5)
    assert first == input_drift.input_drift(baseline, current, SETTINGS, seed=5)


def test_many_rows_alarm_at_a_large_change_only():
    """The significance of 1 % is beyond doubt, its size is not: with the least changes at 0 the same is drift."""
    baseline, current = window(1, 6000), window(2, 6000, languages=(0.36, 0.32, 0.32))
    settings = SETTINGS.model_copy(update={"max_num_rows": 150})
    assert input_drift.input_drift(baseline, current, settings, seed=0).verdict == "none"
    strict = settings.model_copy(update={"min_language_distance": 0.0})
    assert "language_distance" in drifted(input_drift.input_drift(baseline, current, strict, seed=0))


def test_auc_is_sklearns_and_counts_a_shared_text_on_both_sides():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, size=(60, 3)).astype(np.int8)
    scores = rng.normal(size=(60, 3))
    found = text_change.aucs(scores, labels)
    for column in range(3):
        before, now = (scores[sides, column] for sides in (labels[:, column] <= 0, labels[:, column] >= 0))
        truth = np.repeat([0, 1], [len(before), len(now)])
        assert found[column] == pytest.approx(roc_auc_score(truth, np.concatenate([before, now])))
    # By hand: of 0 1 | 1 2 the pairs are <, <, =, <: placements of now are 3/4 and 1, of before 1 and 3/4.
    error = text_change.auc_error(np.array([0.0, 1, 1, 2]), np.array([-1, -1, 1, 1]))
    assert error == pytest.approx(np.sqrt(2 * (0.25**2 / 2) / 2))


def test_mmd_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(40, 4)), np.repeat([-1, 1], [25, 15]).astype(np.int8)
    similarities = text_change.kernel(points)
    k = rbf_kernel(points, gamma=1 / np.median(((points[:, None] - points[None]) ** 2).sum(-1)))
    assert similarities == pytest.approx(k, abs=1e-5)
    a, b, across = k[:25, :25], k[25:, 25:], k[:25, 25:].mean()
    unbiased = (a.sum() - 25) / (25 * 24) + (b.sum() - 15) / (15 * 14) - 2 * across
    assert text_change.discrepancies(similarities, labels[:, None])[0] == pytest.approx(
        unbiased / (2 - 2 * across), abs=1e-6
    )


def test_psi_and_language_distance():
    before, now = np.array([49.5, 49.5]), np.array([74.5, 24.5])
    # Half a count is added to each: shares 1/2 and 1/2, then 3/4 and 1/4.
    assert mix_change.psi(before, now) == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5))
    p, q = np.array([5, 3, 0, 2]), np.array([1, 3, 4, 0])
    assert mix_change.js_distance(p, q) == pytest.approx(jensenshannon(p, q, base=2))
    assert np.bincount(mix_change.deciles(np.arange(1000))).tolist() == [100] * 10
    assert mix_change.deciles(np.full(9, 3.0)).tolist() == [0] * 9


def test_null_windows():
    rng = np.random.default_rng(0)
    labels = np.array([-1, -1, 1, 0], dtype=np.int8)
    columns = null_windows.permuted(labels, rng)
    assert (columns[3] == 0).all() and (np.sort(columns[:3], axis=0).T == [-1, -1, 1]).all()
    assert columns[:3].mean() == pytest.approx(-1 / 3) and abs((columns[0] == 1).mean() - 1 / 3) < 0.06
    assert null_windows.block_of([None, *"7654321"]).tolist() == [0, 17, 15, 12, 10, 7, 5, 2]
    assert (null_windows.half_of_blocks(rng).sum(axis=0) == 0).all()
    null = null_windows.NullValues(np.arange(99.0), np.arange(99.0), np.arange(99.0), power=1)
    assert null.p_value(97.0) == 0.03  # 97 and 98, and the window itself
    assert null_windows.NullValues(np.zeros(99), np.arange(99.0), np.zeros(99), 1).p_value(48.5) == 0.03
    # Halves twice as far apart as chance has them: 1/2 of that, and 1/4 * (1 + 4) of what blocks add.
    restless = null_windows.NullValues(np.zeros(9), np.full(9, 4.0), np.full(9, 2.0), power=1, length=0.25)
    assert restless.scale() == pytest.approx(0.5 * 0.5 + 1.25 * 0.5)
    assert null_windows.relative_length([request("")], [request("")]) == 1


def test_terms_in_three_languages():
    texts = ["払い戻しをカードで"] * 30 + ["refund to my card"] * 30 + ["환불해 주세요"] * 30 + ["opening hours"] * 90
    more, less = telling_terms.telling_terms(texts, [1] * 90 + [-1] * 90)
    assert [str(term) for term in less] == ["opening (100% -> 0%)"]
    assert [str(term) for term in more] == ["refund (0% -> 33%)", "カード (0% -> 33%)", "주세요 (0% -> 33%)"]
    assert telling_terms.telling_terms(["a word"] * 9, [-1, 1, 0] * 3) == ([], [])
