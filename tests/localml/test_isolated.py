"""Steps in an environment that is made from its pins and nothing else."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.localml.conftest import Toys

ROOT = Path(__file__).resolve().parents[2]


def environment_of(toys: Toys, *dependencies: object) -> None:
    python = f"python={sys.version_info.major}.{sys.version_info.minor}.1"
    content = {"name": "toy", "dependencies": [python, *dependencies]}
    (toys.folder / "environment" / "conda.yml").write_text(yaml.safe_dump(content))


@pytest.mark.slow
def test_a_step_sees_its_pins_and_nothing_else(toys):
    environment_of(toys, {"pip": ["six==1.17.0"]})
    script = """
    import importlib.util, six
    found = importlib.util.find_spec("yaml") is not None
    pathlib.Path(args.out).write_text(f"{six.__version__} {found} {sys.prefix}")
    """
    job = toys.job({"look": {"component": toys.component("look", script)}})
    done = toys.run(job, "--env", "isolated", "-n", "isolated")
    assert done.returncode == 0, done.stderr
    version, found, prefix = toys.output("isolated", "look").split()
    assert (version, found) == ("1.17.0", "False")
    assert Path(prefix).is_relative_to(toys.root / "envs")
    again = toys.run(job, "--env", "isolated")
    assert "reused" in again.stdout


def test_a_package_that_cannot_be_installed(toys):
    environment_of(toys, {"pip": ["six==0.0.0.0"]})
    done = toys.run(toys.job({"look": {"component": toys.component("look", "pass")}}), "--env", "isolated")
    assert done.returncode == 2
    assert "could not be installed" in done.stderr and "six==0.0.0.0" in done.stderr
    assert not list(toys.root.glob("envs/*/complete")) or "Traceback" not in done.stderr


def test_another_python_is_refused(toys):
    content = {"name": "toy", "dependencies": ["python=3.9.1", {"pip": []}]}
    (toys.folder / "environment" / "conda.yml").write_text(yaml.safe_dump(content))
    done = toys.run(toys.job({"look": {"component": toys.component("look", "pass")}}), "--env", "isolated")
    assert done.returncode == 2
    assert "needs Python 3.9" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the environments are for Python 3.11")
def test_the_data_environment_is_complete(tmp_path):
    """collect_documents and prepare_dataset run in a venv made only from environments/data/conda.yml.

    The venv is kept in .local/ of the repository, so that only the first run installs it.
    """
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "rooms.csv").write_text("Name,Phone\n" + "".join(f"Room {i},555-01{i:02}\n" for i in range(30)))
    (raw / "page.html").write_text("<h1>House rules</h1><p>Please leave the kitchen as you found it.</p>")
    components = Path(os.path.relpath(ROOT / "components", tmp_path))
    jobs = {
        "documents": {
            "type": "command",
            "component": f"{components}/collect_documents/component.yml",
            "inputs": {"raw_data": {"type": "uri_folder", "path": "./raw"}},
        },
        "seeds": {
            "type": "command",
            "component": f"{components}/build_coverage_seed/component.yml",
            "inputs": {"documents": "${{parent.jobs.documents.outputs.documents}}"},
        },
        "dataset": {
            "type": "command",
            "component": f"{components}/prepare_dataset/component.yml",
            "inputs": {"chats": "${{parent.jobs.seeds.outputs.chats}}"},
        },
    }
    job = tmp_path / "data.yml"
    settings = {"default_compute": "azureml:cpu-cluster"}
    job.write_text(yaml.safe_dump({"type": "pipeline", "settings": settings, "jobs": jobs}))
    root, name = ROOT / ".local" / "isolated-test", f"data-{secrets.token_hex(4)}"
    command = [sys.executable, str(ROOT / "scripts" / "run.py"), "-f", str(job), "--root", str(root)]
    done = subprocess.run(
        [*command, "--env", "isolated", "--force-rerun", "-n", name],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    outputs = root / "jobs" / name
    documents = [json.loads(line) for line in (outputs / "documents" / "documents").read_text().splitlines()]
    assert len(documents) == 31
    assert {"Room 7", "House rules"} <= {document.get("title") for document in documents}
    assert (outputs / "dataset" / "train_data").read_text().count("\n") > 10
