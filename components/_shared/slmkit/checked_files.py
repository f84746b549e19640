"""YAML files that people write, such as policies and taxonomies, read into a pydantic model or refused in one line."""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from slmkit.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound="BaseModel")
Location = tuple[str | int, ...]


def load(path: Path, model: type[ModelT], hint: str = "") -> ModelT:
    """Read a YAML file into ``model``; JSON is YAML too.

    Raises ``UserError`` with file, line, key and what was found there; for an unknown key with the known ones. ``hint``
    says what the file should hold.
    """
    import pydantic

    try:
        text = path.read_text(encoding="utf-8-sig")
        content = _parsed(text)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        # An unknown key first: it is often why another one is missing.
        found = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    where, key = f"{path}:{line_of(text, found['loc'])}", ".".join(map(str, found["loc"])) or "the file"
    if found["type"] == "extra_forbidden":
        known = ", ".join(_model_at(model, found["loc"][:-1]).model_fields)
        raise UserError(f"{where}: unknown key {key!r}; known keys: {known}")
    said = found["msg"].removeprefix("Value error, ")
    raise UserError(f"{where}: {key}: {said} (found {found['input']!r:.80}){'; ' * bool(hint)}{hint}")


def _parsed(text: str) -> Any:
    """JSON first: PyYAML reads it a hundred times slower."""
    try:
        return json.loads(text)
    except ValueError:
        return parsed_yaml(text)


def parsed_yaml(text: str) -> Any:
    """The content; a ``yaml.YAMLError`` also for a key that stands twice, and for an alias."""
    return yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader)


class _StrictLoader(yaml.SafeLoader):
    """Of two rules under one key, YAML takes the last without a word; a few lines of aliases come to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(problem=f"write out *{event.anchor}", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def line_of(text: str, loc: Location) -> int:
    """The line, from 1, of the deepest part of the location that is there in a YAML text."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            inner = next((value for key, value in node.value if key.value == step), None)
        else:
            is_index = isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value)
            inner = node.value[step] if is_index else None
        if inner is None:
            break
        node = inner
    return node.start_mark.line + 1 if node else 1


def _model_at(model: "type[BaseModel]", loc: Location) -> "type[BaseModel]":
    """The model of what stands at the location."""
    for step in loc:
        if isinstance(step, str) and step in model.model_fields:
            model = next(_models_in(model.model_fields[step].annotation), model)
    return model


def _models_in(annotation: Any) -> "Iterator[type[BaseModel]]":
    if hasattr(annotation, "model_fields"):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)
