"""What goes wrong in a local run: one clear line, a non-zero exit, and nothing finished is lost."""

import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest
import yaml

SAY = "pathlib.Path(args.out).write_text(args.word)"
STRING = {"type": "string", "description": "d"}
RATE = {"type": "number", "min": 0, "max": 1, "default": 0.5, "description": "d"}


def one_line(done: subprocess.CompletedProcess, exit_code: int, *texts: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == exit_code, done.stderr
    assert lines[0].startswith("run.py: error: "), done.stderr
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in lines[0]
    if exit_code == 2:
        assert len(lines) == 1, done.stderr


def test_no_such_job_file(toys, tmp_path):
    one_line(toys.run(tmp_path / "absent.yml"), 2, "absent.yml", "no such job file")


def test_a_file_that_is_not_yaml(toys, tmp_path):
    path = tmp_path / "bad.yml"
    path.write_text("type: pipeline\njobs: [1\n")
    one_line(toys.run(path), 2, "bad.yml", "line 2")


def test_a_job_type_that_azure_ai_ml_does_not_know(toys, tmp_path):
    path = tmp_path / "bad.yml"
    path.write_text("type: pipelin\n")
    one_line(toys.run(path), 2, "refused by azure-ai-ml", "pipelin")


def test_a_component_file_that_is_not_there(toys):
    job = toys.job({"a": {"component": "../absent/component.yml"}})
    one_line(toys.run(job), 2, "jobs.a.component", "absent/component.yml", "No such file")


def test_a_registered_component(toys):
    one_line(toys.run(toys.job({"a": {"component": "azureml:foo:1"}})), 2, "a:", "foo:1", "workspace")


def test_a_required_input_that_is_not_given(toys):
    job = toys.job({"a": {"component": toys.component("say", SAY, {"word": STRING})}})
    one_line(toys.run(job), 2, "jobs.a.inputs.word", "Required input")


@pytest.mark.parametrize(
    ("binding", "found"),
    [
        ("${{parent.inputs.absent}}", "bound to nothing"),
        ("${{parent.jobs.absent.outputs.out}}", "bound to nothing"),
        ("${{parent.jobs.first.outputs.absent}}", "first gives: out"),
        ("${{nonsense}}", "cannot read the binding"),
    ],
)
def test_a_port_bound_to_nothing(toys, binding, found):
    say = toys.component("say", SAY, {"word": STRING})
    copy = toys.component("copy", "pass", {"text": "text"})
    job = toys.job(
        {
            "first": {"component": say, "inputs": {"word": "x"}},
            "second": {"component": copy, "inputs": {"text": binding}},
        }
    )
    one_line(toys.run(job), 2, "second.inputs.text", found)


def test_an_input_that_the_component_does_not_have(toys):
    say = toys.component("say", SAY, {"word": STRING})
    one_line(
        toys.run(toys.job({"a": {"component": say, "inputs": {"word": "x", "wrod": "y"}}})),
        2,
        "no input 'wrod'",
        "word",
    )


def test_a_cycle(toys):
    copy = toys.component("copy", "pass", {"text": "text"})
    job = toys.job(
        {
            "a": {"component": copy, "inputs": {"text": "${{parent.jobs.b.outputs.out}}"}},
            "b": {"component": copy, "inputs": {"text": "${{parent.jobs.a.outputs.out}}"}},
        }
    )
    one_line(toys.run(job), 2, "wait for each other", "a -> b -> a")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (-1, "below the minimum 0"),
        (2, "above the maximum 1"),
        ("fast", "not of type number"),
        ("nan", "nan is no finite number"),  # which is within any bounds
    ],
)
def test_a_value_out_of_bounds_is_found_before_anything_runs(toys, value, found):
    train = toys.component("train", "pass", {"rate": RATE})
    job = toys.job({"train": {"component": train, "inputs": {"rate": value}}})
    one_line(toys.run(job), 2, "train.inputs.rate", found)


@pytest.mark.parametrize("setting", ["inputs.wrod=x", "nonsense", "jobs.absent.inputs.word=x"])
def test_set_of_something_that_the_job_does_not_have(toys, setting):
    say = toys.component("say", SAY, {"word": STRING})
    job = toys.job({"a": {"component": say, "inputs": {"word": "${{parent.inputs.word}}"}}}, inputs={"word": "x"})
    one_line(toys.run(job, "--set", setting), 2, "--set", setting.split("=")[0])


