"""A pipeline built by the azure-ai-ml DSL runs as its compiled job does."""

import json
from pathlib import Path

import pytest

from localml import graph, jobfile
from localml.errors import RunError
from localml.session import run_pipeline

ROOT = Path(__file__).resolve().parents[2]


def described(job: object) -> dict[str, object]:
    """The graph of a job without the objects of azure-ai-ml."""
    built = graph.build(job)
    steps = {name: (step.component_name, step.inputs, step.num_processes) for name, step in built.steps.items()}
    return {"steps": steps, "outputs": built.outputs}


def test_the_dsl_gives_the_graph_of_the_compiled_job(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import compile as compiler

    preset = ROOT / "pipelines" / "presets" / "demo.yml"
    built = compiler._build(preset, compiler.read_preset(preset))
    compiled = jobfile.load(ROOT / "pipelines" / "jobs" / "demo.yml")
    assert described(built) == described(compiled)
    assert "cycle.tuned" in described(built)["steps"]


@pytest.fixture
def shout(toys):
    """A toy component, loaded for the DSL."""
    from azure.ai.ml import load_component

    text = {"type": "string", "description": "d"}
    toys.component("shout", "pathlib.Path(args.out).write_text(args.word.upper())", {"word": text})
    return load_component(toys.folder / "shout" / "component.yml")


def test_run_pipeline(toys, shout):
    from azure.ai.ml import Input
    from azure.ai.ml.dsl import pipeline

    @pipeline(display_name="shouting")
    def shouting(word: Input(type="string")):
        loud = shout(word=word)
        return {"loud": loud.outputs.out}

    outcome = run_pipeline(shouting(word="hello"), root=toys.root, name="dsl-run")
    assert outcome.outputs["loud"].read_text() == "HELLO"
    assert json.loads((outcome.runner.finished["loud"].folder / "step.json").read_text())["job"] == "dsl-run"
    with pytest.raises(RunError, match="already"):
        run_pipeline(shouting(word="hello"), root=toys.root, name="dsl-run")
