"""Prompts of a flow: .prompty files and bare Jinja templates, rendered in a sandbox into the messages of a chat."""

import functools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slmkit import checked_files, records
from slmkit.errors import UserError

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

ROLES = ("system", "user", "assistant")
_ROLE_LINE = re.compile(rf"^[ \t]*#{{0,2}}[ \t]*({'|'.join(ROLES)})[ \t]*:[ \t]*$", re.IGNORECASE | re.MULTILINE)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|\Z)", re.DOTALL)
MAX_CHARACTERS = 1_000_000  # of a rendered prompt; a loop in a loop comes to any number
_NO_ROLE = "\ufdd0"  # no character of any text; before each line of a value, so that no value can open a turn


class Loose(BaseModel):
    """Front matter has keys, such as a connection, that mean nothing here."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Parameters(Loose):
    """What a prompt says about its answer."""

    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    response_format: dict[str, Any] | None = None


class ModelSpec(Loose):
    parameters: Parameters = Parameters()


class FrontMatter(Loose):
    model: ModelSpec = ModelSpec()
    inputs: dict[str, Any] = {}


@dataclass(frozen=True)
class Prompt:
    """A template with the inputs that have defaults and the parameters that it asks for."""

    path: Path
    template: str
    first_line: int = 1
    defaults: dict[str, Any] = field(default_factory=dict)
    parameters: Parameters = field(default_factory=Parameters)

    @functools.cached_property
    def variables(self) -> set[str]:
        """What the template reads; ``UserError`` with file and line when it is no template, or reads other files."""
        from jinja2 import TemplateSyntaxError, meta, nodes

        try:
            tree = _environment().parse(self.template)
        except TemplateSyntaxError as error:
            raise UserError(f"{self._at(error.lineno)}: the template cannot be read: {error.message}") from None
        for other in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            raise UserError(f"{self._at(other.lineno)}: a prompt stands for itself; put in what it includes or imports")
        return meta.find_undeclared_variables(tree) - set(_environment().globals)

    def check(self, inputs: set[str], node: str) -> None:
        """Every variable of the template is an input of the node, or has a default."""
        for name in sorted(self.variables - inputs - set(self.defaults)):
            known = ", ".join(sorted(inputs | set(self.defaults))) or "none"
            raise UserError(
                f"{self._line_with(name)}: the template reads {name!r}, which is no input of node {node!r}; "
                f"its inputs: {known}"
            )

    def text(self, inputs: dict[str, Any]) -> str:
        """The rendered template; ``ValueError`` when these inputs do not fit it."""
        return self._rendered(inputs).replace(_NO_ROLE, "").strip()

    def messages(self, inputs: dict[str, Any]) -> list[dict[str, str]]:
        """The rendered template cut at its role lines; without any it is the user's turn.

        A role line is one of the template, never one of an input. Text before the first is the system's turn, as
        Prompty has it.
        """
        before, *turns = _ROLE_LINE.split(self._rendered(inputs))
        pairs = [(role.lower(), content) for role, content in zip(turns[::2], turns[1::2], strict=True)]
        if before.replace(_NO_ROLE, "").strip():
            pairs.insert(0, ("system" if pairs else "user", before))
        messages = [{"role": role, "content": content.replace(_NO_ROLE, "").strip()} for role, content in pairs]
        records.check_chat({"messages": messages})
        if messages[-1]["role"] != "user":
            raise ValueError(f"the prompt ends with the {messages[-1]['role']}'s turn; it must end with the user's")
        return messages

    def _rendered(self, inputs: dict[str, Any]) -> str:
        from jinja2 import TemplateError

        parts, size = [], 0
        try:
            for part in _compiled(self.template).generate(self.defaults | inputs):
                parts.append(part)
                size += len(part)
                if size > MAX_CHARACTERS:
                    raise ValueError(f"the prompt has more than {MAX_CHARACTERS:,} characters")
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise ValueError(f"{self.path.name}: the template does not take its inputs: {error}") from None
        except MemoryError:
            raise ValueError(f"{self.path.name}: the template takes more memory than there is") from None
        return "".join(parts)

    def _line_with(self, name: str) -> str:
        found = re.search(rf"\b{re.escape(name)}\b", self.template)
        return self._at(self.template.count("\n", 0, found.start()) + 1 if found else 1)

    def _at(self, line: int) -> str:
        return f"{self.path}:{self.first_line + line - 1}"


def read_template(path: Path) -> Prompt:
    """A file that is all template, as the nodes of a flow.dag.yaml have it."""
    return Prompt(path, _read(path))


def read_prompty(path: Path) -> Prompt:
    """A .prompty file: front matter in YAML, then the template."""
    text = _read(path)
    found = _FRONT_MATTER.match(text)
    if not found:
        raise UserError(f"{path}:1: a .prompty file begins with its front matter (YAML) between two lines of ---")
    head, body = found[1] or "", text[found.end() :]
    try:
        front = FrontMatter.model_validate(checked_files.parsed_yaml(head) or {})
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}:{error.problem_mark.line + 2}: the front matter is no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}:1: the front matter is no YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        line = checked_files.line_of(head, first["loc"]) + 1
        key = ".".join(map(str, first["loc"])) or "the front matter"
        raise UserError(f"{path}:{line}: {key}: {first['msg']} (found {first['input']!r:.80})") from None
    first_line = text.count("\n", 0, found.end()) + 1
    if not body.strip():
        raise UserError(f"{path}:{first_line}: no prompt after the front matter")
    entries = {name: entry for name, entry in front.inputs.items() if isinstance(entry, dict)}
    defaults = {name: entry["default"] for name, entry in entries.items() if "default" in entry}
    return Prompt(path, body, first_line, defaults, front.model.parameters)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from None


@functools.cache
def _environment() -> "ImmutableSandboxedEnvironment":
    """A sandbox without a loader: templates come with the flow, and reach neither Python nor other files."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Blocks are trimmed as in prompt flow, so that a template gives the same text here.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, finalize=_finalize)
    del environment.globals["lipsum"]
    return environment


@functools.cache
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


def _finalize(value: Any) -> Any:
    """A value as it stands in a prompt: JSON as JSON, and no line of it a role line."""
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str) or value in ROLES:  # {{ turn.role }}: is how a template writes a history
        return value
    return _NO_ROLE + value.replace("\n", f"\n{_NO_ROLE}")
