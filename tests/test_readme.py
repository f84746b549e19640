"""What the README says holds: its commands are accepted, its links lead somewhere, its list of components is whole."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

import run

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OUTPUTS = ("endpoint", "eval-items", "decision", "comparison", "privacy-decision", "canaries")
OUTPUTS += ("monitor-window", "monitor-history")  # of earlier jobs
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


def test_the_two_commands_are_there():
    """demo.sh and test.sh themselves are what a landing runs."""
    assert COMMANDS[0] == ["./scripts/demo.sh"]
    assert COMMANDS[1] == ["./scripts/test.sh"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_names_what_exists(command):
    if command[0].startswith("./"):
        assert (ROOT / command[0]).stat().st_mode & 0o111, "a script that can be started"
    elif command[0] == ".venv/bin/python":
        assert (ROOT / command[1]).is_file()
    elif command[0] == ".venv/bin/transformers":
        assert command[1] == "serve"
    elif command[0] == "eval":
        assert command[1] == "$(.venv/bin/python scripts/workspace.py env)"
    elif command[0] == "curl":
        preset = yaml.safe_load((ROOT / "pipelines" / "presets" / "release-local.yml").read_text(encoding="utf-8"))
        assert f"http://127.0.0.1:{preset['inputs']['local_port']}/v1/chat/completions" in command
        assert json.loads(command[-1])["messages"]
    elif command[:2] == ["az", "ml"] and command[2] in ("job", "environment") and command[3] == "create":
        assert (ROOT / command[command.index("-f") + 1]).is_file()
    else:
        pytest.fail(f"a kind of command that this test does not know: {command}")


@pytest.mark.parametrize("command", [c for c in COMMANDS if "--set" in c], ids=" ".join)
def test_the_values_that_are_set_exist(command, tmp_path, monkeypatch, capsys):
    """The same flags as a dry run here; data that a reader would have is put in place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "documents").mkdir(parents=True)
    (tmp_path / "my" / "documents" / "a.txt").write_text("text")
    (tmp_path / "my" / "benchmarks").mkdir()
    (tmp_path / "my" / "benchmarks" / "gsm8k-test.jsonl").write_text("{}\n")
    (tmp_path / "chats.jsonl").write_text("{}\n")
    (tmp_path / "assets.yml").write_text(
        "azureml:my-chats:1: chats.jsonl\n"
        "azureml:slm-demo@latest: my\n"
        "azureml://datastores/workspaceblobstore/paths/modelDataCollector/slm-demo-endpoint: my\n"
        "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1: my\n"
        + "".join(f"azureml:slm-demo-{output}@latest: chats.jsonl\n" for output in OUTPUTS)
        + "azureml:slm-demo-baseline@latest: my\n"
    )
    job = "pipelines/jobs/demo.yml" if command[0].startswith("./") else command[command.index("-f") + 1]
    flags = command[command.index("--set") :]
    code = run.main(["-f", str(ROOT / job), *flags, "--dry-run", "--root", ".local", "--assets", "assets.yml"])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("flag", re.findall(r"`(--[a-z-]+)[^`]*`", README))
def test_a_flag_that_is_named_is_known(flag, capsys):
    with pytest.raises(SystemExit):
        run.main(["--help"])
    assert flag in capsys.readouterr().out


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_a_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_every_component_is_named():
    named = set(re.findall(r"\(components/(\w+)\)", README))
    assert named == {path.parent.name for path in (ROOT / "components").glob("*/component.yml")}
