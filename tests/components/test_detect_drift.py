"""The whole step on small windows: baseline, verdicts, decision, history and snapshot; and what it refuses."""

import dataclasses
import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from slmkit import lineage
from slmkit.errors import UserError
from tests.conftest import COMPONENTS

INCLUDED = [str(COMPONENTS / name) for name in ("compare_candidates", "score_answers")]
CANARY_FILES = ("canary_items", "predictions", "scores", "window", "endpoint")
FILES = ("canary_items", "predictions", "scores", "traffic", "window", "endpoint")
NUM_CANARIES, NUM_REQUESTS = 40, 160
SERVED = {
    "name": "slm",
    "scoring_uri": "http://127.0.0.1:8080/v1/chat/completions",
    "deployment": "blue",
    "model_sha256": "1" * 64,
}

GREEN = {"model_sha256": "2" * 64, "deployment": "green"}


def write(path: Path, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows) if isinstance(rows, dict) else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def write_window(folder: Path, number: int, *, wrong=0, failed=0, throttled=0, served=SERVED) -> Path:
    """A window in which the first canaries fail, the next are answered wrongly, and some requests are throttled."""
    rng = random.Random(number)
    items = [
        {
            "id": f"c{i}",
            "messages": [{"role": "user", "content": f"Seats of hall {i}?"}],
            "references": [str(i)],
            "slices": {"language": "ja" if i % 2 else "en"},
        }
        for i in range(NUM_CANARIES)
    ]
    predictions, scores = [], []
    for i, item in enumerate(items):
        right = i >= failed + wrong
        answer = {"output": str(i) if right else "unknown"} if i >= failed else {"output": "", "error": "HTTP 429"}
        asked = {"id": item["id"], "candidate": "live", "endpoint": served["scoring_uri"]}
        predictions.append(asked | answer | {"deployment": served["deployment"], "prompt_tokens": 9})
        scores.append({"id": item["id"], "candidate": "live", "exact_match": float(right), "failed": int(i < failed)})
    traffic = [
        {
            "id": f"{number}-{i}",
            "timestamp": f"2026-11-{number + 1:02d}T{i // 7:02d}:00:00Z",
            "messages": [{"role": "user", "content": f"{rng.choice(['When', 'Where', 'Who'])} is {rng.random()}?"}],
            "output": None if i < throttled else "yes",
            "status": 429 if i < throttled else 200,
            "latency_ms": None if i < throttled else rng.uniform(90, 110),
            "completion_tokens": 2,
            "language": "en",
        }
        for i in range(NUM_REQUESTS)
    ]
    window = {"name": f"week {number}", "end": f"2026-11-{number + 2:02d}T00:00:00Z", "status": "ok"}
    contents = (items, predictions, scores, traffic, window | {"num_rows": NUM_REQUESTS}, served)
    for name, content in zip(FILES, contents, strict=True):
        write(folder / name, content)
    return folder


@pytest.fixture(scope="module")
def main(load_main):
    sys.path += [path for path in INCLUDED if path not in sys.path]
    return load_main("detect_drift")


@pytest.fixture(scope="module")
def look(main):
    """Run the step on a window's files; what it wrote stands in ``out`` below it."""

    def run(folder: Path, before: Path | None = None, baseline: Path | None = None, inputs=FILES, **more):
        outputs = {name: folder / "out" / name for name in ("drift", "decision", "history", "snapshot", "report")}
        if before:
            more["earlier_history"] = before / "out" / "history"
        if baseline:
            more["baseline"] = baseline / "out" / "snapshot"
        main.run(main.Args(**{name: folder / name for name in inputs}, **outputs, **more))
        return json.loads(outputs["decision"].read_text("utf-8"))

    return run


@pytest.fixture(scope="module")
def weeks(look, tmp_path_factory):
    """A baseline, a week as quiet and one in which 24 of the 40 answers are wrong."""
    root = tmp_path_factory.mktemp("weeks")
    folders = [write_window(root / str(number), number, wrong=24 * (number == 2)) for number in range(3)]
    decisions = [look(folders[0])]
    decisions.append(look(folders[1], folders[0], folders[0]))
    decisions.append(look(folders[2], folders[1], folders[0]))
    return folders, decisions


def verdicts(folder: Path) -> dict[str, str]:
    drift = json.loads((folder / "out" / "drift").read_text("utf-8"))
    return {signal["name"]: signal["verdict"] for signal in drift["signals"]}


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, ignore=shutil.ignore_patterns("out")))


