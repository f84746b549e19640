"""Sweeps on this machine: the best trial wins, what fell behind is ended, and nothing that finished runs again."""

import json
import sqlite3
import subprocess
import textwrap
import time
import uuid
from pathlib import Path

import pytest

NUMBER = {"type": "number", "default": 1, "min": 0, "max": 100, "description": "d"}
STRING = {"type": "string", "description": "d"}
# As the MLflow client logs to this store, without the seconds that its import takes.
LOG = """
import sqlite3
def log(value, step=0, name="eval/loss"):
    bad = int(value != value)
    row = (name, 0 if bad else value, time.time_ns() // 10**6, os.environ["MLFLOW_RUN_ID"], step, bad)
    with sqlite3.connect(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///"), timeout=30) as store:
        for table in ("metrics", "latest_metrics"):
            columns = "(key, value, timestamp, run_uuid, step, is_nan)"
            store.execute(f"insert or replace into {table} {columns} values (?, ?, ?, ?, ?, ?)", row)
    store.close()
def waits_for(name):
    for _ in range(1500):
        if pathlib.Path(args.marks, name).exists():
            return
        time.sleep(0.02)
    sys.exit(f"nobody has made {name}")
def mark(name):
    pathlib.Path(args.marks, name).write_text(str(os.getpid()))
rate = float(args.rate)
"""
GIVE = "\npathlib.Path(args.out).write_text(args.rate)\n"


@pytest.fixture
def sweep(toys, tmp_path):
    """Write a job of one sweep and a step that copies its output; the rates are the trials, in this order."""
    (tmp_path / "marks").mkdir()

    def write(script: str, rates=(3, 1, 2), *, copy: bool = True, **node: object) -> Path:
        trial = toys.component(
            "trial", LOG + textwrap.dedent(script) + GIVE, {"rate": NUMBER, "marks": STRING, "word": STRING}
        )
        after = toys.component("copy", "pathlib.Path(args.out).write_text(open(args.text).read())", {"text": "text"})
        content = {
            "type": "sweep",
            "trial": trial,
            "inputs": {"marks": str(tmp_path / "marks"), "word": node.pop("word", uuid.uuid4().hex)},
            "search_space": {"rate": {"type": "choice", "values": list(rates)}},
            "sampling_algorithm": "grid",
            "objective": {"goal": "minimize", "primary_metric": "eval/loss"},
            **node,
            "limits": {"max_total_trials": 9, "max_concurrent_trials": 1, **node.get("limits", {})},
        }
        jobs = {"tuned": content}
        if copy:
            jobs["copy"] = {"component": after, "inputs": {"text": "${{parent.jobs.tuned.outputs.out}}"}}
        return toys.job(jobs)

    write.marks = tmp_path / "marks"
    return write


def run(toys, job: Path, *flags: str) -> tuple[subprocess.CompletedProcess, list[dict]]:
    name = uuid.uuid4().hex
    done = toys.run(job, "-n", name, *flags)
    file = toys.root / "jobs" / name / "tuned" / "trials.json"
    done.name = name
    return done, json.loads(file.read_text())["trials"] if file.exists() else []


def states(trials: list[dict]) -> list[str]:
    return [trial["state"] for trial in trials]


def failed(done: subprocess.CompletedProcess, exit_code: int, *texts: str) -> None:
    first = done.stderr.splitlines()[0]
    assert done.returncode == exit_code, done.stderr
    assert first.startswith("run.py: error: ") and "Traceback" not in done.stderr
    for text in texts:
        assert text in first


@pytest.mark.parametrize(("goal", "best"), [("minimize", "1"), ("maximize", "3")])
def test_the_best_trial_gives_the_outputs(toys, sweep, goal, best):
    job = sweep("log(rate)", objective={"goal": goal, "primary_metric": "eval/loss"})
    done, trials = run(toys, job)
    assert done.returncode == 0, done.stderr
    assert toys.output(done.name, "copy") == toys.output(done.name, "tuned") == best
    assert [trial["parameters"] for trial in trials] == [{"rate": 3}, {"rate": 1}, {"rate": 2}]
    assert [trial["values"] for trial in trials] == [[3.0], [1.0], [2.0]]
    row = next(line for line in done.stdout.splitlines() if line.startswith("*"))
    assert row.split()[2:5] == [f"{float(best):.4g}", f"{float(best):.4f}", "finished"]


