"""Reads a pipeline job file with azure-ai-ml's own loader and turns its complaints into one line each."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from localml.errors import RunError


def quiet() -> None:
    """Keep azure-ai-ml from announcing its experimental classes; it sets its own level when it is imported."""
    import azure.ai.ml  # noqa: F401

    logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)


def load(path: Path, settings: Sequence[str] = ()) -> Any:
    """Load and validate a pipeline job (``azure.ai.ml.entities.PipelineJob``); ``settings`` are ``--set`` values.

    Raises ``RunError`` with file, line and field where azure-ai-ml refuses the file.
    """
    quiet()
    from azure.ai.ml import load_job
    from azure.ai.ml.exceptions import MlException
    from marshmallow.exceptions import ValidationError

    if not path.is_file():
        raise RunError(f"{path}: no such job file; the compiled jobs stand in pipelines/jobs/")
    overrides = [_override(path, setting) for setting in settings]
    try:
        job = load_job(path, params_override=overrides)
        if job.type != "pipeline":
            raise RunError(f"{path}: this is a {job.type} job; only pipeline jobs run here: make it a node of one")
        result = job._validate()  # the check that `az ml job create` makes before it sends anything
    except (MlException, ValidationError) as error:
        raise RunError(f"{path}: refused by azure-ai-ml: {_first_complaint(error)}") from error
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{path}: azure-ai-ml cannot read this: {type(error).__name__}: {error}") from error
    _check_node_inputs(path, job)
    # A compute is a matter of the workspace, so its absence does not stop a run on this machine.
    complaints = {where: what for where, what in result.error_messages.items() if not where.endswith("compute")}
    if complaints:
        where, what = next(iter(complaints.items()))
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        raise RunError(f"{path}: {where}: {what}{more}")
    return job


def _override(path: Path, setting: str) -> dict[str, Any]:
    """``a.b.c=value`` as azure-ai-ml takes it; a relative path that exists from here is meant from here."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise RunError(f"--set {setting!r}: expected KEY=VALUE, for example inputs.raw_data.path=my/documents")
    _check_key(path, key)
    value = yaml.safe_load(text) if text else text
    if key.endswith(".path") and isinstance(value, str) and "://" not in value and Path(value).exists():
        value = str(Path(value).resolve())
    return {key: value}


def _check_key(path: Path, key: str) -> None:
    """azure-ai-ml accepts any key and the value is then lost: refuse a name that the file does not have."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # the loader says what is wrong with the file
    section, _, rest = key.partition(".")
    if section in ("inputs", "jobs", "outputs") and isinstance(content, dict):
        known = content.get(section) or {}
        name = rest.partition(".")[0]
        if name not in known:
            raise RunError(f"--set {key}: the job has no {section[:-1]} {name!r}; it has: {', '.join(known) or 'none'}")


def _check_node_inputs(path: Path, job: Any) -> None:
    """azure-ai-ml drops an input that the component does not have: a misspelled name would pass for its default."""
    nodes = yaml.safe_load(path.read_text(encoding="utf-8")).get("jobs") or {}
    for name, node in job.jobs.items():
        ports = getattr(node.component, "inputs", None)
        for given in nodes.get(name, {}).get("inputs") or {}:
            if ports is not None and given not in ports:
                raise RunError(f"{path}: jobs.{name}: the component has no input {given!r}; it has: {', '.join(ports)}")


def _first_complaint(error: Exception) -> str:
    text = str(error)
    start = text.find("{")
    if start >= 0:
        try:
            details, _ = json.JSONDecoder().raw_decode(text[start:])
            first = details["errors"][0]
            # The last part of azure-ai-ml's message names the finding; what stands before is advice on other forms.
            message = first["message"].split(";")[-1].strip(" []'\"")
            line = first.get("location", "").partition("#")[2]
            return f"{first['path']}: {message}" + (f" ({line})" if line else "")
        except (ValueError, KeyError, IndexError):
            pass
    return " ".join(text.split())
