"""Running job files: values, reuse, expansion, processes, tracking."""

import json
import shlex
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
COPY = "pathlib.Path(args.out).write_text(pathlib.Path(args.text).read_text() + args.get('word', ''))"
STRING = {"type": "string", "description": "d"}


def unique() -> str:
    """A text that no earlier test has used, so that nothing is reused by accident."""
    return uuid.uuid4().hex


def two_steps(toys, first: str, script: str = COPY):
    say = toys.component("say", "pathlib.Path(args.out).write_text(args.word)", {"word": STRING})
    copy = toys.component("copy", script, {"text": "text", "word": STRING})
    return toys.job(
        {
            "greet": {"component": say, "inputs": {"word": "${{parent.inputs.greeting}}"}},
            "extend": {"component": copy, "inputs": {"text": "${{parent.jobs.greet.outputs.out}}", "word": "!"}},
        },
        inputs={"greeting": first},
    )


def states(stdout: str) -> dict[str, str]:
    """Step -> last state that the progress printed."""
    lines = [line.split() for line in stdout.splitlines() if line[:1] in "▶✔↺✘-" and len(line.split()) >= 3]
    return {words[1]: words[2] for words in lines}


def test_values_and_outputs_go_from_step_to_step(toys):
    word = unique()
    done = toys.run(two_steps(toys, word), "--name", word)
    assert done.returncode == 0, done.stderr
    assert toys.output(word, "extend") == word + "!"
    assert "2 steps run, 0 reused" in done.stdout


def test_unchanged_steps_are_reused_and_changed_ones_run(toys):
    word = unique()
    toys.run(two_steps(toys, word))
    again = toys.run(two_steps(toys, word))
    assert states(again.stdout) == {"greet": "reused", "extend": "reused"}
    changed_code = toys.run(two_steps(toys, word, script=COPY + "  # other code"))
    assert states(changed_code.stdout) == {"greet": "reused", "extend": "finished"}
    changed_input = toys.run(two_steps(toys, unique()))
    assert states(changed_input.stdout) == {"greet": "finished", "extend": "finished"}


def test_equal_content_is_enough_for_reuse(toys):
    """A step that ran again but wrote the same bytes does not make the next one run."""
    word = unique()
    job = two_steps(toys, word)
    toys.run(job)
    toys.component("say", "word = args.word\npathlib.Path(args.out).write_text(word)", {"word": STRING})
    assert states(toys.run(job).stdout) == {"greet": "finished", "extend": "reused"}


def test_what_is_not_deterministic_always_runs(toys):
    draw = toys.component("draw", "pathlib.Path(args.out).write_text('same')", is_deterministic=False)
    job = toys.job({"draw": {"component": draw}})
    for _ in range(2):
        assert states(toys.run(job).stdout) == {"draw": "finished"}


def test_force_rerun_reuses_nothing(toys):
    job = two_steps(toys, unique())
    toys.run(job)
    assert states(toys.run(job, "--force-rerun").stdout) == {"greet": "finished", "extend": "finished"}


def test_set_changes_a_value(toys):
    word = unique()
    done = toys.run(two_steps(toys, "unused"), "--set", f"inputs.greeting={word}", "--name", word)
    assert done.returncode == 0, done.stderr
    assert toys.output(word, "greet") == word


