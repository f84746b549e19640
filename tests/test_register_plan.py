"""What register.py finds here and what it would do: content hashes, versions, order, promotion, and bad input."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import register
from localml.errors import RunError
from registration import plan, sources

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = "$schema: https://azuremlschemas.azureedge.net/latest/{}.schema.json\n"
ENVIRONMENT = "name: slm-data\nversion: 0.1.0\nimage: example/image:1\nconda_file: conda.yml\n"
COMPONENT = """\
type: command
name: count_words
version: 0.1.0
display_name: Count words
description: Counts.
tags: {stage: data}
inputs:
  texts: {type: uri_file, description: Texts to count in.}
  longest: {type: integer, default: 5, min: 1, description: Longest word.}
outputs:
  counts: {type: uri_file, description: A count a text.}
code: .
additional_includes: [../_shared/kit]
environment: file:../../environments/data/environment.yml
command: python main.py --texts ${{inputs.texts}} --longest ${{inputs.longest}} --counts ${{outputs.counts}}
"""
PARALLEL = """\
type: parallel
name: count_words_parallel
version: 0.1.0
inputs:
  texts: {type: uri_folder}
outputs:
  counts: {type: uri_folder}
input_data: ${{inputs.texts}}
mini_batch_size: "1"
task:
  type: run_function
  code: ..
  entry_script: count_words/main.py
  environment: file:../../environments/data/environment.yml
  program_arguments: --counts ${{outputs.counts}}
"""
PIPELINE = """\
type: pipeline
name: counting
version: 0.1.0
inputs:
  texts: {type: uri_file, description: What to count in.}
  longest: {type: integer, default: 5}
outputs:
  counts: {type: uri_file}
jobs:
  count:
    type: command
    component: ../../components/count_words/component.yml
    inputs: {texts: "${{parent.inputs.texts}}", longest: "${{parent.inputs.longest}}"}
    outputs: {counts: "${{parent.outputs.counts}}"}
"""
OUTER = """\
type: pipeline
name: all_counting
version: 0.1.0
inputs:
  texts: {type: uri_file}
jobs:
  inner:
    type: pipeline
    component: counting.yml
    inputs: {texts: "${{parent.inputs.texts}}"}
