"""What is decided: k of n windows, cooldown, budget, rollback, and the history that all of it is counted from."""

import json
import sys

import pytest

from tests.conftest import COMPONENTS

sys.path += [str(COMPONENTS / name) for name in ("detect_drift", "compare_candidates", "trigger_retraining")]

import drift_history
import drift_policy
import drift_settings
import retraining_decision
from drift_signal import Effect, Signal

from slmkit import checked_files
from slmkit.errors import UserError

BASELINE, OTHER = "b" * 64, "c" * 64
BLUE = {"endpoint": "slm", "deployment": "blue", "model_sha256": "1" * 64}
GREEN = BLUE | {"deployment": "green"}


def signals(**verdicts):
    return [Signal(name, verdicts.get(name, "none"), (), ()) for name in drift_policy.SIGNALS]


def line(action="none", look=1, baseline_id=BASELINE, served=BLUE, window="w", **verdicts):
    return drift_history.Line(
        window=window,
        created_at="2026-11-22T00:00:00Z",
        baseline_id=baseline_id,
        look=look,
        signals=drift_history.findings(signals(**verdicts)),
        action=action,
        decision_id="d",
        **served,
    )


def decide(now, past=(), policy=None, served=BLUE, baseline=BLUE):
    return drift_policy.decide(policy or drift_settings.Policy(), now, list(past), BASELINE, baseline, served)


@pytest.mark.parametrize(
    ("before", "now", "action", "consecutive"),
    [
        ([], "drift", "none", 1),
        (["drift"], "drift", "retrain", 2),
        (["drift", "none"], "drift", "retrain", 1),  # 2 of the last 3
        (["drift", "none", "none"], "drift", "none", 1),  # the first one is out of the last 3
        (["drift", "drift"], "none", "none", 0),  # it has to drift now
        (["drift", "insufficient", "no_data"], "drift", "retrain", 2),  # windows without a verdict do not count
        (["drift", "none", "insufficient", "no_data", "none"], "drift", "none", 1),  # nor do they make room
        (["drift", "drift"], "insufficient", "none", 2),
    ],
)
def test_k_of_the_last_n_windows_with_a_verdict(before, now, action, consecutive):
    past = [line(look=look, llm_drift=verdict) for look, verdict in enumerate(before, 1)]
    decision = decide(signals(llm_drift=now), past)
    assert decision["action"] == action
    assert decision["consecutive"]["llm_drift"] == consecutive
    assert decision["caused_by"] == (["llm_drift"] if action == "retrain" else [])


def test_windows_of_another_baseline_do_not_count():
    past = [line(baseline_id=OTHER, llm_drift="drift"), line(look=0), line(look=1)]
    assert decide(signals(llm_drift="drift"), past)["action"] == "none"


def test_several_signals_at_once_take_the_strongest_action_and_all_are_said():
    past = [line(llm_drift="drift", service_drift="drift", input_drift="drift")]
    decision = decide(signals(llm_drift="drift", service_drift="drift", input_drift="drift"), past)
    assert (decision["action"], decision["caused_by"]) == ("retrain", ["llm_drift", "input_drift"])
    assert sum("in 2 of its last 2 windows" in reason for reason in decision["reasons"]) == 3
    assert decide(signals(service_drift="drift"), past)["action"] == "alert"


def test_an_action_of_the_policy_is_taken_at_its_own_count():
    policy = drift_settings.Policy.model_validate({"llm_drift": {"action": "alert", "num_drift_windows": 1}})
    assert decide(signals(llm_drift="drift"), policy=policy)["action"] == "alert"
    policy = drift_settings.Policy.model_validate({"llm_drift": {"action": "none", "num_drift_windows": 1}})
    assert decide(signals(llm_drift="drift"), policy=policy)["action"] == "none"


