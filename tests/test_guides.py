"""What the guides beside README.md say holds: commands, links, the preset and the pipeline that they show."""

import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

import compile as compiler
import run
from localml import jobfile

ROOT = Path(__file__).resolve().parents[1]
GUIDES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("pipelines/README.md", "environments/README.md")}
GUIDES["CONTRIBUTING.md"] = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)
    for text in GUIDES.values()
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
SCRIPTS = [command for command in COMMANDS if len(command) > 1 and re.match(r"scripts/\w+\.py", command[1])]
SCRIPTS = [command for command in SCRIPTS if "|" not in command]
DRY_RUNS = [command for command in SCRIPTS if command[1] == "scripts/run.py" and "--dry-run" in command]
MADE = ("finetune-mine", "select_chats")  # by what the guide says before


def block(language: str) -> tuple[str, str]:
    """The one example in a language: the path in its first line, and the text."""
    (found,) = re.findall(rf"```{language}\n(# (\S+)\n.*?)```", GUIDES["pipelines/README.md"], re.DOTALL)
    return found[1], found[0]


@pytest.mark.parametrize("command", SCRIPTS, ids=" ".join)
def test_a_script_has_the_flags_that_are_shown(command, capsys):
    """Also of its subcommand; the first words are the Python and the script."""
    assert command[0] in (".venv/bin/python", "python3", "python")
    main = importlib.import_module(Path(command[1]).stem).main
    flags = [word for word in command[2:] if re.fullmatch(r"--?[a-z][a-z-]*", word)]
    subcommand = command[2:3] if command[1] in ("scripts/workspace.py",) else []
    with pytest.raises(SystemExit) as ended:
        main([*subcommand, "--help"])
    assert ended.value.code == 0
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", capsys.readouterr().out))
    assert set(flags) <= known


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_file_that_is_named_is_there(command):
    for word in (word.rstrip(";") for word in command):
        if re.match(r"\.?/?(pipelines|scripts|tests|components|environments)/", word) and not any(
            m in word for m in MADE
        ):
            path = ROOT / word
            if path.parent.name == "jobs":  # compiled from a preset of the same name
                path = ROOT / "pipelines" / "presets" / path.name
            assert path.exists(), word


@pytest.mark.parametrize("command", DRY_RUNS, ids=" ".join)
def test_a_dry_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert run.main([*command[2:], "--root", str(tmp_path)]) == 0, capsys.readouterr().err
    assert "finetune_model" in capsys.readouterr().out


def test_the_guides_show_what_they_are_for():
    """So that no test here passes for lack of commands."""
    assert len(DRY_RUNS) >= 4
    shown = {command[1] for command in SCRIPTS}
    wanted = ("run", "submit", "workspace", "doctor", "compile", "lint", "new_component")
    assert shown >= {f"scripts/{name}.py" for name in wanted}


def test_the_preset(tmp_path):
    path, text = block("yaml")
    file = tmp_path / Path(path).name
    file.write_text(text, encoding="utf-8")
    job = yaml.safe_load(compiler.compile_preset(file)[ROOT / "pipelines" / "jobs" / file.name])
    tuned = job["jobs"]["tuned"]
    assert tuned["compute"] == "azureml:gpu-cluster"
    assert tuned["resources"] == {"instance_count": 2}
    assert tuned["distribution"] == {"type": "pytorch", "process_count_per_instance": 4}
    assert job["settings"] == {"default_compute": "azureml:cpu-cluster"}
    assert job["outputs"]["decision"]["name"] == "slm-mine-decision"
    assert (ROOT / "pipelines" / "presets" / job["inputs"]["chats"]["path"]).is_file()


def test_the_pipeline(tmp_path, monkeypatch, capsys):
    """Written where the guide says, with a preset, it compiles to a job that has these two steps."""
    for folder in ("components/_shared", "components/collect_documents", "components/redact_pii", "environments"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    path, text = block("python")
    preset = {"pipeline": "redacted", "display_name": "Redacted", "description": "Mine.", "experiment_name": "mine"}
    preset |= {"compute": {"default": "cpu-cluster"}}
    preset["inputs"] = {"raw_data": {"type": "uri_folder", "path": str(ROOT / "pipelines" / "samples" / "documents")}}
    (tmp_path / "pipelines" / "presets").mkdir(parents=True)
    (tmp_path / path).write_text(text, encoding="utf-8")
    (tmp_path / "pipelines" / "presets" / "redacted.yml").write_text(yaml.safe_dump(preset), encoding="utf-8")
    monkeypatch.setattr(compiler, "ROOT", tmp_path)
    monkeypatch.setattr(compiler, "PIPELINES", tmp_path / "pipelines")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert compiler.main([str(tmp_path / "pipelines" / "presets" / "redacted.yml")]) == 0, capsys.readouterr().err
    finally:
        sys.modules.pop("pipelines.redacted", None)
    file = tmp_path / "pipelines" / "jobs" / "redacted.yml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert {name: node["component"] for name, node in content["jobs"].items()} == {
        "collection": "../../components/collect_documents/component.yml",
        "redaction": "../../components/redact_pii/component.yml",
    }
    assert set(jobfile.load(file).outputs) == {"documents", "report"}  # as azure-ai-ml takes it


LINKS = [(name, link) for name in GUIDES for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", GUIDES[name])]


@pytest.mark.parametrize(("guide", "link"), LINKS)
def test_a_link_leads_somewhere(guide, link):
    assert ((ROOT / guide).parent / link).exists()


def test_schedules_by_their_names():
    commands = [command for command in COMMANDS if command[:3] == ["az", "ml", "schedule"]]
    created = {command[command.index("-f") + 1] for command in commands if command[3] == "create"}
    there = sorted((ROOT / "pipelines" / "schedules").glob("*.yml"))
    assert created == {file.relative_to(ROOT).as_posix() for file in there}
    names = {yaml.safe_load(file.read_text(encoding="utf-8"))["name"] for file in there}
    assert {command[command.index("-n") + 1] for command in commands if command[3] == "disable"} <= names


def test_every_pipeline_has_its_place_among_the_others():
    table = GUIDES["pipelines/README.md"].partition("## From one job")[2].partition("\n\nOn this machine")[0]
    named = set(re.findall(r"`(\w+)`", table)) | {"loop"}  # which is said below the table
    presets = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in (ROOT / "pipelines/presets").glob("*.yml")]
    assert named == {preset["pipeline"] for preset in presets}


def test_every_environment_with_its_base():
    rows = re.findall(
        r"\| \[`(\w+)`\]\(\w+\) \| .* \| (.+?) \| [\d,]* ?\| [\d,]* ?\|", GUIDES["environments/README.md"]
    )
    assert {name for name, _ in rows} == {
        path.parent.name for path in (ROOT / "environments").glob("*/environment.yml")
    }
    for name, base in rows:
        folder = ROOT / "environments" / name
        image = yaml.safe_load((folder / "environment.yml").read_text(encoding="utf-8")).get("image", "")
        if base.startswith("vLLM "):
            assert f"vllm-openai:v{base[5:]}\n" in (folder / "Dockerfile").read_text(encoding="utf-8")
        elif base == "CPU":
            assert "cuda" not in image
        else:
            assert base.lower().replace(" ", "") in image
