"""What is asked of the next cycle, and what became of it: the words between main.py and the three targets."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from slmkit import checked_files
from slmkit.errors import UserError

REFUSED, FAILED, BY_SERVICE = 4, 6, 8  # exit codes
NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
URI = re.compile(r"(azureml|https|abfss|wasbs|adl):/+(?P<rest>.*)", re.DOTALL)
DATA_KEYS = {"type", "path"}
SECRET = re.compile(r"[?&]sig=|://[^/@\s]*:[^/@\s]*@", re.IGNORECASE)  # of a URL


@dataclass(frozen=True)
class Wanted:
    """A job for a decision. A value is a number, text or truth value, or data as ``{"type", "path"}``."""

    name: str
    pipeline: str
    inputs: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What the receipt tells; ``endpoint`` is the content of the file with the endpoint as the job left it."""

    started: bool
    why: str
    job_name: str | None = None
    url: str | None = None
    status: str | None = None
    endpoint: bytes | None = None


def inputs(text: str | None, fresh_data: Path | None, fresh_data_input: str | None) -> dict[str, Any]:
    """The values that the pipeline gets."""
    given = _mapping(text)
    if (fresh_data is None) != (fresh_data_input is None):
        raise UserError("fresh_data and fresh_data_input belong together: give both or neither", REFUSED)
    if fresh_data is not None:
        if fresh_data_input in given:
            raise UserError(f"pipeline_inputs and fresh_data both give {fresh_data_input!r}; give it once", REFUSED)
        given[fresh_data_input] = {"type": "uri_folder", "path": address(fresh_data)}
    for name, value in given.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"pipeline_inputs: {name!r:.60} is not the name of an input", REFUSED)
        if not _is_value(value):
            raise UserError(
                f"pipeline_inputs: {name}: {value!r:.60} is neither a value nor data as {{type, path}}", REFUSED
            )
        if SECRET.search(str(value)):
            raise UserError(
                f"{name}: its URL holds a secret, which the receipt and the job would show; name the data by a "
                "datastore (azureml://datastores/NAME/paths/...)",
                REFUSED,
            )
    return given


def address(data: Path) -> str:
    """The URI that the mode ``direct`` gives in Azure, of which ``Path`` has swallowed a slash; here the path."""
    found = URI.fullmatch(str(data))
    return f"{found[1]}://{found['rest']}" if found else str(data.resolve())


def is_uri(text: str) -> bool:
    return bool(URI.fullmatch(text))


def _mapping(text: str | None) -> dict[Any, Any]:
    try:
        content = checked_files.parsed_yaml(text) if text else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"pipeline_inputs: not YAML: {' '.join(str(error).split())}", REFUSED) from None
    if not isinstance(content, dict):
        raise UserError(f"pipeline_inputs: {text!r:.60} is not a mapping like {{num_train_epochs: 2}}", REFUSED)
    return content


def _is_value(value: Any) -> bool:
    if isinstance(value, dict):
        return value.keys() == DATA_KEYS and all(isinstance(item, str) and item for item in value.values())
    return isinstance(value, str | int | float | bool)
