"""Presets become jobs that azure-ai-ml takes, and a preset that is wrong is refused with its file and key."""

import re
import sys
from pathlib import Path

import pytest
import yaml

import compile as compiler
from localml import graph, jobfile

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "pipelines" / "presets").glob("*.yml"))
JOBS = sorted((ROOT / "pipelines" / "jobs").glob("*.yml"))
PIPELINE_COMPONENTS = sorted((ROOT / "pipelines" / "components").glob("*.yml"))

by_name = {"ids": lambda path: path.stem}


def test_every_preset_has_a_job_and_every_job_a_preset():
    assert PRESETS
    assert [job.name for job in JOBS] == [preset.name for preset in PRESETS]


def test_no_compiled_file_is_stale():
    compiled = {path: text for preset in PRESETS for path, text in compiler.compile_preset(preset).items()}
    assert compiled.keys() == {*JOBS, *PIPELINE_COMPONENTS}
    assert [path.name for path, text in compiled.items() if path.read_text(encoding="utf-8") != text] == []


@pytest.mark.parametrize("component", PIPELINE_COMPONENTS, **by_name)
def test_azure_ai_ml_takes_the_pipeline_component(component):
    from azure.ai.ml import load_component

    loaded = load_component(component)
    assert loaded.type == "pipeline"
    assert loaded.name == component.stem
    result = loaded._validate()
    assert result.passed, result.error_messages
    declared = yaml.safe_load(component.read_text(encoding="utf-8"))["inputs"]
    sent = loaded._to_rest_object().properties.component_spec["inputs"]  # azure-ai-ml may take a port for optional
    optional = {port for port, spec in declared.items() if spec.get("optional")}
    assert {port for port, spec in sent.items() if spec.get("optional")} == optional


@pytest.mark.parametrize("job", JOBS, **by_name)
def test_azure_ai_ml_and_the_runner_take_the_job(job):
    """The runner sees what azure-ai-ml leaves to the service: types, bounds and enums, and a binding without an end."""
    loaded = jobfile.load(job)
    result = loaded._validate()
    assert result.passed, result.error_messages
    assert graph.build(loaded).steps


@pytest.mark.parametrize("path", [*JOBS, *PIPELINE_COMPONENTS], **by_name)
def test_nodes_name_their_component_by_a_relative_path(path):
    text = path.read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert not re.search(r"(?m)[:-] ['\"]?(/|~|[A-Z]:\\|file:)", text), "an absolute path"
    for node in yaml.safe_load(text)["jobs"].values():
        component = node["trial" if node["type"] == "sweep" else "component"]
        assert isinstance(component, str), "an inline component"
        assert (path.parent / component).is_file()


def test_two_nodes_of_eight_processes_train_under_zero3():
    from azure.ai.ml import load_job

    job = load_job(ROOT / "pipelines" / "jobs" / "finetune-phi4-mini-zero3-2x8.yml")
    sent = job._to_rest_object().properties.jobs["tuned"]
    assert sent["distribution"] == {"distribution_type": "PyTorch", "process_count_per_instance": 8}
    assert sent["resources"] == {"instance_count": 2}
    assert job.jobs["tuned"].compute == "gpu-cluster-8x"
    assert job.inputs["deepspeed"]._data == "zero3"
    assert [name for name, node in job.jobs.items() if node.distribution] == ["tuned"]


@pytest.mark.parametrize("name", ["optimize-tiny", "optimize-phi4-mini-lora"])
def test_a_sweep_is_sent_as_its_preset_says(name):
    from azure.ai.ml import load_job

    preset = yaml.safe_load((ROOT / "pipelines" / "presets" / f"{name}.yml").read_text(encoding="utf-8"))
    values = preset["sweep"]["tuned"]
    job = load_job(ROOT / "pipelines" / "jobs" / f"{name}.yml")
    sent = job._to_rest_object().properties.jobs["tuned"]
    assert sent["type"] == "sweep"
    assert sent["objective"] == {"goal": "minimize", "primary_metric": "eval/loss"}
    assert sent["search_space"] == values["search_space"]
    assert sent["limits"] == values["limits"]
    assert sent["sampling_algorithm"] == values["sampling_algorithm"]
    policy = {key: value for key, value in values["early_termination"].items() if key != "type"}
    assert sent["early_termination"] == {"policy_type": "Bandit", **policy}
    assert sent.get("tags", {}).get("stop_when") == values.get("stop_when")
    assert job.jobs["tuned_answers"].inputs["model"]._data == "${{parent.jobs.tuned.outputs.model}}"


