"""The logs of a job and of its steps: views of the one file to which the process of the job prints."""

import re
from pathlib import Path

from localml.workspace import settings
from localml.workspace.blobs import Blobs
from localml.workspace.resource_store import ResourceStore

EXECUTION_LOG = "logs/azureml/executionlogs.txt"
STEP_LOG = "user_logs/std_log.txt"
_OF_A_STEP = re.compile(r"\[(?P<step>[\w.-]+)\] ?(?P<text>.*)")


def execution_log(root: Path, job: str) -> str:
    """What the runner says: which steps begin and end, and how."""
    return "".join(line for line in _lines(root, job) if not _OF_A_STEP.match(line))


def step_log(root: Path, job: str, step: str) -> str:
    """What a step has printed so far; one that was reused has it from the job that ran it."""
    lines = (_OF_A_STEP.match(line) for line in _lines(root, job))
    if text := "".join(f"{found['text']}\n" for found in lines if found and found["step"] == step):
        return text
    kept = root / "jobs" / job / step / "std_log.txt"
    return kept.read_text(encoding="utf-8", errors="replace") if kept.is_file() else ""


def upload(store: ResourceStore, blobs: Blobs, root: Path, job: str, container: str, path: str) -> None:
    """All logs of a job, where Azure ML keeps them: `jobs.download` takes them from there."""
    blobs.write(container, f"{path}/{EXECUTION_LOG}", execution_log(root, job).encode())
    for step, _ in store.versions("steps", job):
        blobs.write(container, f"{path}/user_logs/{step}/std_log.txt", step_log(root, job, step).encode())


def _lines(root: Path, job: str) -> list[str]:
    try:
        text = (settings.folder(root) / "jobs" / job / "std_log.txt").read_bytes().decode("utf-8", "replace")
    except OSError:
        return []
    return [f"{line}\n" for line in text.removesuffix("\n").split("\n")] if text else []  # a step may print other ends
