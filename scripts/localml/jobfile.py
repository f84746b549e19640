"""Reads a pipeline job file with azure-ai-ml's own loader and turns its complaints into one line each."""

import argparse
import difflib
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from localml import graph
from localml.errors import RunError
from localml.graph import component_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_TYPES = ("uri_file", "uri_folder", "mltable", "custom_model", "mlflow_model", "triton_model")
_TYPES += ("string", "integer", "number", "boolean")
# What --set may begin with: the fields of a pipeline job, of which azure-ai-ml names only the one that it refuses.
_FIELDS = ("name", "display_name", "description", "experiment_name", "tags", "properties", "settings", "compute")
_FIELDS += ("identity", "services", "inputs", "outputs", "jobs", "type", "component")


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
    content = _content(path)
    if other := _other_kind(path, content):
        raise RunError(f"{path} is {other}")
    _check_input_types(path, content)
    overrides = [override for setting in settings for override in _overrides(path, content, setting)]
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


def job_name(text: str) -> str:
    """A name that Azure ML takes, for argparse."""
    if not _NAME.fullmatch(text):
        what = "a name is of letters a to z, digits, - and _, at most 255, and no - or _ first"
        raise argparse.ArgumentTypeError(f"{text!r}: {what}")
    return text


def check_bindings(job: Any) -> None:
    """What azure-ai-ml leaves to Azure: types, enumerations, ranges, cycles; raises ``RunError``."""
    if _is_all_here(job.jobs):
        graph.build(job)


def _is_all_here(nodes: dict[str, Any]) -> bool:
    """Whether all ports are known: those of registered components Azure alone knows."""
    return all(
        node.type in ("command", "pipeline", "sweep")
        and not isinstance(component := component_of(node), str)
        and _is_all_here(getattr(component, "jobs", {}))
        for node in nodes.values()
    )


def _content(path: Path) -> dict[str, Any]:
    """The file as it is; empty where it cannot be read, since the loader says what is wrong with it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _other_kind(path: Path, content: dict[str, Any]) -> str | None:
    """What a file is that is no job, and where the job is; azure-ai-ml would name all the fields that it misses."""
    if "pipeline" in content and "type" not in content:
        job = path.parent.parent / "jobs" / path.name
        return f"a preset; its job is {job}" if job.is_file() else "a preset; scripts/compile.py makes its job"
    if not content.keys().isdisjoint({"trigger", "create_job", "create_monitor"}):
        job = content.get("create_job")
        where = os.path.normpath(path.parent / job) if isinstance(job, str) else "not in a file"
        return f"a schedule; its job is {where}"
    is_component = "component" in str(content.get("$schema")).lower() or {"name", "version"} <= content.keys()
    if is_component and content.get("type") in ("command", "parallel", "pipeline"):
        kind = "pipeline component" if content["type"] == "pipeline" else "component"
        return f"a {kind}; a job uses it, see pipelines/jobs"
    return None


def _check_input_types(path: Path, content: dict[str, Any]) -> None:
    """azure-ai-ml says of another type that the input is no number, no text and no truth value either."""
    inputs = content.get("inputs")
    for name, given in inputs.items() if isinstance(inputs, dict) else ():
        kind = given.get("type") if isinstance(given, dict) else None
        if isinstance(kind, str) and kind not in _TYPES:
            raise RunError(f"{path}: inputs.{name}.type: there is no {kind!r}; there are: {', '.join(_TYPES)}")


def _overrides(path: Path, content: dict[str, Any], setting: str) -> list[dict[str, Any]]:
    """``a.b.c=value`` as azure-ai-ml takes it; a relative path that exists from here is meant from here."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise RunError(f"--set {setting!r}: expected KEY=VALUE, for example inputs.raw_data.path=my/documents")
    value = _value(text)
    places = _places(path, content, key)
    if key.endswith(".path") and isinstance(value, str) and "://" not in value and not value.startswith("azureml:"):
        if Path(value).exists():
            value = str(Path(value).resolve())
        elif ".inputs." in f".{key}" and "${{" not in value and not (path.parent / value).exists():
            where = "" if Path(value).is_absolute() else f", neither from {Path.cwd()} nor beside the job file"
            raise RunError(f"--set {setting}: nothing there{where}; check the path")
    return [{place: value} for place in places]


def _value(text: str) -> Any:
    """Text, as `az ml` takes it, of which the field makes a number: YAML would make 1.1 of 1.10 and 83 of 0123. Lists,
    mappings and what stands in quotes are read as YAML."""
    try:
        return yaml.safe_load(text) if text.startswith(("[", "{", "'", '"')) else text
    except yaml.YAMLError:
        return text


def _places(path: Path, content: dict[str, Any], key: str) -> list[str]:
    """Where a value goes. azure-ai-ml accepts any key and the value is then lost, so a name that the file does not have
    is refused, unless it is an optional input of the steps: a job leaves out what its preset does not give."""
    section, _, rest = key.partition(".")
    if not content or (section in _FIELDS and section not in ("inputs", "jobs", "outputs")):
        return [key]
    known = content.get(section) or {}
    name, _, field = rest.partition(".")
    if section not in _FIELDS:
        raise RunError(f"--set {key}: a job has no {section!r}{_nearest(content, key)}")
    if section == "inputs" and name in known and field not in ("", "path", "type", "mode", "description"):
        raise RunError(f"--set {key}: an input has no {field!r}{_nearest(content, key)}")
    if name in known:
        return [key]
    steps = [step for step, node in (content.get("jobs") or {}).items() if name in _absent_ports(path, node)]
    if section == "inputs" and steps:
        return [f"jobs.{step}.inputs.{rest}" for step in steps]
    raise RunError(f"--set {key}: the job has no {section[:-1]} {name!r}; it has: {', '.join(known) or 'none'}")


def _nearest(content: dict[str, Any], key: str) -> str:
    """The key of the job that may be meant, or the inputs that there are."""
    inputs = content.get("inputs")
    inputs = inputs if isinstance(inputs, dict) else {}
    known = {name: f"inputs.{name}{'.path' * isinstance(given, dict)}" for name, given in inputs.items()}
    near = difflib.get_close_matches(key, [*known.values(), *_FIELDS], 1)
    near = near or [known[name] for name in difflib.get_close_matches(key, known, 1)]
    return f"; did you mean {near[0]}?" if near else f"; its inputs: {', '.join(inputs) or 'none'}"


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
