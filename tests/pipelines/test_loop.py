"""The closed loop: as it is wired, and a small one, run, in which a monitor notices what nobody tells it."""

import csv
import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from localml import graph, jobfile
from localml.ports import FromStep, Literal
from tests.localml.test_endpoint import Hosted

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "pipelines" / "jobs"
SAMPLES = ROOT / "pipelines" / "samples"
SERVER = ROOT / "tests" / "components" / "breakable_server.py"
WEEKS = range(1, 7)
COLLECTS = {"collections": {"request": {"enabled": "true"}, "response": {"enabled": "true"}}, "sampling_rate": 1.0}
ROLL_OUT = """
import json, os, pathlib, sys, time, urllib.request

fresh, endpoint = map(pathlib.Path, sys.argv[1:])
host = json.loads(pathlib.Path(os.environ["LOCALML_ENDPOINTS"]).read_text())

def call(method, path, body=None):
    url, data = f"{host['url']}/onlineEndpoints/shop{path}", body and json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {host['token']}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
        return json.load(answer)

said = json.loads((fresh / "next.json").read_text())
call("PUT", "/deployments/green", said["deployment"])
deadline = time.monotonic() + 30
while call("GET", "/deployments/green")["provisioning_state"] != "Succeeded" and time.monotonic() < deadline:
    time.sleep(0.05)
call("PUT", "/traffic", {"traffic": {"green": 100}})
endpoint.write_text(json.dumps(said["endpoint"]))
"""


@pytest.fixture(scope="module")
def loop():
    return graph.build(jobfile.load(JOBS / "loop-local.yml"))


@pytest.fixture(scope="module")
def retraining():
    return graph.build(jobfile.load(JOBS / "cycle-local.yml"))


def values(step: graph.Step) -> dict[str, object]:
    return {port: binding.value for port, binding in step.inputs.items() if isinstance(binding, Literal)}


def test_questions_about_the_fresh_documents_are_those_that_the_retraining_holds_out(loop, retraining):
    """Split by other values, the same documents would be in the training data of the model that is asked about them."""
    data_stage = ("tuning.collection", "tuning.redaction", "tuning.seeds", "tuning.cycle.dataset")
    for name in data_stage:
        own = loop.steps[name.rpartition(".")[2]]
        for cycle in (retraining.steps[name], loop.steps[f"first.{name}"]):
            assert own.component_name == cycle.component_name
            assert values(own) == values(cycle)
    audit = retraining.steps["tuning.audit"]  # stands between, and hands the chats on as they are
    assert audit.inputs["synthetic_data"] == FromStep("tuning.seeds", "chats")
    assert retraining.steps["tuning.cycle.dataset"].inputs["chats"] == FromStep("tuning.audit", "approved_data")


def test_the_trained_and_the_retrained_model_differ_in_the_documents_alone(loop, retraining):
    given = loop.steps["week_4.retraining"].inputs
    assert given["fresh_data"] == loop.steps["collection"].inputs["raw_data"]
    assert (given["pipeline"].value, given["fresh_data_input"].value) == ("pipelines/jobs/cycle-local.yml", "raw_data")
    for name, step in retraining.steps.items():
        first = loop.steps[f"first.{name}"]
        same = {port for port in step.inputs if (name, port) != ("tuning.collection", "raw_data")}
        for port in same:
            mine, theirs = first.inputs[port], step.inputs[port]
            if isinstance(theirs, FromStep):
                theirs = FromStep(f"first.{theirs.step}", theirs.port)
            assert mine == theirs, f"{name}.{port}"


def test_the_weeks_differ_in_what_users_ask_alone(loop):
    """Week 3 is watched as week 2 is, though the world has changed between them."""
    for before, now in ((2, 3), (3, 4)):
        for name, step in loop.steps.items():
            if name.startswith(f"week_{now}."):
                twin = loop.steps[name.replace(f"week_{now}", f"week_{before}")]
                assert moved(step, now) == moved(twin, before), name
    asked = [loop.steps[f"week_{week}_traffic"].inputs for week in WEEKS]
    assert len({str(one["seed"]) for one in asked}) == len(WEEKS)
    worlds = [(str(one["eval_items"]), one["style"].value) for one in asked]
    old = ("first.tuning.cycle.dataset.eval_items", "plain")
    assert worlds == [old] * 2 + [("dataset.eval_items", "casual")] * 4