def test_the_first_window_is_the_baseline_and_judges_nothing(weeks):
    folders, decisions = weeks
    assert set(verdicts(folders[0]).values()) == {"no_data"}
    assert (decisions[0]["action"], decisions[0]["look"]) == ("none", 0)
    assert decisions[0]["reasons"] == ["This window becomes the baseline; there is none to compare with yet."]
    assert decisions[1]["baseline_id"] == decisions[0]["baseline_id"]


def test_a_quiet_week_and_one_with_wrong_answers(weeks):
    folders, decisions = weeks
    assert verdicts(folders[1]) == {
        "llm_drift": "none",
        "prompt_drift": "none",
        "prompt_sensitivity": "no_data",  # neither edits nor repeats
        "input_drift": "none",
        "service_drift": "none",
    }
    found = verdicts(folders[2])
    assert (found["llm_drift"], found["input_drift"], found["service_drift"]) == ("drift", "none", "none")
    drift = json.loads((folders[2] / "out" / "drift").read_text("utf-8"))
    accuracy = drift["signals"][0]["effects"][0]
    assert (accuracy["baseline"], accuracy["current"]) == (1.0, 0.4)  # 16 of 40
    assert decisions[2]["action"] == "none"
    assert "in 1 of its last 2 windows, 2 of 3 are asked for" in decisions[2]["reasons"][0]
    assert (decisions[2]["window"], decisions[2]["created_at"]) == ("week 2", "2026-11-04T00:00:00Z")


def test_history_grows_by_a_line_a_run(weeks):
    folders, decisions = weeks
    rows = [json.loads(line) for line in (folders[2] / "out" / "history").read_text("utf-8").splitlines()]
    assert [row["look"] for row in rows] == [0, 1, 2]
    assert [row["decision_id"] for row in rows] == [decision["decision_id"] for decision in decisions]
    assert rows[2]["signals"]["llm_drift"]["headline"]["accuracy"]["value"] == 0.4
    assert lineage.read(folders[2] / "out" / "decision")["component"] == "detect_drift"


def test_the_same_again_is_the_same(weeks, look, tmp_path):
    folders, decisions = weeks
    again = copy_of(folders[2], tmp_path / "again")
    assert look(again, folders[1], folders[0]) == decisions[2]
    for name in ("drift", "history", "report/report.html", "snapshot/manifest.json"):
        assert (again / "out" / name).read_bytes() == (folders[2] / "out" / name).read_bytes(), name


def test_an_endpoint_that_throttles_half_is_not_judged_and_its_errors_are_seen(weeks, look, tmp_path):
    folders, _ = weeks
    folder = write_window(tmp_path / "w", 3, failed=20, throttled=80)
    decision = look(folder, folders[1], folders[0])
    found = verdicts(folder)
    assert (found["llm_drift"], found["prompt_drift"]) == ("insufficient", "insufficient")
    assert found["service_drift"] == "drift"
    assert any("Not judged: LLM drift" in reason for reason in decision["reasons"])
    assert json.loads((folder / "out" / "drift").read_text("utf-8"))["num_failed"] == 20


