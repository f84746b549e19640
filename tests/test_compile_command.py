"""compile.py by the name of a preset, and what it says of what is no preset."""

from pathlib import Path

import pytest

import compile as compiler

ROOT = Path(__file__).resolve().parent.parent
DEMO = (ROOT / "pipelines" / "presets" / "demo.yml").read_text(encoding="utf-8")


def test_the_name_of_a_preset_is_enough(capsys):
    assert compiler.main(["--check", "demo"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("demmo", "demmo: no such preset; there are: baseline-azure, "),
        ("pipelines/presets", "pipelines/presets is a folder; name presets in it, or none for all"),
        ("pipelines/jobs/demo.yml", "pipelines/jobs/demo.yml: this is a job; compile its preset, pipelines/presets/de"),
    ],
)
def test_what_is_no_preset(given, said, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert compiler.main(["--check", given]) == 2
    assert capsys.readouterr().err.startswith(f"compile.py: error: {said}")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("compute:", "computes:", "computes: unknown key; known are: pipeline, "),
        ("  raw_data:", "  raw_dta:", "inputs: the pipeline has no input 'raw_dta'; did you mean 'raw_data'?"),
        ("  teacher:", "  xyz:", "inputs: the pipeline has no input 'xyz'; it has: raw_data, registered_model_name, "),
    ],
)
def test_a_misspelt_key(right, wrong, said, tmp_path, capsys):
    file = tmp_path / "mine.yml"
    file.write_text(DEMO.replace(f"\n{right}", f"\n{wrong}"))
    assert compiler.main(["--check", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"compile.py: error: {file}: {said}")