def moved(step: graph.Step, week: int) -> dict[str, str]:
    """The bindings of a step, told from the week that it is of; all have the same baseline."""
    bound = {port: str(binding) for port, binding in step.inputs.items() if port != "baseline"}
    named = {"this week": (f"week_{week}", f"week {week}"), "the week before": (f"week_{week - 1}",)}
    for name, texts in named.items():
        for text in texts:
            bound = {port: value.replace(text, name) for port, value in bound.items()}
    return bound


def test_every_week_may_retrain_and_the_next_asks_what_serves_then(loop):
    for week in WEEKS:
        retraining, drift = (loop.steps[f"week_{week}.{name}"].inputs for name in ("retraining", "drift"))
        assert retraining["decision"] == FromStep(f"week_{week}.drift", "decision")
        assert (retraining["dry_run"].value, retraining["wait"].value) == (False, True)
        baseline = {1: None, 5: None, 6: 5}.get(week, 1)
        assert drift.get("baseline") == (FromStep(f"week_{baseline}.drift", "snapshot") if baseline else None)
        world = "old" if week < 5 else "new"
        assert drift["canary_items"] == FromStep(f"{world}_canaries", "canary_items")
        if week > 1:
            serves = FromStep(f"week_{week - 1}.retraining", "current_endpoint")
            watched = ("week_{}_traffic", "week_{}.collection", "week_{}.drift", "week_{}.retraining")
            assert {loop.steps[name.format(week)].inputs["endpoint"] for name in watched} == {serves}
            assert loop.steps[f"week_{week}.canary_answers"].inputs["deployed_endpoint"] == serves
            assert drift["earlier_history"] == FromStep(f"week_{week - 1}.drift", "history")


def test_a_new_baseline_takes_the_history_along():
    """Else a retraining, which needs a new baseline, would end its own cooldown and give its budget back."""
    job = jobfile.load(JOBS / "baseline-local.yml", ["inputs.history.path=azureml:slm-demo-monitor-history@latest"])
    steps = graph.build(job).steps
    assert str(steps["first_look.drift"].inputs["earlier_history"]) == "slm-demo-monitor-history@latest"
    assert "baseline" not in steps["first_look.drift"].inputs


class Shop:
    """An endpoint whose requests are logged, and the steps of a week as functions of this process."""

    def __init__(self, folder: Path, load_main) -> None:
        self.folder, self.host, self.number = folder, Hosted(folder / "root"), 0
        for includes in ("compare_candidates", "score_answers"):  # modules of theirs
            load_main(includes)
        names = ("simulate_traffic", "collect_traffic", "detect_drift", "trigger_retraining")
        self.traffic, self.collection, self.drift, self.retraining = (load_main(name) for name in names)
        server = {"kind": "command", "command": [sys.executable, str(SERVER), "--port", "{port}"]}
        more = {"environment_variables": {"BREAKS": str(folder / "breaks")}, "data_collector": COLLECTS}
        self.host.endpoint("shop", blue={"server": server, **more})
        self.deployment = self.host.body(server=server, **more)
        self.endpoint = self.write("endpoint", self.described("blue", "a" * 64))

    def write(self, name: str, content: object) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def described(self, deployment: str, model_sha256: str) -> dict[str, str]:
        collected = self.host.root / "datastores" / "workspaceblobstore" / "modelDataCollector" / "shop"
        found = {"scoring_uri": self.host.call("GET", "/shop")["scoring_uri"], "auth": "none", "model": "slm"}
        return {"name": "shop", "deployment": deployment, "model_sha256": model_sha256, **found} | {
            "collected_traffic": str(collected)
        }

    def week(self, questions: Path, **earlier: Path) -> dict[str, Path]:
        """One week: traffic, its collection, the decision and what follows; the files that it leaves."""
        self.number += 1
        folder = self.folder / f"week {self.number}"
        folder.mkdir()
        names = ("period", "records", "window", "quarantine", "drift", "decision", "history", "snapshot", "report")
        made = {name: folder / name for name in (*names, "receipt", "current_endpoint")}

        def ports(*names: str) -> dict[str, Path]:
            return {name: made[name] for name in names}

        seen = {"endpoint": self.endpoint, "seed": self.number}
        self.traffic.run(self.traffic.Args(eval_items=questions, num_requests=160, **seen, **ports("period")))
        log = ports("period", "records", "window", "quarantine")
        self.collection.run(self.collection.Args(endpoint=self.endpoint, window_name=folder.name, **log))
        found = ports("window", "drift", "decision", "history", "snapshot", "report")
        policy = self.write("policy.yml", "input_drift: {action: retrain, num_drift_windows: 1, num_windows: 1}")
        args = self.drift.Args(traffic=made["records"], policy=policy, **seen, **found, **earlier)
        self.drift.run(args)
        given = {"pipeline": "job.yml", "fresh_data": self.folder / "fresh", "fresh_data_input": "raw_data"}
        given |= {"endpoint": self.endpoint, "dry_run": False, "wait": True}
        self.retraining.run(self.retraining.Args(**given, **ports("decision", "receipt", "current_endpoint")))
        self.endpoint = made["current_endpoint"]
        return made