def test_data_that_is_not_there(toys, tmp_path):
    copy = toys.component("copy", "pass", {"text": "folder"})
    (tmp_path / "empty").mkdir()
    for path, found in (
        ("../absent", "no file or folder"),
        ("../empty", "is empty"),
        ("azureml:notes:3", "add 'azureml:notes:3: <local path>'"),
        ("https://example.invalid/x", "not on this machine"),
    ):
        job = toys.job({"copy": {"component": copy, "inputs": {"text": {"type": "uri_folder", "path": path}}}})
        one_line(toys.run(job), 2, "copy.inputs.text", found)


def test_an_include_that_is_missing(toys):
    say = toys.component("say", SAY, {"word": STRING}, additional_includes=["../absent_library"])
    job = toys.job({"a": {"component": say, "inputs": {"word": "x"}}})
    one_line(toys.run(job), 2, "absent_library")


def test_a_job_name_is_taken_once(toys):
    job = toys.job({"a": {"component": toys.component("say", SAY, {"word": STRING}), "inputs": {"word": "x"}}})
    name = uuid.uuid4().hex
    assert toys.run(job, "-n", name).returncode == 0
    one_line(toys.run(job, "-n", name), 2, name, "already")


def test_an_unknown_flag(toys):
    done = toys.run(toys.folder / "job.yml", "--nonsense")
    assert done.returncode == 2
    assert "--nonsense" in done.stderr


def failing_job(toys, word: str, script: str) -> Path:
    say = toys.component("say", SAY, {"word": STRING})
    fail = toys.component("fail", script, {"text": "text"})
    copy = toys.component("copy", "pathlib.Path(args.out).write_text('after')", {"text": "text"})
    return toys.job(
        {
            "greet": {"component": say, "inputs": {"word": word}},
            "fail": {"component": fail, "inputs": {"text": "${{parent.jobs.greet.outputs.out}}"}},
            "after": {"component": copy, "inputs": {"text": "${{parent.jobs.fail.outputs.out}}"}},
        }
    )


def test_a_component_that_exits_3(toys):
    word = uuid.uuid4().hex
    done = toys.run(failing_job(toys, word, "print('the reason'); sys.exit(3)"), "-n", word)
    one_line(done, 1, "step fail: failed with exit code 3", "the reason")
    repeat = next(line.split("repeat: ")[1] for line in done.stderr.splitlines() if "repeat: " in line)
    again = subprocess.run(repeat.split(), capture_output=True, text=True)
    assert (again.returncode, again.stdout.strip()) == (3, "the reason")
    assert toys.output(word, "greet") == word, "what finished is kept"
    assert not (toys.root / "jobs" / word / "after").exists()
    fixed = toys.run(failing_job(toys, word, "pathlib.Path(args.out).write_text('mended')"), "-n", f"{word}2")
    assert fixed.returncode == 0
    assert "↺ greet" in fixed.stdout


def test_a_component_that_writes_no_output(toys):
    word = uuid.uuid4().hex
    one_line(toys.run(failing_job(toys, word, "pass")), 1, "step fail", "wrote nothing to its output 'out'")


def test_debug_shows_the_traceback(toys, monkeypatch):
    monkeypatch.setenv("SLMKIT_DEBUG", "")  # so that the flag's effect ends with this test
    job = failing_job(toys, uuid.uuid4().hex, "sys.exit(3)")
    assert "Traceback" in toys.run(job, "--debug").stderr


def test_the_store_cannot_be_written(toys, tmp_path):
    say = toys.component("say", SAY, {"word": STRING})
    job = toys.job({"a": {"component": say, "inputs": {"word": "x"}}})
    (tmp_path / "file").write_text("in the way")
    toys.root = tmp_path / "file"
    one_line(toys.run(job), 1, "file")