def test_an_answer_that_is_missing_counts_as_wrong(weeks, look, tmp_path):
    folder = copy_of(weeks[0][1], tmp_path / "w")
    for name in ("predictions", "scores"):
        lines = (folder / name).read_text("utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(lines[2:]), encoding="utf-8")
    look(folder, weeks[0][0], weeks[0][0], CANARY_FILES)
    drift = json.loads((folder / "out" / "drift").read_text("utf-8"))
    accuracy = drift["signals"][0]["effects"][0]
    assert (drift["num_failed"], accuracy["current"], accuracy["num_current"]) == (2, 0.95, 40)


def test_a_refusal_of_the_content_filter_is_an_answer(weeks, look, tmp_path):
    """12 of 40 are no failure of the endpoint, above which nothing could be judged, but wrong answers."""
    folder = write_window(tmp_path / "w", 1, wrong=12)
    refused = {"error": "refused by the content filter", "output": ""}
    change_rows("predictions", lambda rows: [row | (refused if i < 12 else {}) for i, row in enumerate(rows)])(folder)
    look(folder, weeks[0][0], weeks[0][0], CANARY_FILES)
    found = verdicts(folder)
    assert (found["llm_drift"], found["prompt_drift"]) == ("drift", "drift")


def test_an_empty_window_has_no_data(weeks, look, tmp_path):
    folder = copy_of(weeks[0][1], tmp_path / "w")
    write(folder / "traffic", [])
    write(folder / "window", {"name": "night", "status": "no_data", "reason": "no rows in 1 file", "num_rows": 0})
    decision = look(folder, baseline=weeks[0][0], inputs=("traffic", "window", "endpoint"))
    assert set(verdicts(folder).values()) == {"no_data"}
    assert "not the same as no drift" in decision["reasons"][-1]
    drift = json.loads((folder / "out" / "drift").read_text("utf-8"))
    assert drift["signals"][3]["reasons"] == ["The window holds no traffic: no rows in 1 file."]


def change_rows(name, change):
    def apply(folder):
        rows = [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]
        write(folder / name, change(rows))

    return apply


def change_file(name, **fields):
    return lambda folder: write(folder / name, json.loads((folder / name).read_text("utf-8")) | fields)


def append(name, text):
    return lambda folder: (folder / name).write_text((folder / name).read_text("utf-8") + text, encoding="utf-8")


def with_fields(**fields):
    return lambda rows: [row | fields for row in rows]


def renamed(rows):
    return [row | {"id": f"new-{row['id']}"} for row in rows]


def all_renamed(folder):
    for name in ("canary_items", "predictions", "scores"):
        change_rows(name, renamed)(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (all_renamed, "its canaries are not these (40 new ids, 40 gone, 0 in both)"),
        (change_rows("predictions", renamed), "predictions: 40 ids ('new-c0', 'new-c1', 'new-c10', ...) are not in"),
        (change_rows("scores", lambda rows: rows[1:]), "scores: 1 ids ('c0') are answered but not scored"),
        (change_rows("predictions", lambda rows: [*rows, rows[3]]), "predictions:41: id 'c3' stands twice"),
        (change_rows("canary_items", lambda rows: [*rows, rows[3]]), "canary_items:41: id 'c3' stands twice"),
        (change_rows("scores", with_fields(exact_match="1")), "scores:1: scores: 'c0': exact_match is '1' and not"),
        (
            change_rows("scores", lambda rows: [{"id": r["id"], "f1": 1} for r in rows]),
            "no metric 'exact_match'; there",
        ),
        (change_rows("predictions", with_fields(prompt_tokens=30)), "took 9 prompt tokens on average, now 30: another"),
        (change_rows("predictions", with_fields(endpoint="http://x/")), "of the address http://x/, the endpoint says"),
        (change_file("endpoint", model_sha256="2" * 64), "it is of the model 111111111111, now 222222222222 answers"),
        (change_file("window", num_rows=7), "160 rows where the window says 7"),
        (change_file("window", status="no_data"), "160 rows where the window says 0"),
        (change_rows("traffic", with_fields(id="a")), "traffic:2: id 'a' stands twice"),
        (change_rows("traffic", with_fields(status="200")), "traffic:1: 'status' is '200' and not an HTTP status"),
        (change_rows("traffic", with_fields(latency_ms=-1)), "'latency_ms' is -1 and not a number from 0"),
        (change_rows("traffic", with_fields(messages=[])), "traffic:1: 'messages' is not a list of objects"),
        (append("traffic", '{"id": "cut'), "traffic:161: not JSON"),
        (append("predictions", "\x00\n"), "predictions:41: not JSON"),
    ],
)
def test_what_does_not_belong_together_is_refused(weeks, look, tmp_path, change, said):
    folder = copy_of(weeks[0][1], tmp_path / "w")
    change(folder)
    with pytest.raises(UserError) as error:
        look(folder, weeks[0][0], weeks[0][0])
    assert said in str(error.value)
    assert not (folder / "out").exists()


def test_the_baseline_of_another_adapter_is_refused(look, tmp_path):
    def named(number, model):
        folder = write_window(tmp_path / f"{number}", number)
        rows = [json.loads(row) for row in (folder / "predictions").read_text("utf-8").splitlines()]
        write(folder / "predictions", [row | {"endpoint_model": model} for row in rows])
        return folder

    first, second, other = named(0, "store"), named(1, "store"), named(2, "billing")
    assert look(first)["model"] == "store"
    assert look(second, first, first)["model"] == "store"
    with pytest.raises(UserError, match="another one: store was asked for it, billing now"):
        look(other, None, first)
    with pytest.raises(UserError, match="the history is of the model store, this window of billing"):
        look(other, second)


@pytest.mark.parametrize("name", ["max_new_tokens", "prompt_format", "truncate_prompt"])
def test_a_baseline_whose_answers_were_made_otherwise_is_refused(look, tmp_path, name):
    folders = [write_window(tmp_path / str(number), number) for number in range(2)]
    for folder, value in zip(folders, (1, 2), strict=True):
        write(folder / "predictions.lineage.json", {"parameters": {name: value, "seed": value}})
    look(folders[0])
    with pytest.raises(UserError, match=f"its answers were made with {name} 1, these with 2"):
        look(folders[1], folders[0], folders[0])