def test_the_last_value_counts_since_it_is_that_of_the_model(toys, sweep):
    """Trial 0 was once at 0.5 but ends at 3."""
    done, _ = run(toys, sweep("log(0.5 if rate == 3 else rate, 1); time.sleep(0.01); log(rate, 2)"))
    assert toys.output(done.name, "copy") == "1"


def test_trials_are_runs_below_that_of_the_sweep(toys, sweep):
    done, trials = run(toys, sweep("log(rate)"))
    with sqlite3.connect(toys.root / "mlflow.db") as store:
        tags = dict(store.execute("select run_uuid, value from tags where key = 'mlflow.parentRunId'").fetchall())
        names = dict(store.execute("select run_uuid, name from runs").fetchall())
        params = {(run, key): value for run, key, value in store.execute("select run_uuid, key, value from params")}
        metrics = dict(store.execute("select run_uuid, value from metrics where key = 'eval/loss'").fetchall())
        status = dict(store.execute("select run_uuid, status from runs").fetchall())
    for trial in trials:
        parent = tags[trial["run_id"]]
        assert names[parent] == "tuned" and names[tags[parent]] == done.name
        assert names[trial["run_id"]] == f"tuned.trial_{trial['number']}"
        assert params[trial["run_id"], "rate"] == str(trial["parameters"]["rate"])
        assert status[trial["run_id"]] == status[parent] == "FINISHED"
    assert (params[parent, "rate"], metrics[parent]) == ("1", 1.0)


def test_a_second_run_reuses_the_sweep_and_a_longer_one_its_trials(toys, sweep):
    word = uuid.uuid4().hex
    run(toys, sweep("log(rate)", word=word))
    again, _ = run(toys, sweep("log(rate)", word=word))
    assert "↺ tuned " in again.stdout and "trial_" not in again.stdout
    assert "trial 1 has the lowest eval/loss" in again.stdout
    more, trials = run(toys, sweep("log(rate)", (3, 1, 2, 0.5), word=word))
    assert states(trials) == ["reused", "reused", "reused", "finished"]
    assert toys.output(more.name, "copy") == "0.5"


def test_a_reused_trial_whose_run_is_gone_runs_again(toys, sweep):
    word = uuid.uuid4().hex
    _, first = run(toys, sweep("log(rate)", word=word))
    with sqlite3.connect(toys.root / "mlflow.db") as store:
        for table in ("metrics", "latest_metrics"):
            store.execute(f"delete from {table} where run_uuid = ?", (first[0]["run_id"],))
    _, trials = run(toys, sweep("log(rate)", (3, 1, 2, 4), word=word))
    assert states(trials) == ["finished", "reused", "reused", "finished"]


def test_a_failed_trial_is_recorded_and_the_others_go_on(toys, sweep):
    done, trials = run(toys, sweep("log(rate)\nif rate == 1: sys.exit('no luck')"))
    assert done.returncode == 0, done.stderr
    assert states(trials) == ["finished", "failed", "finished"]
    assert "no luck" in trials[1]["reason"]
    assert toys.output(done.name, "copy") == "2"
    assert "trial 1 failed: failed with exit code 1: no luck" in done.stdout


def test_all_trials_failed(toys, sweep):
    done, _ = run(toys, sweep("sys.exit('no luck')"))
    failed(done, 1, "step tuned: 3 of 3 trials failed", "trial 0: failed with exit code 1: no luck")
    assert "repeat: bash" in done.stderr


def test_a_metric_that_never_appears(toys, sweep):
    done, _ = run(toys, sweep("log(rate, name='eval/los')"))
    failed(done, 1, "step tuned: trial 0 logged no metric 'eval/loss'", "it logged: eval/los")
    assert "trial_1" not in done.stdout, "the others would not log it either"