"""
FILES = {
    "environments/data/environment.yml": SCHEMA.format("environment") + ENVIRONMENT,
    "environments/data/conda.yml": "name: data\ndependencies: [python=3.11]\n",
    "components/_shared/kit/__init__.py": '"""Shared."""\n',
    "components/count_words/component.yml": SCHEMA.format("commandComponent") + COMPONENT,
    "components/count_words/parallel.yml": SCHEMA.format("parallelComponent") + PARALLEL,
    "components/count_words/main.py": "print('counted')\n",
    "components/other/notes.txt": "not a part of any of them\n",
    "pipelines/components/all_counting.yml": SCHEMA.format("pipelineComponent") + OUTER,
    "pipelines/components/counting.yml": SCHEMA.format("pipelineComponent") + PIPELINE,
}
ALL = ["slm-data", "count_words", "count_words_parallel", "counting", "all_counting"]


@pytest.fixture
def repository(tmp_path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def edit(repository: Path, name: str, old: str, new: str) -> None:
    text = (repository / name).read_text()
    assert old in text
    (repository / name).write_text(text.replace(old, new))


def registered(repository: Path) -> dict[str, dict[str, str]]:
    """The tags that a workspace has where all is registered as it stands."""
    return {str(source): source.tags for source in sources.read(repository)}


def actions(repository: Path, there: dict, **origin) -> dict[str, tuple[str, str]]:
    """Name -> action and why."""
    steps = plan.make(sources.read(repository), lambda source: there.get(str(source)), **origin)
    return {step.source.name: (step.action, step.why) for step in steps}


def test_dependencies_come_first_and_all_is_new_in_an_empty_workspace(repository):
    assert [source.name for source in sources.read(repository)] == ALL
    assert set(actions(repository, {}).values()) == {("register", "")}


def test_what_is_there_unchanged_is_left_as_it_is(repository):
    assert {action for action, _ in actions(repository, registered(repository)).values()} == {"unchanged"}


def test_the_hash_is_over_every_part_by_its_name(repository):
    """Worked out here once more, from the files."""
    (component,) = (source for source in sources.read(repository) if source.name == "count_words")
    parts = {name: FILES[f"components/count_words/{name}"] for name in ("component.yml", "main.py", "parallel.yml")}
    parts |= {"environment": "slm-data:0.1.0", "kit/__init__.py": FILES["components/_shared/kit/__init__.py"]}
    each = [hashlib.sha256(f"{name}\0{parts[name]}".encode()).hexdigest() for name in sorted(parts)]
    assert component.tags["content_sha256"] == hashlib.sha256("".join(each).encode()).hexdigest()


def test_a_file_called_as_a_place_is_a_part_too(repository):
    (repository / "components/count_words/environment").write_text("one")
    there = registered(repository)
    (repository / "components/count_words/environment").write_text("two")
    assert "registered: environment;" in actions(repository, there)["count_words"][1]


@pytest.mark.parametrize(
    ("file", "refused"),
    [
        (
            "components/count_words/main.py",
            {"count_words": "main.py", "count_words_parallel": "count_words/main.py"},
        ),
        (
            "components/_shared/kit/__init__.py",
            {"count_words": "kit/__init__.py", "count_words_parallel": "_shared/kit/__init__.py"},
        ),
        ("environments/data/conda.yml", {"slm-data": "conda.yml"}),
        ("components/other/notes.txt", {}),
        ("pipelines/components/counting.yml", {"counting": "counting.yml"}),
    ],
)
def test_a_change_under_the_same_version_is_refused_with_the_file(repository, file, refused):
    there = registered(repository)
    (repository / file).write_text((repository / file).read_text() + "# changed\n")
    found = actions(repository, there)
    assert {name for name, (action, _) in found.items() if action == "refuse"} == refused.keys()
    for name, changed in refused.items():
        assert f"changed since version 0.1.0 was registered: {changed}; give " in found[name][1]


def test_added_and_removed_files_are_changes(repository):
    there = registered(repository)
    (repository / "components/count_words/extra.py").write_text("")
    assert "registered: extra.py;" in actions(repository, there)["count_words"][1]
    (repository / "components/count_words/extra.py").unlink()
    (repository / "components/count_words/main.py").unlink()
    assert "registered: 1 file less;" in actions(repository, there)["count_words"][1]


def test_a_new_version_is_registered_and_what_names_it_needs_one_too(repository):
    there = registered(repository)
    edit(repository, "components/count_words/component.yml", "version: 0.1.0", "version: 0.2.0")
    found = actions(repository, there)
    assert found["count_words"] == ("register", "")
    assert "registered: jobs.count.component;" in found["counting"][1]
    assert found["slm-data"][0] == found["all_counting"][0] == "unchanged"
    edit(repository, "environments/data/environment.yml", "version: 0.1.0", "version: 0.2.0")
    assert "registered: task.environment" in actions(repository, there)["count_words_parallel"][1].replace(
        "count_words/component.yml, ", ""
    )


def test_a_version_without_our_tag_is_not_taken_for_ours(repository):
    action, why = actions(repository, {"slm-data:0.1.0": {"owner": "someone"}})["slm-data"]
    assert action == "refuse"
    assert "registered by other means" in why


def test_only_what_the_origin_has_with_the_same_content_is_promoted(repository):
    dev = registered(repository)
    there = {"slm-data:0.1.0": dev["slm-data:0.1.0"]}
    del dev["all_counting:0.1.0"]
    edit(repository, "components/count_words/main.py", "counted", "recounted")
    found = actions(repository, there, origin=("registry dev", lambda source: dev.get(str(source))))
    assert found["slm-data"][0] == "unchanged"
    assert found["counting"] == ("register", "the same as in registry dev")
    assert found["count_words"][0] == "refuse"
    assert "it is not the one in registry dev: changed" in found["count_words"][1]
    assert "main.py; check out the commit of that one" in found["count_words"][1]
    assert found["all_counting"] == ("refuse", "it is not in registry dev; register it there first")


def test_only_brings_what_it_depends_on(repository):
    here = sources.read(repository)
    assert [source.name for source in sources.chosen(here, ["counting"])] == ["slm-data", "count_words", "counting"]
    with pytest.raises(RunError, match="nothing called counting_words"):
        sources.chosen(here, ["counting_words"])


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("components/count_words/component.yml", "version: 0.1.0\n", "", "version: missing"),
        ("components/count_words/component.yml", "environments/data/", "environments/none/", "environment: file:"),
        ("components/count_words/component.yml", "[../_shared/kit]", "[../_shared/absent]", "absent"),
        ("components/count_words/component.yml", "type: uri_file", "type: uri_fold", "refused by azure-ai-ml"),
        ("components/count_words/parallel.yml", "count_words_parallel", "count_words", "is that of components"),
        ("environments/data/environment.yml", "name: slm-data", "name: [", "not YAML"),
        ("pipelines/components/counting.yml", "../../components/count_words/component.yml", "all_counting.yml", "hold"),
    ],
)
def test_what_cannot_be_registered_is_said_in_one_line(repository, file, old, new, said):
    edit(repository, file, old, new)
    with pytest.raises(RunError, match=said) as caught:
        sources.read(repository)
    assert "\n" not in str(caught.value)


def test_a_spec_is_written_with_what_is_registered(repository, tmp_path):
    """In place of files: references, the whole snapshot, and descriptions where a pipeline has none of its own."""
    folder = tmp_path / "written"
    folder.mkdir()
    by_name = {source.name: source for source in sources.read(repository)}

    def written(name: str) -> dict:
        return yaml.safe_load(by_name[name].write(folder, lambda used: f"azureml:{used}").read_text())

    component = written("count_words")
    assert component["environment"] == "azureml:slm-data:0.1.0"
    assert (folder / component["code"] / "kit" / "__init__.py").read_text() == '"""Shared."""\n'
    assert component["tags"]["stage"] == "data"
    assert "additional_includes" not in component
    assert written("count_words_parallel")["task"]["environment"] == "azureml:slm-data:0.1.0"
    pipeline = written("counting")
    assert pipeline["jobs"]["count"]["component"] == "azureml:count_words:0.1.0"
    ports = {name: port["description"] for name, port in (pipeline["inputs"] | pipeline["outputs"]).items()}
    assert ports == {"texts": "What to count in.", "longest": "Longest word.", "counts": "A count a text."}
    assert written("all_counting")["inputs"]["texts"]["description"] == "What to count in."


def test_this_repository_can_be_registered():
    """Every spec is found, and what Azure ML limits is within its limits: 50 tags of 1000 characters."""
    specs = [*ROOT.glob("components/*/*.yml"), *ROOT.glob("pipelines/components/*.yml")]
    texts = [path.read_text(encoding="utf-8") for path in [*specs, *ROOT.glob("environments/*/environment.yml")]]
    expected = sum("Component.schema.json" in text or "/environment.schema.json" in text for text in texts)
    found = sources.read(ROOT)
    assert len(found) == expected
    for source in found:
        assert source.tags.keys() == {"content_sha256", "file_hashes"}, source
        assert all(len(value) <= 1000 for value in source.tags.values())
        assert not any("__pycache__" in name for name in source.files)


def test_wrong_flags_are_refused(capsys):
    for flags in (
        ["--from-registry", "dev"],
        ["--from-registry", "dev", "--to-registry", "dev"],
        ["--dry-run", "--list"],
    ):
        with pytest.raises(SystemExit) as caught:
            register.main(flags)
        assert caught.value.code == 2
    assert "promoted to" in capsys.readouterr().err


def test_what_nobody_thought_of_is_one_line(monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "/tmp/files")

    monkeypatch.setattr(register.Destination, "connect", full)
    assert register.main(["--list"]) == 1
    said = "register.py: error: OSError: [Errno 28] No space left on device: '/tmp/files'\n"
    assert capsys.readouterr().err == said


def test_a_workspace_that_was_stopped_is_one_line():
    """azure-ai-ml asks it for its cloud while it is imported."""
    variables = os.environ | {
        "ARM_CLOUD_METADATA_URL": "https://127.0.0.1:1/metadata/endpoints",
        "AZUREML_CURRENT_CLOUD": "LocalWorkspace",
    }
    command = [sys.executable, str(ROOT / "scripts" / "register.py"), "--list"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("register.py: error: ARM_CLOUD_METADATA_URL: https://127.0.0.1:1/")
    assert done.stderr.count("\n") == 1
    assert "scripts/workspace.py up" in done.stderr


def test_without_a_workspace_it_says_what_to_give(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert register.main(["--workspace-name", "", "--dry-run"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("register.py: error: workspace: ")
    assert said.count("\n") == 1
    assert "config.json" in said