@pytest.mark.parametrize(("quiet", "action"), [(0, "none"), (2, "none"), (3, "retrain")])
def test_no_retraining_within_the_cooldown_even_against_a_new_baseline(quiet, action):
    """The cooldown of 3 windows: the retraining was decided 1, 3 and 4 windows ago."""
    past = [line("retrain", baseline_id=OTHER, look=1)]
    past += [line(look=look, llm_drift="drift") for look in range(1, quiet + 1)]
    policy = drift_settings.Policy.model_validate({"llm_drift": {"num_drift_windows": 1}})
    decision = decide(signals(llm_drift="drift"), past, policy)
    assert decision["action"] == action
    assert any("waits for 3 windows" in reason for reason in decision["reasons"]) == (action == "none")


@pytest.mark.parametrize(("num_windows", "action", "left"), [(12, "alert", 0), (8, "retrain", 0)])
def test_a_budget_that_is_used_up_is_an_alert_that_says_so(num_windows, action, left):
    """Retrainings 11 and 6 windows ago: both are in the last 12, one is in the last 8."""
    actions = ["retrain", "none", "none", "none", "none", "retrain", "none", "none", "none", "none", "none"]
    past = [line(action, look=look, llm_drift="drift") for look, action in enumerate(actions, 1)]
    budget = {"retrain_budget": {"num_retrains": 2, "num_windows": num_windows}}
    decision = decide(signals(llm_drift="drift"), past, drift_settings.Policy.model_validate(budget))
    assert (decision["action"], decision["budget"]) == (action, {"retrains_left": left})
    assert any("is used up" in reason for reason in decision["reasons"]) == (action == "alert")


def fallen(change, high):
    effect = Effect("accuracy", 0.9, 0.9 + change, change, 2 * change - high, high, 0.001, 100, 100, drift=True)
    return [Signal("llm_drift", "drift", (effect,), ("Accuracy fell.",)), *signals()[1:]]


@pytest.mark.parametrize(
    ("before", "now", "change", "high", "action"),
    [
        ([BLUE], GREEN, -0.2, -0.1, "rollback"),
        ([], GREEN, -0.2, -0.1, "rollback"),  # without a history the baseline says who answered before
        ([BLUE, GREEN], GREEN, -0.2, -0.1, "none"),  # the second window of green
        ([BLUE], BLUE, -0.2, -0.1, "none"),
        ([BLUE, GREEN], BLUE, -0.2, -0.1, "none"),  # rolled back: green is no better
        ([BLUE, GREEN], BLUE | {"model_sha256": None}, -0.2, -0.1, "rollback"),  # it may be a third one
        ([BLUE], GREEN, -0.05, -0.01, "none"),  # five points are not ten
        ([BLUE], GREEN, -0.2, 0.01, "none"),  # the interval holds no change
        ([BLUE | {"deployment": None}], GREEN, -0.2, -0.1, "none"),  # who answered before is not known
        ([BLUE], BLUE | {"model_sha256": "2" * 64}, -0.2, -0.1, "rollback"),
    ],
)
def test_a_fall_right_after_a_rollout_is_rolled_back(before, now, change, high, action):
    past = [line(look=look, served=served) for look, served in enumerate(before, 1)]
    decision = decide(fallen(change, high), past, served=now)
    assert decision["action"] == action
    if action == "rollback":
        assert "20.0 points below the baseline's in the first window" in decision["reasons"][0]


def test_a_rollback_goes_before_a_retraining_and_costs_none():
    decision = decide(fallen(-0.2, -0.1), [line(llm_drift="drift")], served=GREEN)
    assert (decision["action"], decision["budget"]) == ("rollback", {"retrains_left": 2})
    policy = drift_settings.Policy(rollback=None)
    assert decide(fallen(-0.2, -0.1), [line(llm_drift="drift")], policy, GREEN)["action"] == "retrain"