def test_another_baseline_is_compared_where_that_is_asked_for(weeks, look, tmp_path):
    folder = write_window(tmp_path / "w", 1, served=SERVED | GREEN, wrong=20)
    decision = look(folder, weeks[0][0], weeks[0][0], CANARY_FILES, accept_other_baseline=True)
    assert (decision["action"], decision["caused_by"]) == ("rollback", ["llm_drift"])
    notes = json.loads((folder / "out" / "drift").read_text("utf-8"))["notes"]
    assert notes == ["Compared all the same: it is of the model 111111111111, now 222222222222 answers."]
    all_renamed(folder)
    look(folder, weeks[0][0], weeks[0][0], CANARY_FILES, accept_other_baseline=True)
    assert verdicts(folder)["llm_drift"] == "no_data"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda s: (s / "canaries.jsonl").write_text(""), "canaries.jsonl: not the file that was written with"),
        (lambda s: (s / "traffic.jsonl").unlink(), "no baseline that can be read (FileNotFoundError"),
        (lambda s: (s / "manifest.json").write_text("{"), "no baseline that can be read (JSONDecodeError"),
        (lambda s: (s / "manifest.json").write_text("[]"), "no baseline that can be read (TypeError"),
    ],
)
def test_a_baseline_that_was_damaged_is_refused(weeks, look, tmp_path, damage, said):
    baseline = tmp_path / "baseline"
    shutil.copytree(weeks[0][0] / "out", baseline / "out")
    damage(baseline / "out" / "snapshot")
    with pytest.raises(UserError) as error:
        look(copy_of(weeks[0][1], tmp_path / "w"), weeks[0][0], baseline)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (("canary_items", "predictions"), "go together: give all three or none"),
        (("endpoint",), "nothing to look at"),
    ],
)
def test_inputs_that_are_incomplete(weeks, look, tmp_path, inputs, said):
    with pytest.raises(UserError, match=said):
        look(copy_of(weeks[0][1], tmp_path / "w"), inputs=inputs)


def test_a_signal_that_fails_ends_the_step(weeks, look, tmp_path, monkeypatch):
    import input_drift

    def broken(*_, **__):
        raise ZeroDivisionError("division by zero")

    folder = copy_of(weeks[0][1], tmp_path / "w")
    monkeypatch.setattr(input_drift, "input_drift", broken)
    with pytest.raises(RuntimeError, match="input_drift failed: ZeroDivisionError"):
        look(folder, weeks[0][0], weeks[0][0])
    assert not (folder / "out").exists()

    real = sys.modules["service_drift"].service_drift
    monkeypatch.undo()

    def infinite(*args, **more):
        signal = real(*args, **more)
        return dataclasses.replace(signal, effects=(dataclasses.replace(signal.effects[0], high=float("inf")),))

    monkeypatch.setattr(sys.modules["service_drift"], "service_drift", infinite)
    with pytest.raises(RuntimeError, match=r"service_drift failed: ValueError: high of \w+ is inf"):
        look(folder, weeks[0][0], weeks[0][0])


def test_metrics_are_0_or_1_for_a_verdict_and_the_effects(main):
    from drift_signal import Effect, Signal

    whole = Effect("accuracy", 1.0, 0.4, -0.6, -0.7, -0.5)
    effects = (whole, dataclasses.replace(whole, slice="language=ja"))
    signals = [Signal("llm_drift", "drift", effects, ()), Signal("input_drift", "none", (), ())]
    assert main.logged_metrics([*signals, Signal("service_drift", "no_data", (), ())]) == {
        "monitor/llm_drift": 1.0,
        "monitor/input_drift": 0.0,
        "monitor/llm_drift/accuracy": 0.4,
    }


def test_the_step_as_a_process(run_component, weeks, tmp_path):
    """Drift is a verdict and no error."""
    folders, decisions = weeks
    policy = write(tmp_path / "policy.yml", {"llm_drift": {"num_drift_windows": 1}})
    path = os.pathsep.join([str(COMPONENTS / "_shared"), *INCLUDED])
    names = ("drift", "decision", "history", "snapshot", "report")
    flags = {name: folders[2] / name for name in FILES} | {name: tmp_path / name for name in names}
    flags |= {"baseline": folders[0] / "out" / "snapshot", "earlier_history": folders[1] / "out" / "history"}
    done = run_component("detect_drift", env={"PYTHONPATH": path}, **flags, policy=policy)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RETRAIN: LLM drift in 1 of its last 2 windows: Accuracy went from 100.0% to 40.0%")
    assert json.loads((tmp_path / "decision").read_text("utf-8"))["decision_id"] != decisions[2]["decision_id"]
