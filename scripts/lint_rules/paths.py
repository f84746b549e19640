"""Rules for files and folders that an Azure ML file names: each has to be there."""

from pathlib import Path
from typing import Any

from lint_rules.documents import Document
from lint_rules.rule import Found, rule
from slmkit.checked_files import Location

KINDS = (
    "online_deployment",
    "batch_deployment",
    "component",
    "job",
    "schedule",
    "environment",
    "model",
    "data",
)
# The key that names a file or folder, and keys whose content is not ours to look into.
NAMES_A_PATH = {"path", "code", "conda_file", "component", "create_job", "job", "environment", "additional_includes"}
NOT_A_FILE = {"inference_config", "outputs", "tags", "properties", "environment_variables"}
SCRIPTS = ("scoring_script", "entry_script")
ELSEWHERE = ("azureml:", "git+", "${{", "$[[")


@rule(*KINDS)
def missing_path(document: Document) -> Found:
    """a code folder, model, data, environment or component file that is not there"""
    for where, value in document.everything():
        if not isinstance(value, str) or not NOT_A_FILE.isdisjoint(where):
            continue
        keys = [key for key in where if isinstance(key, str)]
        if not keys or keys[-1] not in NAMES_A_PATH or keys[-2:-1] == ["inputs"]:  # an input may have any name
            continue
        local = local_path(document, keys[-1], value)
        if local and not _is_there(local):
            yield where, f"{value!r:.120} is not there; paths start at the folder of this file"


@rule("online_deployment", "batch_deployment", "component", "job")
def missing_script(document: Document) -> Found:
    """a scoring script that is not in its code folder"""
    for where, value in document.everything():
        if not where or where[-1] not in SCRIPTS or not isinstance(value, str):
            continue
        code = _inside(document.content, (*where[:-1], "code"))
        folder = local_path(document, "code", code) if isinstance(code, str) else None
        if folder and _is_there(folder) and not _is_there(folder / value):
            yield where, f"{value!r:.80} is not in {code!r:.80}; name a file of that folder"


def local_path(document: Document, key: str, value: str) -> Path | None:
    """The file or folder on this machine, if it is one there."""
    if "://" in value or value.startswith(ELSEWHERE):
        return None
    value = value.removeprefix("file:")
    if key == "environment" and not value.endswith((".yml", ".yaml")):
        return None  # the name of a registered one
    return document.path.parent / value


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name longer than a name can be
        return False


def _inside(content: Any, where: Location) -> Any:
    for step in where:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            return None
    return content
