"""The component that CONTRIBUTING.md makes holds the contract as it is, and its own test tells when it breaks."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import new_component

ROOT = Path(__file__).resolve().parents[1]
COPIED = [
    "components/_shared",
    "components/README.md",
    "environments",
    "pyproject.toml",
    "pipelines/samples/chats.jsonl",
]
COPIED += ["tests/conftest.py", "tests/chat_endpoint.py", "tests/components/test_contract.py"]
COPIED += [f"scripts/{name}" for name in ("catalogue.py", "new_component.py", "component_template")]
COPIED += [f"scripts/{name}" for name in ("lint.py", "lint_rules", "localml")]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKE, TEST, RUN, LINT = re.search(r"ten minutes\n\n```bash\n(.*?)```", TEXT, re.DOTALL)[1].splitlines()


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """What a component needs of this repository, and one that was made in it."""
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    done = run(folder, MAKE)
    assert done.returncode == 0, done.stderr
    return folder


def run(folder: Path, line: str) -> subprocess.CompletedProcess:
    """A line of the guide, by the Python of the tests."""
    command = [sys.executable if word == ".venv/bin/python" else word for word in shlex.split(line)]
    variables = {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    while "=" in command[0]:
        name, _, value = command.pop(0).partition("=")
        variables[name] = value
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **variables})


@pytest.mark.slow
def test_it_passes_the_contract_and_its_own_test(copy):
    done = run(copy, TEST)
    assert done.returncode == 0, done.stdout[-2000:]
    # One of each kind, so that a change of the names above does not pass for success.
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    by_component = (ROOT / "tests" / "components" / "test_contract.py").read_text(encoding="utf-8")
    assert passed == by_component.count("\n@each_component\n") + 2


def test_it_runs_and_nothing_is_against_its_specification(copy):
    done = run(copy, RUN)
    assert done.returncode == 0, done.stderr
    num_chats = len((copy / "pipelines" / "samples" / "chats.jsonl").read_text(encoding="utf-8").splitlines())
    assert done.stdout == f"{num_chats} of {num_chats} chats\n"
    assert len((copy / "chats.jsonl").read_text(encoding="utf-8").splitlines()) == num_chats
    done = run(copy, LINT)
    assert done.returncode == 0, done.stdout


def test_it_is_formatted_and_in_the_catalogue(copy):
    files = "components/select_chats tests/components/test_select_chats.py"
    for command in ("check", "format --check"):
        done = run(copy, f".venv/bin/python -m ruff {command} --no-cache {files}")
        assert done.returncode == 0, done.stdout
    catalogue = (copy / "components" / "README.md").read_text(encoding="utf-8").splitlines()
    row = next(line for line in catalogue if "(select_chats)" in line)
    assert row.startswith("| data | [`select_chats`](select_chats) | Gives the chats that have a value in each of")
    assert "| `chats` | `selected_chats` | data | reused |" in row


def test_its_test_fails_once_it_is_wrong(copy, tmp_path):
    broken = tmp_path / "copy"
    shutil.copytree(copy, broken)
    main = broken / "components" / "select_chats" / "main.py"
    text = main.read_text(encoding="utf-8")
    assert text.count("not in (None,") == 1
    main.write_text(text.replace("not in (None,", "in (None,"), encoding="utf-8")
    done = run(broken, ".venv/bin/python -m pytest tests/components/test_select_chats.py -k unchanged")
    assert "1 failed" in done.stdout, done.stdout[-2000:]


def test_a_name_that_is_taken_changes_nothing(copy):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    done = run(copy, MAKE)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "new_component.py: error: components/select_chats is there already; choose another name, or remove it"
    ]
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_other_words(copy, monkeypatch, capsys):
    monkeypatch.setattr(new_component, "ROOT", copy)
    monkeypatch.setattr(new_component.catalogue, "main", lambda arguments: 0)
    assert new_component.main(["rank_answers", "--stage", "evaluate", "--takes", "predictions"]) == 0
    assert (
        "| | [`rank_answers`](components/rank_answers) | predictions -> selected_predictions |"
        in capsys.readouterr().out
    )
    spec = yaml.safe_load((copy / "components" / "rank_answers" / "component.yml").read_text(encoding="utf-8"))
    assert (spec["name"], spec["display_name"], spec["tags"]) == ("rank_answers", "Rank answers", {"stage": "evaluate"})
    assert spec["environment"] == "file:../../environments/evaluate/environment.yml"
    assert (next(iter(spec["inputs"])), list(spec["outputs"])) == ("predictions", ["selected_predictions"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["select"], "select: a component is called verb_noun"),
        (["../pick_chats"], "../pick_chats: a component is called verb_noun"),
        (["Pick_chats"], "Pick_chats: a component is called verb_noun"),
        (["pick_chats\n"], "a component is called verb_noun"),
        (["pick_chats", "--takes", "stuff"], "stuff: a port of records ends in one of: documents, chats"),
        (["pick_chats", "--gives", "chats: {}"], "chats: {}: a port of records ends in one of"),
        (["pick_chats", "--gives", "chats"], "chats: input and output need two names"),
        (["pick_chats", "--environment", "cuda"], "cuda: no such environment; there are: data, evaluate"),
        (["pick_chats", "--environment", "../environments/data"], "no such environment"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, list) else "",
)
def test_what_is_refused(copy, arguments, says, capsys, monkeypatch):
    monkeypatch.setattr(new_component, "ROOT", copy)
    assert new_component.main(arguments) == 2
    assert says in capsys.readouterr().err
    assert not (copy / "components" / "pick_chats").exists()