@pytest.mark.slow
def test_a_full_disk_ends_the_step_alone(toys):
    """The step may write 4 KiB: the operating system refuses the rest, as a full disk does."""
    script = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    sys.dont_write_bytecode = True  # what is cut off would stay for all others
    sys.path.insert(0, os.environ["SLMKIT"])
    from slmkit import records
    try:
        with records.write_records(pathlib.Path(args.out)) as write:
            for number in range(10_000):
                write({"id": number})
    except OSError as error:
        sys.exit(f"fail: error: {error.strerror}")
    """
    word = uuid.uuid4().hex
    job = failing_job(toys, word, script)
    content = yaml.safe_load(job.read_text())
    shared = Path(__file__).resolve().parents[2] / "components" / "_shared"
    content["jobs"]["fail"]["environment_variables"] = {"SLMKIT": str(shared)}
    job.write_text(yaml.safe_dump(content))
    done = toys.run(job, "-n", word)
    one_line(done, 1, "step fail", "File too large")
    assert toys.output(word, "greet") == word
    assert not list(toys.root.glob("work/*/outputs/out*")), "half a file must not stay"


NAMES = ("one", "two", "three")
SLOW_COPY = """
pathlib.Path(os.environ["MARKS"], args.name).write_text(str(os.getpid()))
time.sleep(0 if pathlib.Path(os.environ["MARKS"], "go-" + args.name).exists() else 60)
pathlib.Path(args.out).write_text(pathlib.Path(args.text).read_text() + args.name)
"""


def chain(toys, marks: Path, word: str) -> Path:
    """Three steps, each of which says that it has begun and then waits, unless it may go."""
    say = toys.component("say", SAY, {"word": STRING})
    copy = toys.component("copy", SLOW_COPY, {"text": "text", "name": STRING})
    jobs = {"start": {"component": say, "inputs": {"word": word}}}
    before = "start"
    for name in NAMES:
        jobs[name] = {
            "component": copy,
            "inputs": {"text": f"${{{{parent.jobs.{before}.outputs.out}}}}", "name": name},
            "environment_variables": {"MARKS": str(marks)},
        }
        before = name
    return toys.job(jobs)


def wait_for(path: Path, process: subprocess.Popen) -> int:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("killed_in", NAMES)
def test_killed_in_a_step_and_started_again(toys, tmp_path, killed_in):
    """SIGKILL leaves the step's process behind: the second start ends it, and ends with the same outputs."""
    marks, word = tmp_path / "marks", uuid.uuid4().hex
    marks.mkdir()
    job = chain(toys, marks, word)
    for name in NAMES[: NAMES.index(killed_in)]:
        (marks / f"go-{name}").touch()
    first = subprocess.Popen(toys.command(job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    orphan = wait_for(marks / killed_in, first)
    first.kill()
    first.wait()
    assert is_running(orphan)
    for name in NAMES:
        (marks / f"go-{name}").touch()
    second = toys.run(job, "-n", word)
    assert second.returncode == 0, second.stderr
    assert not is_running(orphan)
    assert toys.output(word, "three") == word + "onetwothree"
    assert second.stdout.count("reused") - 1 == 1 + NAMES.index(killed_in)  # the summary line says it once more


@pytest.mark.slow
def test_ctrl_c_stops_the_children(toys, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    job = chain(toys, marks, uuid.uuid4().hex)
    process = toys.start(job)
    child = wait_for(marks / "one", process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in stderr and "Traceback" not in stderr
    assert not is_running(child)


@pytest.mark.slow
def test_two_runs_of_one_job_do_not_disturb_each_other(toys, tmp_path):
    marks, word = tmp_path / "marks", uuid.uuid4().hex
    marks.mkdir()
    for name in NAMES:
        (marks / f"go-{name}").touch()
    job = chain(toys, marks, word)
    processes = [
        subprocess.Popen(
            toys.command(job, "-n", f"{word}-{i}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for i in range(3)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    assert {toys.output(f"{word}-{i}", "three") for i in range(3)} == {word + "onetwothree"}


def test_mlflow_store_is_not_touched_by_a_refused_job(toys, tmp_path):
    toys.root = tmp_path / "fresh"
    toys.run(tmp_path / "absent.yml")
    assert not (toys.root / "mlflow.db").exists()
    assert not list(toys.root.iterdir())
