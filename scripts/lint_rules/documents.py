"""A YAML file as the rules see it: read strictly, with its kind and the line of everything in it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from slmkit import checked_files
from slmkit.checked_files import Location

MAX_BYTES = 250_000  # a file that a person writes is a tenth of that
# By the end of the file name in $schema; the longer ones first.
SCHEMAS = {
    "onlineendpoint": "online_endpoint",
    "onlinedeployment": "online_deployment",
    "batchendpoint": "batch_endpoint",
    "batchdeployment": "batch_deployment",
    "compute": "compute",
    "computeinstance": "compute",
    "schedule": "schedule",
    "connection": "connection",
    "component": "component",
    "job": "job",
    "environment": "environment",
    "model": "model",
    "data": "data",
    "workspace": "workspace",
    "hub": "workspace",
    "project": "workspace",
    "registry": "registry",
    "azureblob": "datastore",
    "azurefile": "datastore",
    "azuredatalakegen2": "datastore",
}
DATASTORES = ("azure_blob", "azure_file", "azure_data_lake_gen1", "azure_data_lake_gen2")
CONNECTIONS = ("api_key", "azure_open_ai", "azure_ai_search", "azure_ai_services", "azure_content_safety", "custom")
CONNECTIONS += ("git", "open_ai", "python_feed", "container_registry", "serp", "serverless", "snowflake")


@dataclass(frozen=True)
class Finding:
    path: Path
    line: int
    rule: str
    said: str

    def __str__(self) -> str:
        path = self.path.relative_to(Path.cwd()) if self.path.is_relative_to(Path.cwd()) else self.path
        said = "".join(c if c.isprintable() else "?" for c in " ".join(self.said.split()))
        return f"{path}:{self.line}: {self.rule}: {said}"


class UnreadableError(Exception):
    def __init__(self, said: str, line: int = 1) -> None:
        super().__init__(said)
        self.line = line


@dataclass(frozen=True)
class Document:
    path: Path
    text: str
    content: dict[Any, Any]
    kind: str | None

    def at(self, *where: str) -> Any:
        """What stands there, None where nothing does."""
        value: Any = self.content
        for key in where:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def mapping(self, *where: str) -> dict[Any, Any]:
        value = self.at(*where)
        return value if isinstance(value, dict) else {}

    def everything(self) -> Iterator[tuple[Location, Any]]:
        """Each value with the keys that lead to it, the outer before the inner."""
        waiting: list[tuple[Location, Any]] = [((), self.content)]
        while waiting:
            where, value = waiting.pop()
            yield where, value
            if isinstance(value, dict | list):
                inner = value.items() if isinstance(value, dict) else enumerate(value)
                waiting += [((*where, key), item) for key, item in inner]

    def line_of(self, where: Location | int) -> int:
        """The line of a key, or of what it would stand in; a rule that reads the text knows its line already."""
        if isinstance(where, int):
            return where
        place = tuple(map(str, where))
        while place not in self._lines:
            place = place[:-1]
        return self._lines[place]

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        lines = {(): 1}
        root = yaml.compose(self.text, Loader=yaml.SafeLoader)
        waiting: list[tuple[tuple[str, ...], yaml.Node, yaml.Node]] = [((), root, root)] if root else []
        while waiting:
            place, starts, node = waiting.pop()
            lines[place] = starts.start_mark.line + 1
            if isinstance(node, yaml.MappingNode):
                waiting += [((*place, str(key.value)), key, value) for key, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                waiting += [((*place, str(index)), item, item) for index, item in enumerate(node.value)]
        return lines


def read(path: Path) -> Document:
    """Raises ``UnreadableError`` also for a key that stands twice and for an alias, which YAML would take."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnreadableError(f"larger than {MAX_BYTES:,} bytes; is it the file that you mean?")
        text = path.read_text(encoding="utf-8-sig")
        content = checked_files.parsed_yaml(text)
    except UnreadableError:
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UnreadableError(f"{error.problem or error.context}; write plain YAML", line) from None
    except Exception as error:  # PyYAML has many ways to say that a scalar is not what its tag promises
        raise UnreadableError(f"not UTF-8 YAML: {error or type(error).__name__}; write plain YAML") from None
    document = Document(path, text, content if isinstance(content, dict) else {}, _kind(content))
    for where, value in document.everything():
        if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to print the longest
            raise UnreadableError("a number of more than 64 bits; write a smaller one", document.line_of(where))
    return document


def _kind(content: Any) -> str | None:
    """By $schema; a file cannot evade its rules by leaving that out or inventing one, so then by what it holds."""
    if not isinstance(content, dict):
        return None
    schema = re.search(r"([A-Za-z]+)\.schema\.json$", str(content.get("$schema", "")))
    name = schema[1].lower() if schema else ""
    if kind := next((kind for ending, kind in SCHEMAS.items() if name.endswith(ending)), None):
        return kind
    type_ = content.get("type")
    if "endpoint_name" in content:
        is_batch = type_ in ("model", "pipeline") or not content.keys().isdisjoint({"mini_batch_size", "compute"})
        return "batch_deployment" if is_batch else "online_deployment"
    marks = {
        "autoscale": "profiles" in content,
        "online_endpoint": not content.keys().isdisjoint({"auth_mode", "traffic", "mirror_traffic"}),
        "schedule": "trigger" in content,
        "workspace": content.get("kind") in ("hub", "project") or "managed_network" in content,
        "registry": "replication_locations" in content,
        "datastore": isinstance(type_, str) and type_ in DATASTORES,
        "compute": not content.keys().isdisjoint({"min_instances", "max_instances"}),
        "connection": "credentials" in content or (isinstance(type_, str) and type_ in CONNECTIONS),
        "component": type_ in ("command", "parallel") and "outputs" in content and "name" in content,
        "job": "jobs" in content and type_ == "pipeline",
        "environment": "conda_file" in content or "inference_config" in content,
        "model": type_ in ("custom_model", "mlflow_model", "triton_model"),
        "data": type_ in ("uri_file", "uri_folder", "mltable") and "path" in content,
    }
    return next((kind for kind, is_it in marks.items() if is_it), None)