@pytest.fixture
def shop(tmp_path, load_main, monkeypatch):
    shop = Shop(tmp_path, load_main)
    run = [sys.executable, str(ROOT / "scripts" / "run.py"), "--root", str(shop.host.root)]
    monkeypatch.setenv("LOCALML_PROJECT", str(tmp_path))
    monkeypatch.setenv("LOCALML_ROOT", str(shop.host.root))
    monkeypatch.setenv("LOCALML_RUN", json.dumps(run))
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    yield shop
    shop.host.close()


def questions_about(table: str) -> str:
    with (SAMPLES / table).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = ["\n".join(f"{name}: {value}" for name, value in row.items()) for row in rows]
    chats = [[{"role": "user", "content": f"{text}\n\nWho is there?"}] for text in texts]
    return "".join(json.dumps({"id": f"q{i}", "messages": chat}) + "\n" for i, chat in enumerate(chats))


@pytest.mark.slow
def test_a_world_that_changes_brings_another_deployment_and_then_quiet(shop):
    component = {
        "type": "command",
        "name": "roll_out",
        "inputs": {"raw_data": {"type": "uri_folder"}},
        "outputs": {"endpoint": {"type": "uri_file"}},
        "code": ".",
        "environment": {"image": "example.invalid/toy:1"},
        "tags": {"local_service": "endpoints"},
        "command": "python main.py ${{inputs.raw_data}} ${{outputs.endpoint}}",
    }
    node = {"type": "command", "component": "roll_out/component.yml"}
    node |= {"inputs": {"raw_data": "${{parent.inputs.raw_data}}"}}
    node |= {"outputs": {"endpoint": "${{parent.outputs.endpoint}}"}}
    job = {"type": "pipeline", "settings": {"default_compute": "azureml:cpu"}, "jobs": {"roll_out": node}}
    job |= {"inputs": {"raw_data": {"type": "uri_folder", "path": "nowhere"}}}
    shop.write("job.yml", yaml.safe_dump(job | {"outputs": {"endpoint": {"type": "uri_file"}}}))
    shop.write("roll_out/component.yml", yaml.safe_dump(component))
    shop.write("roll_out/main.py", ROLL_OUT)
    shop.write("fresh/next.json", {"deployment": shop.deployment, "endpoint": shop.described("green", "b" * 64)})
    old = shop.write("old", questions_about("documents/community-centers-en.csv"))
    new = shop.write("new", questions_about("documents-next-year/learning-commons-en.csv"))

    first = shop.week(old)
    weeks = [first]
    for questions in (old, new):
        weeks.append(shop.week(questions, baseline=first["snapshot"], earlier_history=weeks[-1]["history"]))
    weeks.append(shop.week(new, earlier_history=weeks[-1]["history"]))
    last = weeks[-1]
    weeks.append(shop.week(new, baseline=last["snapshot"], earlier_history=last["history"]))

    decisions = [json.loads(week["decision"].read_text("utf-8")) for week in weeks]
    assert [one["signals"]["input_drift"] for one in decisions] == ["no_data", "none", "drift", "no_data", "none"]
    assert [one["action"] for one in decisions] == ["none", "none", "retrain", "none", "none"]
    assert [one["deployment"] for one in decisions] == ["blue"] * 3 + ["green"] * 2
    receipts = [json.loads(week["receipt"].read_text("utf-8")) for week in weeks]
    assert [one["started"] for one in receipts] == [False, False, True, False, False]
    assert receipts[2]["status"] == "Completed"
    assert shop.host.call("GET", "/shop")["traffic"]["green"] == 100
    answered = [{json.loads(line)["deployment"] for line in week["records"].open(encoding="utf-8")} for week in weeks]
    assert answered == [{"blue"}] * 3 + [{"green"}] * 2
    assert len(last["history"].read_text("utf-8").splitlines()) == 4
