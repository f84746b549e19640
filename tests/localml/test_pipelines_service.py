"""A step that starts a pipeline: what the runner gives it, and what it leaves behind of each job."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components.test_trigger_retraining import decision

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "components" / "trigger_retraining" / "main.py"


def test_a_step_learns_how_to_run_a_pipeline_here(toys):
    script = """
        import json
        names = ("LOCALML_PROJECT", "LOCALML_ROOT", "LOCALML_RUN")
        pathlib.Path(args.out).write_text(json.dumps([os.environ.get(name) for name in names]))
    """
    asks = toys.component("asks", script, tags={"local_service": "pipelines"})
    other = toys.component("other", script)
    job = toys.job({"asks": {"component": asks}, "other": {"component": other}})
    assert toys.run(job, "--name", "service").returncode == 0
    project, root, command = json.loads(toys.output("service", "asks"))
    assert (Path(project), Path(root)) == (ROOT, toys.root.resolve())
    assert json.loads(command) == [sys.executable, str(ROOT / "scripts/run.py"), "--root", root, "--env", "current"]
    assert json.loads(toys.output("service", "other")) == [None, None, None]


def test_a_job_leaves_behind_how_it_ended(toys):
    write = toys.component("write", "pathlib.Path(args.out).write_text('done')")
    outputs = {"words": {"type": "uri_file"}}
    good = {"component": write, "outputs": {"out": "${{parent.outputs.words}}"}}
    toys.run(toys.job({"first": good}, outputs=outputs), "--name", "ended-well")
    record = json.loads((toys.root / "jobs" / "ended-well" / "job.json").read_text())
    assert record == {"name": "ended-well", "status": "FINISHED", "outputs": {"words": "first/out"}}
    assert (toys.root / "jobs" / "ended-well" / record["outputs"]["words"]).read_text() == "done"
    fails = toys.component("fails", "sys.exit(3)", {"text": "text"})
    bad = {"component": fails, "inputs": {"text": "${{parent.jobs.first.outputs.out}}"}}
    toys.run(toys.job({"first": good, "bad": bad}, outputs=outputs), "--name", "ended-badly")
    record = json.loads((toys.root / "jobs" / "ended-badly" / "job.json").read_text())
    assert (record["status"], record["outputs"]) == ("FAILED", {"words": "first/out"})


@pytest.mark.slow
def test_from_the_decision_to_the_endpoint_of_the_next_cycle(toys):
    """The component and the real runner: fresh data in, the pipeline's endpoint out, once for the decision."""
    script = """
        fresh = pathlib.Path(args.raw_data, "fresh.txt").read_text()
        pathlib.Path(args.out).write_text(f"{fresh} {args.seed}")
    """
    release = toys.component("release", script, {"raw_data": "folder", "seed": {"type": "integer"}})
    inputs = {name: f"${{{{parent.inputs.{name}}}}}" for name in ("raw_data", "seed")}
    node = {"component": release, "inputs": inputs, "outputs": {"out": "${{parent.outputs.endpoint}}"}}
    given = {"raw_data": {"type": "uri_folder", "path": "nowhere"}, "seed": 1}
    job = toys.job({"release": node}, name="cycle", inputs=given, outputs={"endpoint": {"type": "uri_file"}})
    data = toys.folder / "new documents"
    data.mkdir()
    (data / "fresh.txt").write_text("rolled")
    (toys.folder / "decision").write_text(json.dumps(decision()))
    run = [sys.executable, str(ROOT / "scripts" / "run.py"), "--root", str(toys.root), "--env", "current"]
    service = {"LOCALML_PROJECT": toys.folder, "LOCALML_ROOT": toys.root, "LOCALML_RUN": json.dumps(run)}
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AZUREML_"))}
    environment = outside | {name: str(value) for name, value in service.items()}

    def trigger(**more):
        flags = {name: toys.folder / name for name in ("decision", "receipt", "current_endpoint")}
        flags |= {"pipeline": job.relative_to(toys.folder), "fresh_data": data, "fresh_data_input": "raw_data", **more}
        command = [sys.executable, str(MAIN), *(f"--{name}={value}" for name, value in flags.items())]
        python_path = {"PYTHONPATH": str(ROOT / "components" / "_shared")}
        return subprocess.run(command, env=environment | python_path, capture_output=True, text=True, check=False)

    done = trigger(pipeline_inputs="{seed: 2}", dry_run="false", wait="true")
    assert done.returncode == 0, done.stderr
    receipt = json.loads((toys.folder / "receipt").read_text())
    assert (receipt["started"], receipt["status"]) == (True, "Completed")
    assert (toys.folder / "current_endpoint").read_text() == "rolled 2"
    again = trigger(pipeline_inputs="{seed: 2}", dry_run="false", wait="true")
    assert "not started (it has run already)" in again.stdout
