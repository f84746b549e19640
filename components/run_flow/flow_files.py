"""A folder with flow.yaml (or Microsoft prompt flow's flow.dag.yaml) and its prompts, read into a checked flow."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import prompt_templates
from flow_graph import Flow, Location, Node, Variant, assemble, reference
from prompt_templates import Prompt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from slmkit import checked_files
from slmkit.errors import UserError

FLOW, PROMPT_FLOW = "flow.yaml", "flow.dag.yaml"
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EvalSpec(Strict):
    metric: Literal["exact_match", "f1", "contains", "json"] | None = None
    gold: str | None = None
    min_score: float = Field(default=1.0, gt=0, le=1)


class NodeSpec(Strict):
    name: Name
    prompty: str | None = None
    variants: dict[Name, str] | None = Field(default=None, min_length=1)
    inputs: dict[str, Any] = {}
    output: Literal["text", "json", "label"] = "text"
    labels: list[str] = []
    eval: EvalSpec = EvalSpec()

    @model_validator(mode="after")
    def _belongs_together(self) -> "NodeSpec":
        if (self.prompty is None) == (self.variants is None):
            raise ValueError("a node has either 'prompty' (a file) or 'variants' (a name and a file each)")
        if (self.output == "label") != bool(self.labels) or not all(label.strip() for label in self.labels):
            raise ValueError("'output: label' and 'labels' (a list of texts) belong together")
        if (self.output == "json") != ((self.eval.metric or self._metric) == "json"):
            raise ValueError("the metric json and 'output: json' belong together")
        return self

    @property
    def _metric(self) -> str:
        return "json" if self.output == "json" else "exact_match"

    @property
    def scored_by(self) -> str:
        return self.eval.metric or self._metric


class FlowSpec(Strict):
    name: str | None = None
    description: str | None = None
    nodes: list[NodeSpec] = Field(min_length=1)
    output: str
    sweep: Literal["one_factor", "grid"] = "one_factor"


def load(folder: Path) -> Flow:
    """The flow of a folder; ``UserError`` in one line with file and line of what is wrong with it."""
    path = folder / FLOW
    if path.is_file():
        spec = checked_files.load(path, FlowSpec, "a flow has 'nodes' and an 'output' such as ${answer.output}")
        return _flow(spec, folder, refusing(path))
    if (folder / PROMPT_FLOW).is_file():
        import prompt_flow_import

        return prompt_flow_import.load(folder / PROMPT_FLOW)
    raise UserError(f"{folder}: neither {FLOW} nor {PROMPT_FLOW} is there; give the folder that holds it")


def _flow(spec: FlowSpec, folder: Path, refuse: Callable[[Location, str], NoReturn]) -> Flow:
    nodes = []
    for number, entry in enumerate(spec.nodes):
        location: Location = ("nodes", number)
        for name, value in entry.inputs.items():
            if not isinstance(value, str | int | float):
                refuse((*location, "inputs", name), f"{name!r} must be a reference, a text, a number or a boolean")
        inputs = {name: reference(value, (*location, "inputs", name), refuse) for name, value in entry.inputs.items()}
        files = {"prompt": entry.prompty} if entry.variants is None else entry.variants
        at = (*location, "prompty") if entry.variants is None else (*location, "variants")
        nodes.append(
            Node(
                entry.name,
                {name: Variant(_prompt(folder, file, (*at, name), refuse), inputs) for name, file in files.items()},
                location,
                entry.output,
                entry.labels,
                entry.scored_by,
                entry.eval.gold or entry.name,
                entry.eval.min_score,
            )
        )
    return assemble(nodes, reference(spec.output, ("output",), refuse), spec.sweep, refuse)


def _prompt(folder: Path, name: str, location: Location, refuse: Callable[[Location, str], NoReturn]) -> Prompt:
    return prompt_templates.read_prompty(inside(folder, name, location, refuse))


def inside(folder: Path, name: str, location: Location, refuse: Callable[[Location, str], NoReturn]) -> Path:
    """The file of that name in the flow's folder, which it may not leave, by a link neither."""
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            refuse(location, f"{name!r} leads out of the folder of the flow; put the file in it")
        if not path.is_file():
            refuse(location, f"there is no file {name!r} in the folder of the flow")
    except (ValueError, OSError) as error:  # such as a zero byte, or a name too long
        refuse(location, f"{name[:80]!r} is no file name: {error}")
    return path


def refusing(path: Path) -> Callable[[Location, str], NoReturn]:
    """What raises the ``UserError`` of a place in a YAML file."""

    def refuse(location: Location, message: str) -> NoReturn:
        raise UserError(f"{path}:{checked_files.line_of(path.read_text(encoding='utf-8-sig'), location)}: {message}")

    return refuse
