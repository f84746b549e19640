"""Microsoft prompt flow's flow.dag.yaml of LLM and prompt nodes as a flow; what cannot be taken over is named."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import prompt_templates
from flow_files import Name, inside, refusing
from flow_graph import Flow, FromNode, FromRow, Location, Node, Variant, assemble
from flow_graph import reference as own_reference
from prompt_templates import Loose, Parameters
from pydantic import Field, ValidationError

from slmkit import checked_files

# Inputs of an LLM node that are arguments of prompt flow's tool rather than of the template, unless this reads them.
_KEPT = set(Parameters.model_fields)
_OF_THE_TOOL = _KEPT | {"deployment_name", "model", "suffix", "top_p", "n", "logprobs", "echo", "stop", "best_of"}
_OF_THE_TOOL |= {"presence_penalty", "frequency_penalty", "logit_bias", "user", "seed", "stream"}
_OF_THE_TOOL |= {"functions", "function_call", "tools", "tool_choice"}
_HARMLESS = {"deployment_name", "model", "user", "stream", "suffix", "echo", "logprobs"}
_REFUSED = {"functions", "function_call", "tools", "tool_choice"}


class Source(Loose):
    path: str | None = None


class DagNode(Loose):
    type: str = ""
    source: Source = Source()
    inputs: dict[str, Any] = Field(default={})
    activate: Any = None
    aggregation: bool = False


class NamedNode(DagNode):
    name: Name
    use_variants: bool = False


class VariantSpec(Loose):
    node: DagNode


class NodeVariants(Loose):
    default_variant_id: str
    variants: dict[Name, VariantSpec] = Field(min_length=1)


class FlowInput(Loose):
    default: Any = None


class FlowOutput(Loose):
    reference: str
    is_chat_output: bool = False


class Dag(Loose):
    inputs: dict[str, FlowInput] = Field(default={})
    outputs: dict[str, FlowOutput] = Field(min_length=1)
    nodes: list[NamedNode] = Field(min_length=1)
    node_variants: dict[str, NodeVariants] = Field(default={})


def load(path: Path) -> Flow:
    dag = checked_files.load(path, Dag, "see Microsoft prompt flow's schema of flow.dag.yaml")
    importer = _Import(path, dag, refusing(path))
    nodes = [importer.node(number, entry) for number, entry in enumerate(dag.nodes)]
    return assemble(nodes, importer.output(), "one_factor", importer.refuse, importer.notes)


class _Import:
    def __init__(self, path: Path, dag: Dag, refuse: Callable[[Location, str], NoReturn]) -> None:
        self.path, self.dag, self.refuse = path, dag, refuse
        self.notes: list[str] = []

    def node(self, number: int, entry: NamedNode) -> Node:
        location: Location = ("nodes", number)
        if not entry.use_variants:
            variants = {"prompt": self.variant(entry.name, entry, location)}
            kinds = {entry.type}
        else:
            if entry.name not in self.dag.node_variants:
                self.refuse(location, f"node {entry.name!r} uses variants, and node_variants has none for it")
            found = self.dag.node_variants[entry.name]
            if found.default_variant_id not in found.variants:
                at = ("node_variants", entry.name, "default_variant_id")
                self.refuse(at, f"there is no variant {found.default_variant_id!r} of node {entry.name!r}")
            ids = sorted(found.variants, key=lambda id: id != found.default_variant_id)  # the default first
            at = ("node_variants", entry.name, "variants")
            variants = {id: self.variant(entry.name, found.variants[id].node, (*at, id, "node")) for id in ids}
            kinds = {found.variants[id].node.type for id in ids}
        if len(kinds) > 1:
            self.refuse(location, f"the variants of node {entry.name!r} are of different types; make them all llm")
        return Node(entry.name, variants, location, gold=entry.name, asks=kinds == {"llm"})

    def variant(self, name: str, entry: DagNode, location: Location) -> Variant:
        if entry.type not in ("llm", "prompt"):
            self.refuse(
                location,
                f"node {name!r} is of type {entry.type or 'nothing'!r}, and only llm and prompt nodes can be imported; "
                "compute what it gives beforehand into a field of the eval items and read that, or write its work as a "
                "prompt in a flow.yaml",
            )
        if entry.activate or entry.aggregation:
            what = "a condition (activate)" if entry.activate else "an aggregation"
            self.refuse(location, f"node {name!r} has {what}, which cannot be imported; take it out")
        if not entry.source.path:
            self.refuse(location, f"node {name!r} has no source.path, the file of its template")
        file = inside(self.path.parent, entry.source.path, (*location, "source", "path"), self.refuse)
        prompt = prompt_templates.read_template(file)
        given = {key: value for key, value in entry.inputs.items() if value is not None and value != ""}
        of_the_tool = _OF_THE_TOOL - prompt.variables if entry.type == "llm" else set()
        settings = {key: value for key, value in given.items() if key in of_the_tool}
        if refused := sorted(settings.keys() & _REFUSED):
            self.refuse(location, f"node {name!r} calls functions ({', '.join(refused)}), which cannot be imported")
        if left_out := sorted(settings.keys() - _KEPT - _HARMLESS):
            self.notes.append(f"{name}: prompt flow's setting {', '.join(left_out)} is not taken over")
        try:
            parameters = Parameters.model_validate(settings)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            self.refuse((*location, "inputs", first["loc"][0]), f"{first['loc'][0]}: {first['msg']}")
        read = {key: value for key, value in given.items() if key not in settings}
        inputs = {key: self.reference(value, (*location, "inputs", key)) for key, value in read.items()}
        return Variant(dataclasses.replace(prompt, parameters=parameters), inputs)

    def reference(self, value: Any, location: Location) -> Any:
        """``${inputs.x}`` is a field of the row, or the default that the flow gives."""
        if not isinstance(value, str) or not value.strip().startswith("${inputs."):
            return own_reference(value, location, self.refuse)
        name = value.strip().removeprefix("${inputs.").removesuffix("}")
        if name not in self.dag.inputs:
            self.refuse(location, f"the flow has no input {name!r}; its inputs: {', '.join(self.dag.inputs) or 'none'}")
        default = self.dag.inputs[name]
        return FromRow(name, default.default) if "default" in default.model_fields_set else FromRow(name)

    def output(self) -> Any:
        chosen = {k: v for k, v in self.dag.outputs.items() if v.is_chat_output} or self.dag.outputs
        if len(chosen) > 1:
            self.refuse(("outputs",), f"one output is evaluated, found {', '.join(chosen)}; keep the one that matters")
        ((name, found),) = chosen.items()
        location = ("outputs", name, "reference")
        value = self.reference(found.reference, location)
        if not isinstance(value, FromNode):
            self.refuse(location, f"the output must be that of a node, such as ${{{self.dag.nodes[-1].name}.output}}")
        return value
