"""The report of detect_drift: what a person sees first, time lines, and answers that would like to be markup."""

import dataclasses
import html
import re
import sys
from html.parser import HTMLParser

import pytest

from tests.conftest import COMPONENTS

sys.path += [str(COMPONENTS / name) for name in ("detect_drift", "compare_candidates", "score_answers")]

import changed_canaries
import drift_figures
import drift_history
import drift_policy
import drift_report
import drift_settings
import drift_timelines
from drift_signal import Effect, Signal
from drift_snapshot import Canary, Snapshot

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}\u202e"
SERVED = {"endpoint": HOSTILE, "deployment": "blue", "model_sha256": "1" * 64}
ACCURACY = Effect("accuracy", 0.9, 0.6, -0.3, -0.4, -0.2, 0.0001, 50, 50, drift=True)


def canary(number, output, score, **more):
    slices = {"language": more.pop("language", "en"), "topic": more.pop("topic", "halls")}
    question = more.pop("question", f"context\n\nquestion {number}")
    return Canary(f"c{number}", f"c{number}", None, 0, "k", slices, output, score, False, ["right"], question, **more)


def snapshot(canaries, window="week 0", traffic=()):
    return Snapshot(
        {
            **SERVED,
            "created_at": "2026-11-22T00:00:00Z",
            "window": {"name": window, "start": None, "end": None},
            "model": HOSTILE,
        },
        canaries,
        list(traffic),
    )


def history(values, drifts=(), baselines=None, deployments=None):
    """A line a value of the accuracy; None where it was not judged."""
    lines = []
    for number, value in enumerate(values):
        verdict = "insufficient" if value is None else "drift" if number in drifts else "none"
        effects = () if value is None else (dataclasses.replace(ACCURACY, current=value, change=value - 0.9),)
        found = [Signal(name, "no_data", (), ()) for name in drift_policy.SIGNALS[1:]]
        lines.append(
            drift_history.Line(
                window=f"week {number}",
                created_at="2026-11-22T00:00:00Z",
                baseline_id=baselines[number] if baselines else "b",
                look=number + 1,
                signals=drift_history.findings([Signal("llm_drift", verdict, effects, ()), *found]),
                action="none",
                decision_id="d",
                **SERVED | {"deployment": deployments[number] if deployments else "blue"},
            )
        )
    return lines


def rendered(signal=None, action="retrain", reasons=("It drifts.",), before=None, after=None, lines=None, **more):
    found = [Signal(name, "none", (), ("Quiet.",)) for name in drift_policy.SIGNALS]
    if signal:
        found = [signal if one.name == signal.name else one for one in found]
    before = before or snapshot([canary(1, "right", 1.0)], HOSTILE)
    after = after or snapshot([canary(1, "wrong", 0.0)], HOSTILE)
    decision = {
        "decision_id": "d" * 64,
        "action": action,
        "reasons": list(reasons),
        "caused_by": [] if action == "none" else ["llm_drift", "input_drift"],
        "signals": {one.name: one.verdict for one in found},
        "budget": {"retrains_left": 1},
        "policy_sha256": "p" * 64,
        "deployment": HOSTILE,
        "look": 3,
    }
    drift = {"notes": [HOSTILE], "num_canaries": 1, "num_traffic": 0, "look": 3, "baseline_id": "b", "metric": HOSTILE}
    lines = lines or history([0.9, 0.6], drifts=[1])
    return drift_report.render(drift, decision | more, found, lines, before, after, drift_settings.Policy())


