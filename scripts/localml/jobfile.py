"""Reads a pipeline job file with azure-ai-ml's own loader and turns its complaints into one line each."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from localml.errors import RunError
from localml.graph import component_of


def quiet() -> None:
    """Keep azure-ai-ml from announcing its experimental classes; it sets its own level when it is imported."""
    logging.getLogger("azure.ai.ml._azure_environments").setLevel(logging.CRITICAL)
    try:
        import azure.ai.ml  # noqa: F401
    except Exception as error:  # its own, which cannot be imported either: it asks for its cloud while it is imported
        if not (url := os.environ.get("ARM_CLOUD_METADATA_URL")):
            raise
        remedy = "start that workspace (scripts/workspace.py up), or unset ARM_CLOUD_METADATA_URL"
        raise RunError(f"ARM_CLOUD_METADATA_URL: {url} tells of no cloud; {remedy}") from error
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
    overrides = [override for setting in settings for override in _overrides(path, setting)]
    try:
        job = load_job(path, params_override=overrides)
        if job.type != "pipeline":
            raise RunError(f"{path}: this is a {job.type} job; only pipeline jobs run here: make it a node of one")
        result = job._validate()  # the check that `az ml job create` makes before it sends anything
    except (MlException, ValidationError) as error:
        raise RunError(f"{path}: refused by azure-ai-ml: {first_complaint(str(error))}") from error
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{path}: azure-ai-ml cannot read this: {type(error).__name__}: {error}") from error
    _check_node_inputs(path, job, [place for override in overrides for place in override])
    # A compute is a matter of the workspace, so its absence does not stop a run on this machine.
    complaints = {where: what for where, what in result.error_messages.items() if not where.endswith("compute")}
    if complaints:
        where, what = next(iter(complaints.items()))
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        raise RunError(f"{path}: {where}: {what}{more}")
    return job


def _overrides(path: Path, setting: str) -> list[dict[str, Any]]:
    """``a.b.c=value`` as azure-ai-ml takes it; a relative path that exists from here is meant from here."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise RunError(f"--set {setting!r}: expected KEY=VALUE, for example inputs.raw_data.path=my/documents")
    value = _value(text)
    if key.endswith(".path") and isinstance(value, str) and "://" not in value and Path(value).exists():
        value = str(Path(value).resolve())
    return [{place: value} for place in _places(path, key)]


def _value(text: str) -> Any:
    """Text, as `az ml` takes it, of which the field makes a number: YAML would make 1.1 of 1.10 and 83 of 0123. Lists,
    mappings and what stands in quotes are read as YAML."""
    try:
        return yaml.safe_load(text) if text.startswith(("[", "{", "'", '"')) else text
    except yaml.YAMLError:
        return text


def _places(path: Path, key: str) -> list[str]:
    """Where a value goes. azure-ai-ml accepts any key and the value is then lost, so a name that the file does not have
    is refused, unless it is an optional input of the steps: a job leaves out what its preset does not give."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return [key]  # the loader says what is wrong with the file
    section, _, rest = key.partition(".")
    if section not in ("inputs", "jobs", "outputs") or not isinstance(content, dict):
        return [key]
    known = content.get(section) or {}
    name = rest.partition(".")[0]
    if name in known:
        return [key]
    steps = [step for step, node in (content.get("jobs") or {}).items() if name in _absent_ports(path, node)]
    if section == "inputs" and steps:
        return [f"jobs.{step}.inputs.{rest}" for step in steps]
    raise RunError(f"--set {key}: the job has no {section[:-1]} {name!r}; it has: {', '.join(known) or 'none'}")


def _absent_ports(path: Path, node: dict[str, Any]) -> set[str]:
    """The optional inputs of a node's component that the job file does not give."""
    try:
        file = path.parent / (node.get("component") or node["trial"])
        ports = yaml.safe_load(file.read_text(encoding="utf-8"))["inputs"]
        return {name for name, port in ports.items() if port.get("optional")} - (node.get("inputs") or {}).keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return set()  # the loader says what is wrong with the file


def _check_node_inputs(path: Path, job: Any, set_places: list[str]) -> None:
    """azure-ai-ml drops an input that the component does not have: a misspelled name would pass for its default."""
    nodes = yaml.safe_load(path.read_text(encoding="utf-8")).get("jobs") or {}
    for name, node in job.jobs.items():
        ports = getattr(component_of(node), "inputs", None)
        start = f"jobs.{name}.inputs."
        set_inputs = [place[len(start) :].partition(".")[0] for place in set_places if place.startswith(start)]
        for given in [*(nodes.get(name, {}).get("inputs") or {}), *set_inputs]:
            if ports is not None and given not in ports:
                raise RunError(f"{path}: jobs.{name}: the component has no input {given!r}; it has: {', '.join(ports)}")


def first_complaint(text: str) -> str:
    """The first finding in a message of azure-ai-ml, which may be JSON with advice around it."""
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