COMPONENT = """
type: command
name: say
version: 0.1.0
display_name: Say
inputs:
  word: {type: string}
  rate: {type: number, default: 0.5}
  loud: {type: boolean, default: false}
  notes: {type: uri_file, optional: true}
outputs:
  text: {type: uri_file}
code: .
environment: azureml:toy:1
command: >-
  python main.py --word ${{inputs.word}} --rate ${{inputs.rate}} --loud ${{inputs.loud}}
  $[[--notes ${{inputs.notes}}]] --text ${{outputs.text}}
"""
PIPELINES = """
from pathlib import Path
from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

say = load_component(Path(__file__).parent.parent / "components" / "say" / "component.yml")

@pipeline(name="inner_toy", display_name="Inner", description="Says it.")
def inner_toy(word: Input(type="string"), rate: Input(type="number", default=0.25, min=0, max=1)):
    once = say(word=word, rate=rate, loud=False)
    return {"text": once.outputs.text}

@pipeline(name="outer_toy", display_name="Outer", description="Says it twice.")
def outer_toy(
    word: Input(type="string"),
    rate: Input(type="number", default=0.75),
    polite: Input(type="boolean", default=True),
    notes: Input(type="uri_file", optional=True),
):
    first = say(word=word, rate=rate, loud=True, notes=notes)
    second = inner_toy(word=word)
    return {"text": second.outputs.text}

@pipeline(name="sweep_toy", display_name="Sweep", description="Says the best.")
def sweep_toy(word: Input(type="string")):
    best = say(word=word, loud=True).sweep(primary_metric="volume", goal="maximize", sampling_algorithm="random")
    return {"text": best.outputs.text}
"""
PRESET = {
    "pipeline": "outer_toy",
    "display_name": "Toy",
    "description": "Two\nlines.",
    "experiment_name": "toys",
    "inputs": {"word": "hello"},
    "compute": {"default": "cpu", "first": "gpu"},
    "resources": {"first": {"instance_count": 2}},
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A repository of one component and two pipelines; gives a function that writes a preset of PRESET and changes."""
    for folder in ("components/say", "pipelines/presets"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "components" / "say" / "component.yml").write_text(COMPONENT)
    (tmp_path / "components" / "say" / "main.py").write_text("")
    for name in ("outer_toy", "sweep_toy"):
        (tmp_path / "pipelines" / f"{name}.py").write_text(PIPELINES)
    monkeypatch.setattr(compiler, "ROOT", tmp_path)
    monkeypatch.setattr(compiler, "PIPELINES", tmp_path / "pipelines")
    monkeypatch.syspath_prepend(tmp_path)

    def write(**changes: object) -> Path:
        path = tmp_path / "pipelines" / "presets" / "toy.yml"
        path.write_text(yaml.safe_dump({**PRESET, **changes}))
        return path

    yield write
    for name in ("outer_toy", "sweep_toy"):
        sys.modules.pop(f"pipelines.{name}", None)


def refused(capsys, preset: Path, *texts: str) -> None:
    assert compiler.main([str(preset)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("compile.py: error: ")
    for text in texts:
        assert text in lines[0]
    assert not (compiler.PIPELINES / "jobs").exists()


def test_the_files_that_a_preset_gives(toy):
    files = compiler.compile_preset(toy())
    assert {path.relative_to(compiler.PIPELINES).as_posix() for path in files} == {
        "jobs/toy.yml",
        "components/inner_toy.yml",
    }
    job = yaml.safe_load(files[compiler.PIPELINES / "jobs" / "toy.yml"])
    assert job == {
        "$schema": "https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json",
        "type": "pipeline",
        "display_name": "Toy",
        "description": "Two lines.",
        "experiment_name": "toys",
        "settings": {"default_compute": "azureml:cpu"},
        "inputs": {"word": "hello", "rate": 0.75, "polite": True},
        "outputs": {"text": {"type": "uri_file"}},
        "jobs": {
            "first": {
                "type": "command",
                "component": "../../components/say/component.yml",
                "inputs": {"word": "${{parent.inputs.word}}", "rate": "${{parent.inputs.rate}}", "loud": True},
                "compute": "azureml:gpu",
                "resources": {"instance_count": 2},
            },
            "second": {
                "type": "pipeline",
                "component": "../components/inner_toy.yml",
                "inputs": {"word": "${{parent.inputs.word}}"},
                "outputs": {"text": "${{parent.outputs.text}}"},
            },
        },
    }
    component = yaml.safe_load(files[compiler.PIPELINES / "components" / "inner_toy.yml"])
    assert component["inputs"] == {
        "word": {"type": "string", "optional": False},
        "rate": {"type": "number", "default": 0.25, "min": 0.0, "max": 1.0},
    }
    assert component["jobs"]["once"]["component"] == "../../components/say/component.yml"


def test_booleans_are_those_that_a_boolean_port_takes(toy):
    """Azure ML refuses the 1 and 0 that azure-ai-ml writes, which equal True and False in Python."""
    job, component = compiler.compile_preset(toy()).values()
    (sweeping,) = compiler.compile_preset(toy(**SWEEPING, sweep={"best": SWEEP})).values()
    assert "  polite: true\n" in job and "      loud: true\n" in job
    assert "      loud: false\n" in component
    assert "      loud: true\n" in sweeping


SWEEP = {
    "search_space": {"rate": {"type": "choice", "values": [0.5, 1.5]}},
    "limits": {"max_total_trials": 2},
    "sampling_algorithm": {"type": "grid"},
}
SWEEPING = {"pipeline": "sweep_toy", "compute": {"default": "cpu"}, "resources": {}}


def test_a_sweep_and_its_goal(toy):
    values = {**SWEEP, "early_termination": {"type": "median_stopping"}, "stop_when": "volume >= 9"}
    files = compiler.compile_preset(toy(**SWEEPING, sweep={"best": values}))
    job = yaml.safe_load(files[compiler.PIPELINES / "jobs" / "toy.yml"])
    assert job["jobs"]["best"] == {
        "type": "sweep",
        "trial": "../../components/say/component.yml",
        "inputs": {"word": "${{parent.inputs.word}}", "loud": True},
        "outputs": {"text": "${{parent.outputs.text}}"},
        "objective": {"goal": "maximize", "primary_metric": "volume"},
        **SWEEP,
        "early_termination": {"type": "median_stopping"},
        "tags": {"stop_when": "volume >= 9"},
    }


def test_an_output_with_a_name_is_registered(toy):
    files = compiler.compile_preset(toy(outputs={"text": {"name": "toy-text", "version": 3}}))
    path = compiler.PIPELINES / "jobs" / "toy.yml"
    job = yaml.safe_load(files[path])
    assert job["outputs"] == {"text": {"type": "uri_file", "name": "toy-text", "version": "3"}}
    assert compiler.main([str(compiler.PIPELINES / "presets" / "toy.yml")]) == 0
    output = jobfile.load(path).outputs["text"]  # as azure-ai-ml reads it
    assert (output.type, output.name, output.version) == ("uri_file", "toy-text", "3")


def test_processes_on_several_nodes(toy):
    distribution = {"type": "pytorch", "process_count_per_instance": 8}
    files = compiler.compile_preset(toy(distribution={"first": distribution}))
    job = yaml.safe_load(files[compiler.PIPELINES / "jobs" / "toy.yml"])
    assert job["jobs"]["first"]["distribution"] == distribution
    assert job["jobs"]["first"]["resources"] == {"instance_count": 2}
    assert "distribution" not in job["jobs"]["second"]


def test_an_optional_input_that_is_given_stays_bound(toy):
    notes = {"type": "uri_file", "path": "../notes.txt"}
    files = compiler.compile_preset(toy(inputs={"word": "hello", "notes": notes}))
    job = yaml.safe_load(files[compiler.PIPELINES / "jobs" / "toy.yml"])
    assert job["inputs"]["notes"] == notes
    assert job["jobs"]["first"]["inputs"]["notes"] == "${{parent.inputs.notes}}"


def test_written_once_and_stale_when_the_preset_changes(toy, capsys):
    preset = toy()
    job = compiler.PIPELINES / "jobs" / "toy.yml"
    assert compiler.main([str(preset), "--check"]) == 1
    assert not job.exists()
    assert compiler.main([str(preset)]) == 0
    assert compiler.main([str(preset), "--check"]) == 0
    capsys.readouterr()
    toy(inputs={"word": "other"})
    before = job.read_text()
    assert compiler.main([str(preset), "--check"]) == 1
    assert capsys.readouterr().out == "stale: pipelines/jobs/toy.yml\n"
    assert job.read_text() == before


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"computer": "cpu"}, ["computer: unknown key", "compute", "experiment_name"]),
        ({"inputs": {"word": "hello", "wrod": "x"}}, ["inputs: ", "'wrod'", "'word'"]),
        ({"inputs": {"rate": 0.5}}, ["inputs: word: required"]),
        ({"inputs": ["word"]}, ["inputs: ", "dictionary"]),
        ({"pipeline": "absent"}, ["pipeline: ", "pipelines/absent.py"]),
        ({"compute": {"first": "gpu"}}, ["compute: needs a default"]),
        ({"compute": {"default": "cpu", "absent": "gpu"}}, ["compute: ", "'absent'", "first, second"]),
        ({"distribution": {"absent": {"type": "pytorch"}}}, ["distribution: ", "'absent'", "first, second"]),
        ({"sweep": {"first": SWEEP}}, ["sweep: first is a command step"]),
        ({"sweep": {"first": {"limits": {}}}}, ["sweep.first.search_space: ", "required"]),
        ({"sweep": {"first": {**SWEEP, "goal": 1}}}, ["sweep.first.goal: unknown key", "stop_when"]),
        (SWEEPING, ["sweep: best needs a search_space"]),
        ({**SWEEPING, "sweep": {"best": SWEEP}, "distribution": {"best": {}}}, ["distribution: best is a sweep"]),
        ({"outputs": {"txet": {"name": "x"}}}, ["outputs: the pipeline has no output 'txet'; known: text"]),
        ({"outputs": {"text": {"nmae": "x"}}}, ["outputs.text.name: Field required"]),
        (
            {"outputs": {"text": {"name": "x", "type": "y"}}},
            ["outputs.text.type: unknown key; known are: name, version"],
        ),
        ({"outputs": {"text": {"name": "a/b"}}}, ["outputs.text.name: String should match pattern"]),
        ({"resources": {"absent": {"instance_count": 2}}}, ["resources: ", "'absent'", "first, second"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_preset_that_is_wrong(toy, capsys, changes, texts):
    refused(capsys, toy(**changes), "presets/toy.yml: ", *texts)


def test_a_key_that_is_missing(toy, capsys):
    preset = toy()
    preset.write_text(yaml.safe_dump({key: value for key, value in PRESET.items() if key != "compute"}))
    refused(capsys, preset, "presets/toy.yml: compute: ")


@pytest.mark.parametrize("content", [b"inputs: [1", b"\xff\xfe\xfa", b"- a list"])
def test_a_preset_that_is_no_mapping_in_yaml(toy, capsys, content):
    preset = toy()
    preset.write_bytes(content)
    refused(capsys, preset, "presets/toy.yml: ")


def test_no_such_preset(toy, capsys):
    refused(capsys, toy().with_name("absent.yml"), "absent.yml")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [("components", "nowhere", "No such file"), ("def outer_toy", "def renamed_toy", "outer_toy")],
)
def test_a_pipeline_that_cannot_be_loaded(toy, capsys, old, new, found):
    preset = toy()
    (compiler.PIPELINES / "outer_toy.py").write_text(PIPELINES.replace(old, new))
    refused(capsys, preset, "pipelines/outer_toy.py: ", found)