class Page(HTMLParser):
    """Its tags with their attributes, its text, and that each tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def test_the_decision_stands_on_top_with_its_reasons():
    page = Page(rendered(Signal("llm_drift", "drift", (ACCURACY,), ("Accuracy fell.",)), reasons=["First.", "Second."]))
    assert page.open == []
    text = " ".join(page.text.split())
    order = ["Retrain the model: LLM drift and input drift", "First. Second.", "LLM drift 60.0 %", "was 90.0 %"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "1 retraining left" in text


def test_nothing_in_the_page_runs_or_is_fetched():
    hostile = Signal("llm_drift", "drift", (dataclasses.replace(ACCURACY, slice=HOSTILE), ACCURACY), (HOSTILE, HOSTILE))
    now = canary(1, HOSTILE, 0.0, question=HOSTILE, language=HOSTILE, topic=HOSTILE)
    was = dataclasses.replace(now, output=HOSTILE, score=1.0)
    asked = [
        [{"messages": [{"role": "user", "content": f"{text} {i}"}]} for i in range(30)] for text in (HOSTILE, "new")
    ]
    lines = [line.model_copy(update={"window": HOSTILE, "deployment": HOSTILE}) for line in history([0.9, 0.6])]
    page = rendered(
        hostile,
        reasons=[HOSTILE],
        before=snapshot([was], HOSTILE, asked[0]),
        after=snapshot([now], HOSTILE, asked[1]),
        lines=lines,
    )
    parsed = Page(page)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "img", "link", "iframe", "object", "embed", "base"})
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on") or name == "src"]
    assert all(attributes["href"].startswith("#") for _, attributes in parsed.tags if "href" in attributes)
    assert "url(" not in page and "@import" not in page
    assert parsed.text.count(HOSTILE) > 5
    assert "{{ 7*7 }}" in page


@pytest.mark.parametrize(
    ("action", "signals", "look", "headline"),
    [
        ("rollback", {}, 3, "Roll back the last deployment: LLM drift and input drift after the rollout of blue"),
        ("none", {"llm_drift": "none", "input_drift": "no_data"}, 3, "No drift: nothing to do"),
        ("none", {"llm_drift": "insufficient", "input_drift": "no_data"}, 3, "Nothing could be judged in this window"),
        ("none", {"llm_drift": "drift", "input_drift": "none"}, 3, "Drift is seen, and nothing is done yet"),
        ("none", {"llm_drift": "no_data"}, 0, "The baseline is set: later windows are compared with this one"),
    ],
)
def test_the_headline_tells_quiet_from_blind(action, signals, look, headline):
    caused_by = ["llm_drift", "input_drift"] if action != "none" else []
    decision = {"action": action, "signals": signals, "look": look, "caused_by": caused_by, "deployment": "blue"}
    assert drift_report.headline(decision) == headline


def test_japanese_and_korean_stand_as_they_are():
    was = canary(1, "二百席です", 1.0, question="座席数を教えてください。", language="ja")
    now = canary(1, "좌석이 없습니다", 0.0, question="座席数を教えてください。", language="ja")
    signal = Signal("llm_drift", "drift", (ACCURACY,), ("Accuracy fell.",))
    page = rendered(signal, before=snapshot([was]), after=snapshot([now]))
    assert all(text in page for text in ("座席数を教えてください。", "二百席です", "좌석이 없습니다", 'lang="ja"'))


def test_examples_are_of_what_got_worse_the_languages_in_turn():
    before = [canary(i, "right", 1.0, language="en" if i < 3 else "ko") for i in range(5)]
    before.append(canary(5, "wrong", 0.0))
    after = [dataclasses.replace(one, output="wrong", score=0.0) for one in before[:-1]]
    after.append(dataclasses.replace(before[-1], output="right", score=1.0))
    after[0] = dataclasses.replace(after[0], failed=True)  # says less than an answer
    found = changed_canaries.changed_canaries(snapshot(before), snapshot(after))
    assert (found["num_canaries"], found["num_worse"], found["num_better"]) == (6, 5, 1)
    assert [one["answers"][0][1].id for one in found["examples"]] == ["c1", "c3", "c2", "c4", "c0"]
    assert (found["examples"][0]["context"], found["examples"][0]["question"]) == ("context", "question 1")


def test_a_time_line_breaks_where_nothing_was_judged_and_at_a_new_baseline():
    lines = history([0.9, 0.8, None, 0.7, 0.6], drifts=[3, 4], baselines="bbbbc")
    (chart,) = drift_timelines.charts(lines, "llm_drift")
    assert chart.title == "Accuracy"
    assert [len(points.split()) for points in chart.lines] == [2, 1, 1]
    assert len(chart.points) == 4
    heights = [point["y"] for point in chart.points]
    assert heights == sorted(heights), "a lower accuracy stands lower"
    assert all(chart.top <= y <= chart.bottom for y in heights)
    xs = [point["x"] for point in chart.points]
    assert xs[1] - xs[0] == pytest.approx((xs[2] - xs[1]) / 2), "the window without a verdict keeps its place"
    assert drift_timelines.grid(lines)["rows"]["llm_drift"] == ["none", "none", "insufficient", "drift", "drift"]


def test_rollouts_and_new_baselines_are_marked():
    lines = history([0.9, 0.8, 0.7], deployments=["blue", "green", "green"], baselines="bbc")
    assert drift_timelines.marks(lines) == {1: "rollout of green", 2: "new baseline"}
    page = rendered(lines=lines)
    assert page.count('<line class="event"') == 2
    assert "rollout of green" in page


def test_long_histories_show_their_end():
    lines = history([0.9] * 100, drifts=[99])
    (chart,) = drift_timelines.charts(lines, "llm_drift")
    assert len(chart.points) == drift_timelines.MAX_WINDOWS
    assert chart.names[0][2] == "week 60"
    assert chart.names[-1][2] == "week 99"
    assert ("div", {"class": "scroll latest"}) in Page(rendered(lines=lines)).tags  # opens where the last windows are


@pytest.mark.parametrize(
    ("effect", "now", "change", "span"),
    [
        (ACCURACY, "60.0 %", "−30.0", "−40.0 to −20.0"),
        (Effect("characters_ratio", 40.0, 80.0, 2.0, 1.5, 2.5), "80", "× 2.00", "× 1.50 to × 2.50"),
        (Effect("latency_p95_milliseconds", 100.0, 1500.0, 15.0, 14, 16), "1,500 ms", "× 15.00", "× 14.00 to × 16.00"),
        (Effect("classifier_auc", 0.5, 0.72, 0.22, 0.2, 0.24), "0.72", "+0.22", "+0.2 to +0.24"),
        (Effect("null_alarm_rate", None, 0.02, None, 0.01, 0.03), "2.0 %", "", ""),
        (Effect("answers_changed", None, None, None, None, None), "–", "", ""),
    ],
)
def test_numbers_are_written_in_their_unit(effect, now, change, span):
    assert drift_figures.value(effect.current, effect.name).replace("\N{NO-BREAK SPACE}", " ") == now
    assert (drift_figures.change(effect), drift_figures.span(effect)) == (change, span)


def test_a_change_by_a_ratio_stands_as_far_up_as_its_inverse_down():
    axis = drift_figures.Axis([Effect("characters_ratio", 40.0, 80.0, 2.0, 1.5, 4.0)])
    ends = [float(axis(ratio).rstrip("%")) for ratio in (0.25, 1.0, 4.0)]
    assert ends[1] == 50
    assert ends[2] - 50 == pytest.approx(50 - ends[0], abs=0.02)


def test_one_slice_is_one():
    found = Signal("llm_drift", "none", (ACCURACY, dataclasses.replace(ACCURACY, slice="language=ja")), ("Quiet.",))
    assert "<summary>1 slice</summary>" in rendered(found, action="none")


def test_long_outputs_are_cut():
    signal = Signal("llm_drift", "drift", (ACCURACY,), ("Accuracy fell.",))
    page = rendered(signal, after=snapshot([canary(1, "&" * 100_000, 0.0)]))
    shown = max(re.findall(r"(?:&amp;)+", page), key=len)
    assert len(html.unescape(shown)) == drift_report.MAX_CHARACTERS