def test_set_path_is_relative_to_here(toys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = unique()
    (tmp_path / "here.txt").write_text(word)
    copy = toys.component("copy", COPY, {"text": "text"})
    job = toys.job(
        {"copy": {"component": copy, "inputs": {"text": "${{parent.inputs.text}}"}}},
        inputs={"text": {"type": "uri_file", "path": "../nowhere.txt"}},
    )
    done = toys.run(job, "--set", "inputs.text.path=here.txt", "--name", word)
    assert done.returncode == 0, done.stderr
    assert toys.output(word, "copy") == word


def test_set_gives_an_optional_input_that_the_job_has_left_out(toys, tmp_path, monkeypatch):
    """It goes to every step that has such an input and does not name it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    file = {"type": "uri_file", "optional": True, "description": "d"}
    script = "pathlib.Path(args.out).write_text(args.word + pathlib.Path(args.text).read_text())"
    maybe = toys.component("maybe", script, {"word": {**STRING, "optional": True}, "text": file})
    job = toys.job({"a": {"component": maybe}, "b": {"component": maybe, "inputs": {"word": "own"}}})
    name = unique()
    done = toys.run(job, "-n", name, "--set", "inputs.word=given", "inputs.text.path=notes.txt")
    assert done.returncode == 0, done.stderr
    assert toys.output(name, "a") == "givennotes"
    assert toys.output(name, "b") == "ownnotes"


def test_a_pipeline_component_is_expanded(toys):
    word = unique()
    copy = toys.component("copy", COPY, {"text": "text", "word": STRING})
    inner = {
        "type": "pipeline",
        "inputs": {"source": {"type": "uri_file"}, "word": {"type": "string", "default": "-"}},
        "outputs": {"result": {"type": "uri_file"}},
        "jobs": {
            "once": {
                "type": "command",
                "component": copy,
                "inputs": {"text": "${{parent.inputs.source}}", "word": "${{parent.inputs.word}}"},
            },
            "twice": {
                "type": "command",
                "component": copy,
                "inputs": {"text": "${{parent.jobs.once.outputs.out}}", "word": "+"},
                "outputs": {"out": "${{parent.outputs.result}}"},
            },
        },
    }
    (toys.folder / "jobs").mkdir()
    (toys.folder / "jobs" / "inner.yml").write_text(yaml.safe_dump(inner, sort_keys=False))
    say = toys.component("say", "pathlib.Path(args.out).write_text(args.word)", {"word": STRING})
    job = toys.job(
        {
            "last": {"component": copy, "inputs": {"text": "${{parent.jobs.inner.outputs.result}}", "word": "."}},
            "inner": {
                "type": "pipeline",
                "component": "./inner.yml",
                "inputs": {"source": "${{parent.jobs.first.outputs.out}}"},
            },
            "first": {"component": say, "inputs": {"word": word}},
        }
    )
    done = toys.run(job, "--name", word)
    assert done.returncode == 0, done.stderr
    assert toys.output(word, "last") == word + "-+."
    assert set(states(done.stdout)) == {"first", "inner.once", "inner.twice", "last"}


def test_an_absent_optional_port_takes_its_flag_along(toys):
    script = "pathlib.Path(args.out).write_text(repr(sorted(args)))"
    maybe = toys.component("maybe", script, {"word": {**STRING, "optional": True}})
    assert toys.run(
        toys.job({"a": {"component": maybe}, "b": {"component": maybe, "inputs": {"word": "x"}}}), "-n", "opt"
    )
    assert toys.output("opt", "a") == "['out']"
    assert toys.output("opt", "b") == "['out', 'word']"


@pytest.mark.parametrize("value", ["a b", "it's", '"quoted"', "$(touch hacked)", "a;b", "日本語 한국어"])
def test_values_are_never_read_by_a_shell(toys, value):
    say = toys.component("say", "pathlib.Path(args.out).write_text(args.word)", {"word": STRING})
    name = unique()
    done = toys.run(toys.job({"say": {"component": say, "inputs": {"word": value}}}), "-n", name)
    assert done.returncode == 0, done.stderr
    assert toys.output(name, "say") == value


def test_distribution_starts_ranks(toys):
    script = """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
    pathlib.Path(args.out, os.environ["RANK"]).write_text(" ".join(os.environ[name] for name in names))
    assert int(os.environ["MASTER_PORT"]) > 0
    """
    ranks = toys.component("ranks", script, outputs={"out": "folder"})
    name = unique()
    node = {
        "component": ranks,
        "distribution": {"type": "pytorch", "process_count_per_instance": 2},
        "resources": {"instance_count": 2},
    }
    done = toys.run(toys.job({"ranks": node}), "-n", name)
    assert done.returncode == 0, done.stderr
    folder = toys.root / "jobs" / name / "ranks" / "out"
    assert {p.name: p.read_text() for p in folder.iterdir()} == {str(r): f"{r} 4 {r} 127.0.0.1" for r in range(4)}


def of_the_component(toys, count: int, **node: object):
    """A job of one step whose component says on how many processes it runs."""
    script = "pathlib.Path(args.out, os.environ['RANK']).write_text(os.environ.get('OMP_NUM_THREADS', 'unset'))"
    distribution = {"type": "pytorch", "process_count_per_instance": count}
    more = {"distribution": distribution, "resources": {"instance_count": 1}}
    return toys.job(
        {"ranks": {"component": toys.component("ranks", script, outputs={"out": "folder"}, **more), **node}}
    )


def ranks(toys, job, *flags: str) -> dict[str, str]:
    """Rank -> OMP_NUM_THREADS of it."""
    name = unique()
    done = toys.run(job, "-n", name, *flags)
    assert done.returncode == 0, done.stderr
    return {p.name: p.read_text() for p in (toys.root / "jobs" / name / "ranks" / "out").iterdir()}


def test_the_processes_share_the_processor(toys, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("localml.process.num_cores", lambda: 8)
    assert ranks(toys, of_the_component(toys, 1)) == {"0": "unset"}
    assert ranks(toys, of_the_component(toys, 2)) == {"0": "4", "1": "4"}
    own = {"environment_variables": {"OMP_NUM_THREADS": "3"}}
    assert ranks(toys, of_the_component(toys, 2, **own)) == {"0": "3", "1": "3"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert ranks(toys, of_the_component(toys, 2, environment_variables={"TOY": "1"})) == {"0": "5", "1": "5"}


def test_the_distribution_of_the_node_wins(toys):
    two = {"type": "pytorch", "process_count_per_instance": 2}
    assert set(ranks(toys, of_the_component(toys, 1, distribution=two))) == {"0", "1"}
    one = {"type": "pytorch", "process_count_per_instance": 1}
    assert set(ranks(toys, of_the_component(toys, 2, distribution=one))) == {"0"}
    assert set(ranks(toys, of_the_component(toys, 2, resources={"instance_count": 2}))) == {"0", "1", "2", "3"}


def test_more_processes_than_cores_are_announced_and_can_be_fewer(toys, monkeypatch):
    monkeypatch.setattr("localml.process.num_cores", lambda: 2)
    eight = {"type": "pytorch", "process_count_per_instance": 8}
    job = of_the_component(toys, 1, distribution=eight, resources={"instance_count": 2})
    plan = toys.run(job, "--dry-run").stdout
    assert "ranks (ranks, 16 processes)" in plan
    assert "note: ranks: its 16 processes all run on this machine, which has 2 cores" in plan
    key = "jobs.ranks.distribution.process_count_per_instance"
    assert f"--set {key}=1 jobs.ranks.resources.instance_count=1" in plan
    flags = ["--set", f"{key}=2", "jobs.ranks.resources.instance_count=1"]
    assert set(ranks(toys, job, *flags)) == {"0", "1"}
    assert "note" not in toys.run(job, "--dry-run", *flags).stdout


def test_steps_see_the_variables_of_azure_ml_and_log_to_their_own_run(toys):
    script = """
    import json
    from mlflow.tracking import MlflowClient
    MlflowClient().log_metric(os.environ["MLFLOW_RUN_ID"], "train/loss", 0.5)
    names = ("AZUREML_RUN_ID", "MLFLOW_RUN_ID", "AZUREML_ROOT_RUN_ID", "AZURE_ML_OUTPUT_out", "TOY")
    pathlib.Path(args.out).write_text(json.dumps({**{n: os.environ.get(n) for n in names}, "path": args.out}))
    """
    name = unique()
    node = {"component": toys.component("env", script), "environment_variables": {"TOY": name}}
    done = toys.run(toys.job({"env": node}), "-n", name)
    assert done.returncode == 0, done.stderr
    seen = json.loads(toys.output(name, "env"))
    assert seen["TOY"] == name
    assert seen["AZURE_ML_OUTPUT_out"] == seen["path"]
    assert seen["AZUREML_RUN_ID"] == seen["MLFLOW_RUN_ID"]
    with sqlite3.connect(toys.root / "mlflow.db") as database:
        runs = dict(database.execute("select run_uuid, status from runs").fetchall())
        parent = database.execute(
            "select value from tags where run_uuid=? and key='mlflow.parentRunId'", (seen["MLFLOW_RUN_ID"],)
        ).fetchone()[0]
        metric = database.execute("select value from metrics where run_uuid=?", (seen["MLFLOW_RUN_ID"],)).fetchone()[0]
    assert parent == seen["AZUREML_ROOT_RUN_ID"]
    assert runs[seen["MLFLOW_RUN_ID"]] == runs[parent] == "FINISHED"
    assert metric == 0.5


def test_a_step_does_not_see_the_rest_of_this_machine(toys, monkeypatch):
    monkeypatch.setenv("A_SECRET", "s")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    script = "pathlib.Path(args.out).write_text(os.environ.get('A_SECRET', 'none') + os.environ.get('PYTHONPATH', ''))"
    name = unique()
    job = toys.job({"look": {"component": toys.component("look", script)}})
    done = toys.run(job, "-n", name)
    assert done.returncode == 0, done.stderr
    assert toys.output(name, "look") == "none"


def test_registered_assets_resolve_by_the_registry_file(toys, tmp_path):
    (tmp_path / "store").mkdir()
    word = unique()
    (tmp_path / "store" / "a.txt").write_text(word)
    registry = tmp_path / "assets.yml"
    registry.write_text("azureml://datastores/raw/paths/: store\nazureml:notes:3: store/a.txt\n")
    copy = toys.component("copy", COPY, {"text": "text"})
    nodes = {
        "by_store": "azureml://datastores/raw/paths/a.txt",
        "by_name": "azureml:notes:3",
    }
    job = toys.job(
        {
            name: {"component": copy, "inputs": {"text": {"type": "uri_file", "path": path}}}
            for name, path in nodes.items()
        }
    )
    done = toys.run(job, "--assets", str(registry), "-n", word)
    assert done.returncode == 0, done.stderr
    assert toys.output(word, "by_store") == toys.output(word, "by_name") == word


def test_dry_run_shows_the_plan_and_runs_nothing(toys):
    job = two_steps(toys, unique())
    done = toys.run(job, "--dry-run", "-n", "dry")
    assert done.returncode == 0, done.stderr
    assert "extend (copy) after greet" in done.stdout
    assert not (toys.root / "jobs" / "dry").exists()
    toys.run(job)
    assert done.stdout.count("  run   ") == 2
    assert toys.run(job, "--dry-run").stdout.count("  reuse ") == 2


def test_stream_shows_what_steps_print(toys):
    word = unique()
    say = toys.component("say", "print('says', args.word); pathlib.Path(args.out).write_text('x')", {"word": STRING})
    done = toys.run(toys.job({"say": {"component": say, "inputs": {"word": word}}}), "--stream")
    assert f"[say] says {word}" in done.stdout


def test_the_snapshot_leaves_out_what_amlignore_names(toys):
    names = "sorted(p.name for p in pathlib.Path('.').rglob('*') if p.is_file())"
    look = toys.component("look", f"pathlib.Path(args.out).write_text(repr({names}))")
    (toys.folder / "look" / ".amlignore").write_text("private.txt\n")
    for name in ("private.txt", "shared.txt"):
        (toys.folder / "look" / name).write_text(name)
    name = unique()
    assert toys.run(toys.job({"look": {"component": look}}), "-n", name).returncode == 0
    seen = toys.output(name, "look")
    assert "shared.txt" in seen and "private.txt" not in seen


@pytest.mark.parametrize("name", ["my run", "実験1", "-run", "a" * 256])
def test_a_name_that_azure_refuses_is_refused_here(toys, tmp_path, name):
    done = toys.run(tmp_path / "job.yml", f"--name={name}")
    assert done.returncode == 2
    assert f"--name/-n: {name!r}: a name is of letters" in done.stderr


def test_the_command_for_mlflow_can_be_pasted(toys, tmp_path):
    toys.root = tmp_path / "a folder"
    done = toys.run(two_steps(toys, unique()))
    line = next(line for line in done.stdout.splitlines() if line.startswith("  MLflow"))
    command = shlex.split(line)[1:]
    assert command[1:3] == ["ui", "--backend-store-uri"]
    assert command[3] == f"sqlite:///{tmp_path}/a folder/mlflow.db"


@pytest.mark.parametrize("script", ["run", "submit", "register", "compile", "lint", "catalogue"])
def test_a_python_without_the_packages(script):
    done = subprocess.run(
        [sys.executable, "-S", str(SCRIPTS / f"{script}.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"{script}.py: error: yaml is not installed in this Python ({sys.executable}): "
        f"run scripts/setup.sh, then .venv/bin/python scripts/{script}.py\n"
    )