def test_a_signal_that_has_gone_blind_is_an_alert():
    past = [line(look=1), line(look=2, llm_drift="insufficient"), line(look=3, llm_drift="insufficient")]
    decision = decide(signals(llm_drift="insufficient"), past)
    assert (decision["action"], decision["caused_by"]) == ("alert", ["llm_drift"])
    assert decide(signals(llm_drift="insufficient"), past[:2])["action"] == "none"
    collector_died = [line(look=1), line(look=2, input_drift="insufficient"), line(look=3, input_drift="no_data")]
    assert decide(signals(input_drift="no_data"), collector_died)["caused_by"] == ["input_drift"]
    never_judged = [line(look=look, llm_drift="insufficient") for look in (1, 2, 3)]
    assert decide(signals(llm_drift="insufficient"), never_judged)["action"] == "none"


def test_no_data_is_never_said_to_be_no_drift():
    decision = decide(signals(**dict.fromkeys(drift_policy.SIGNALS, "no_data")))
    assert decision["action"] == "none"
    assert decision["reasons"] == ["Nothing could be judged in this window; that is not the same as no drift."]
    decision = decide(signals(llm_drift="insufficient"))
    assert decision["reasons"][-1] == "Not judged: LLM drift."
    assert "LLM" not in decision["reasons"][0]


def test_the_id_of_a_decision_is_the_hash_of_its_content(tmp_path):
    decision = drift_policy.identified({**decide(signals(), served=BLUE | {"deployment": "青"}), "window": "週 1"})
    content = {name: value for name, value in reversed(decision.items()) if name != "decision_id"}
    assert drift_policy.identified(content)["decision_id"] == decision["decision_id"]
    assert drift_policy.identified(content | {"window": "週 2"})["decision_id"] != decision["decision_id"]
    (tmp_path / "decision").write_text(json.dumps(decision), encoding="utf-8")
    assert retraining_decision.read(tmp_path / "decision").action == "none"


def test_the_default_policy_file_says_the_defaults_and_all_of_them():
    path = COMPONENTS / "detect_drift" / "policy.yml"
    assert checked_files.load(path, drift_settings.Policy) == drift_settings.Policy()
    assert checked_files.parsed_yaml(path.read_text("utf-8")) == drift_settings.Policy().model_dump(mode="json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cooldown_windows: 3\nllm_drift:\n  treshold: 1\n", ":3: unknown key 'llm_drift.treshold'; known keys: "),
        ("retrain_budget:\n  num_retrains: -1\n", ":2: retrain_budget.num_retrains: "),
        ("llm_drift: {num_drift_windows: 4, num_windows: 3}\n", "it could never act"),
        ("service_drift: {action: rollback}\n", "service_drift.action"),
        ("llm_drift: {num_windows: .inf}\n", "num_windows"),
        ("[]\n", "the file"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_its_line(tmp_path, text, said):
    (tmp_path / "policy.yml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        checked_files.load(tmp_path / "policy.yml", drift_settings.Policy)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def written(tmp_path, lines):
    drift_history.write(tmp_path / "history", lines)
    return tmp_path / "history"


def test_a_history_comes_back_as_it_was_written(tmp_path):
    lines = [line(look=0, window="w0"), line(look=1, window="w1"), line(look=1, baseline_id=OTHER, window="w2")]
    lines.append(line(look=2, window="w3", llm_drift="drift"))
    assert drift_history.read(written(tmp_path, lines)) == lines
    assert drift_history.next_look(lines, BASELINE, "w4") == 3
    assert drift_history.next_look(lines, OTHER, "w4") == 2
    assert drift_history.next_look([], BASELINE, None) == 1
    for window in ("w3", "w0"):  # nor is the baseline's window compared with itself
        with pytest.raises(UserError, match=f"'{window}' is in the history already"):
            drift_history.next_look(lines, BASELINE, window)


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda rows: rows[1:], ":1: look 2 at the baseline bbbbbbbbbbbb stands first: lines are missing"),
        (lambda rows: [rows[0], *rows[2:]], ":2: look 3 at the baseline bbbbbbbbbbbb follows look 1"),
        (lambda rows: [*rows, rows[-1]], ":4: look 3 at the baseline bbbbbbbbbbbb follows look 3"),
        (lambda rows: [*rows[:-1], rows[-1][:40]], ":3: not JSON"),
        (lambda rows: [*rows, '{"id": "x"}'], ":4: no line of a history: window: Field required"),
        (lambda rows: [rows[0].replace('"none"', '"never"', 1)], ":1: no line of a history: signals.llm_drift.verdict"),
    ],
)
def test_a_history_that_was_cut_is_refused(tmp_path, cut, said):
    path = written(tmp_path, [line(look=look) for look in (1, 2, 3)])
    path.write_text("\n".join(cut(path.read_text("utf-8").splitlines())), encoding="utf-8")
    with pytest.raises(UserError) as error:
        drift_history.read(path)
    assert said in str(error.value)