def test_a_loss_that_is_not_a_number_never_wins(toys, sweep):
    done, _ = run(toys, sweep("log(float('nan') if rate == 3 else rate)"))
    assert toys.output(done.name, "copy") == "1"
    done, _ = run(toys, sweep("log(float('nan'))"))
    failed(done, 1, "no trial has a number as its eval/loss")


def test_a_bandit_ends_what_falls_behind(toys, sweep):
    """Trial 0 is at 1 throughout; trial 1 logs 5 at interval 2, which is above 1 * (1 + 0.2), and would never end."""
    script = """
    for step in range(1, 4):
        log(rate, step)
        if rate == 5 and step == 2: time.sleep(600)
    """
    policy = {"type": "bandit", "slack_factor": 0.2, "evaluation_interval": 1, "delay_evaluation": 2}
    done, trials = run(toys, sweep(script, (1, 5, 2), early_termination=policy))
    assert done.returncode == 0, done.stderr
    assert states(trials)[:2] == ["finished", "terminated"]
    assert trials[1]["reason"] == "bandit at interval 2: 5 against the best so far, limit 1.2"
    assert trials[1]["values"] == [5.0, 5.0]
    assert toys.output(done.name, "copy") == "1"


def test_the_goal_ends_the_sweep(toys, sweep):
    done, trials = run(toys, sweep("log(rate)", (3, 2, 1, 0.5), tags={"stop_when": "eval/loss <= 2"}))
    assert states(trials) == ["finished", "finished", "not run", "not run"]
    assert toys.output(done.name, "copy") == "2"
    assert "ended by: trial 1 meets the goal 2" in done.stdout


def test_the_goal_ends_what_runs_beside(toys, sweep, monkeypatch):
    monkeypatch.setattr("localml.process.num_cores", lambda: 2)
    script = "mark(args.rate)\nif rate == 9: time.sleep(600)\nelse: waits_for('9')\nlog(rate)"
    limits = {"max_concurrent_trials": 2}
    job = sweep(script, (9, 1, 5), tags={"stop_when": "eval/loss <= 1"}, limits=limits)
    done, trials = run(toys, job)
    assert done.returncode == 0, done.stderr
    assert states(trials) == ["canceled", "finished", "not run"]
    assert toys.output(done.name, "copy") == "1"