def test_a_history_without_a_line_is_refused(tmp_path):
    with pytest.raises(UserError, match="a history without a line"):
        drift_history.read(written(tmp_path, []))


def test_a_baseline_is_made_once():
    assert drift_history.first_look([line(look=0, baseline_id=OTHER)], BASELINE) == 0
    with pytest.raises(UserError, match="bbbbbbbbbbbb is in the history already"):
        drift_history.first_look([line(look=0), line(look=1)], BASELINE)


@pytest.mark.parametrize(
    ("before", "now", "refused"),
    [
        ("slm", "other", True),
        ("slm", "slm", False),
        ("slm", None, False),
        (None, "slm", False),
        ("http://127.0.0.1:1/v1", "slm", False),
    ],
)
def test_the_history_of_another_endpoint_is_refused(before, now, refused):
    past = [line(served=BLUE | {"endpoint": before}), line(look=2, served=BLUE | {"endpoint": None})]
    if not refused:
        drift_history.check_endpoint(past, now, None)
        return
    with pytest.raises(UserError, match="of the endpoint slm, this window of other"):
        drift_history.check_endpoint(past, now, None)


def test_the_history_of_another_adapter_is_refused():
    past = [line(served=BLUE | {"model": "store"}), line(look=2)]
    drift_history.check_endpoint(past, "slm", "store")
    with pytest.raises(UserError, match="of the model store, this window of billing; give the history of this model"):
        drift_history.check_endpoint(past, "slm", "billing")


@pytest.mark.parametrize(
    ("start", "overlaps"),
    [
        ("2026-11-21T23:00:00.5Z", True),
        ("2026-11-22T08:00:00+09:00", True),
        ("2026-11-22T00:00:00Z", False),
        ("2026-11-22T00:00:00", False),
        (None, False),
    ],
)
def test_a_window_that_begins_within_the_last_one_is_noted(start, overlaps):
    assert len(drift_history.overlap([line()], {"start": start})) == overlaps
    assert drift_history.overlap([], {"start": start}) == drift_history.overlap([line()], {}) == []


def test_a_headline_stands_where_the_value_does():
    difference = Effect("accuracy", 0.9, 0.8, -0.1, -0.15, -0.05, drift=True)
    ratio = Effect("characters_ratio", 40.0, 80.0, 2.0, 1.5, 2.5)
    by_slice = Effect("accuracy", 0.9, 0.5, -0.4, -0.5, -0.3, slice="language=ja")
    found = drift_history.headline([difference, by_slice, ratio])
    assert list(found) == ["accuracy", "characters_ratio", "accuracy language=ja"]
    assert found["accuracy"].low == pytest.approx(0.75)
    assert found["accuracy"].high == pytest.approx(0.85)
    assert (found["characters_ratio"].low, found["characters_ratio"].high) == (60.0, 100.0)
    assert json.loads(found["accuracy"].model_dump_json())["drift"] is True