def test_trials_side_by_side_share_the_processor(toys, sweep, monkeypatch):
    monkeypatch.setattr("localml.process.num_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = "log(rate); mark(args.rate); waits_for('1'); waits_for('2'); args['rate'] = os.environ['OMP_NUM_THREADS']"
    done, _ = run(toys, sweep(script, (1, 2), limits={"max_concurrent_trials": 2}))
    assert toys.output(done.name, "copy") == "3"


@pytest.mark.parametrize("limit", ["timeout", "trial_timeout"])
def test_a_timeout_keeps_what_has_finished(toys, sweep, monkeypatch, limit):
    """Azure ML takes no limit below a minute, so this one is shortened after the file is read."""
    from azure.ai.ml.sweep import SweepJobLimits

    monkeypatch.setattr(SweepJobLimits, limit, property(lambda self: 3))
    word, node = uuid.uuid4().hex, {"limits": {limit: 60}}
    script = "if rate == 9: waits_for('go')\nlog(rate)"
    done, trials = run(toys, sweep(script, (1, 9, 5), word=word, **node))
    assert done.returncode == 0, done.stderr
    assert states(trials) == ["finished", "canceled", "not run" if limit == "timeout" else "finished"]
    assert f"the {limit} of 3 s" in trials[1]["reason"]
    if limit == "timeout":  # the sweep is not complete, so it goes on
        (sweep.marks / "go").touch()
        _, trials = run(toys, sweep(script, (1, 9, 5), word=word, **node))
        assert states(trials) == ["reused", "finished", "finished"]


@pytest.mark.slow
def test_killed_in_a_trial_and_started_again(toys, sweep):
    """Trial 0 has finished, trial 1 was terminated, trial 2 is killed: only that one runs again."""
    script = """
    mark(f"began-{args.rate}-{time.time_ns()}")
    log(rate, 1)
    if rate == 50: time.sleep(600)
    if rate == 1.1:
        mark("in-last")
        waits_for("go")
    """
    job = sweep(script, (1, 50, 1.1), early_termination={"type": "bandit", "slack_amount": 2})
    first = subprocess.Popen(toys.command(job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not (sweep.marks / "in-last").exists():
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()
        time.sleep(0.05)
    first.kill()
    first.wait()
    (sweep.marks / "go").touch()
    done, trials = run(toys, job)
    assert done.returncode == 0, done.stderr
    assert states(trials) == ["reused", "terminated", "finished"]
    began = [path.name.split("-")[1] for path in sweep.marks.glob("began-*")]
    assert sorted(began) == ["1", "1.1", "1.1", "50"]
    assert toys.output(done.name, "copy") == "1"


def test_ctrl_c_in_the_last_trial_does_not_finish_the_sweep(toys, sweep):
    import signal

    job = sweep("if rate == 2: mark('in-last'); waits_for('go')\nlog(rate)")
    process = toys.start(job)
    deadline = time.monotonic() + 90
    while not (sweep.marks / "in-last").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in stderr
    (sweep.marks / "go").touch()
    _, trials = run(toys, job)
    assert states(trials) == ["reused", "reused", "finished"]


def test_dry_run_shows_the_trials_and_runs_none(toys, sweep):
    job = sweep("log(rate)", sampling_algorithm={"type": "bayesian"}, limits={"max_total_trials": 2})
    done = toys.run(job, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "trial 1: rate = " in done.stdout and "trial 2" not in done.stdout
    assert "note: tuned: bayesian sampling is not done here" in done.stdout


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"search_space": {"rat": {"type": "choice", "values": [1]}}}, ["search_space", "no input 'rat'", "rate"]),
        ({"search_space": {"rate": {"type": "choice", "values": [1, 101]}}}, ["rate: 101", "above the maximum 100"]),
        ({"search_space": {"word": {"type": "choice", "values": ["a"]}}}, ["inputs.word", "search_space too"]),
        ({"search_space": {}}, ["search_space: is empty"]),
        ({"search_space": {"rate": {"type": "uniform", "min_value": 1, "max_value": 2}}}, ["grid", "found uniform"]),
        ({"limits": {"max_total_trials": 10**9}}, ["max_total_trials: 1000000000"]),
        ({"limits": {"max_concurrent_trials": 0}}, ["max_concurrent_trials: 0"]),
        ({"early_termination": {"type": "bandit"}}, ["early_termination", "slack_factor or slack_amount"]),
        ({"early_termination": {"type": "truncation_selection", "truncation_percentage": 100}}, ["percentage: 100"]),
        ({"tags": {"stop_when": "eval/loss >= 2"}}, ["stop_when", "expected 'eval/loss <= NUMBER'"]),
        ({"tags": {"stop_when": "eval/los <= 2"}}, ["stop_when", "expected 'eval/loss <= NUMBER'"]),
        ({"tags": {"stop_when": "eval/loss <= nan"}}, ["stop_when", "expected 'eval/loss <= NUMBER'"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_sweep_that_is_refused_before_anything_runs(toys, sweep, changes, texts):
    failed(toys.run(sweep("log(rate)", **changes)), 2, "tuned", *texts)


def test_set_changes_a_sweep(toys, sweep):
    job = sweep("log(rate)", tags={"stop_when": "eval/loss <= 0"})
    _, trials = run(toys, job, "--set", "jobs.tuned.limits.max_total_trials=1")
    assert len(trials) == 1
    _, trials = run(toys, job, "--set", "jobs.tuned.tags.stop_when=eval/loss <= 3")
    assert states(trials) == ["reused", "not run", "not run"]


def test_azure_ai_ml_sends_the_tag_with_the_sweep(sweep):
    """What stop_when rests on: Azure ML has no field for a goal, but keeps the tags of a node."""
    from azure.ai.ml import load_job

    job = load_job(sweep("log(rate)", tags={"stop_when": "eval/loss <= 2"}))
    assert job._validate().passed
    sent = job._to_rest_object().properties.jobs["tuned"]
    assert (sent["type"], sent["tags"]) == ("sweep", {"stop_when": "eval/loss <= 2"})
