"""A prompt flow: nodes that read the row and each other, checked to be whole, in the order in which they run."""

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from prompt_templates import Prompt

from slmkit.answer_text import normalize
from slmkit.errors import UserError

BASELINE = "baseline"
MISSING = object()
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_FENCED = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)
Location = tuple[str | int, ...]
Refuse = Callable[[Location, str], NoReturn]


@dataclass(frozen=True)
class FromRow:
    """``${row.question}``: the last message of the eval item, or a field of it that is text."""

    name: str
    default: Any = MISSING


@dataclass(frozen=True)
class FromNode:
    """``${topic.output}``, or a part of what a node with output json says: ``${details.output.days}``."""

    node: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    prompt: Prompt
    inputs: Mapping[str, Any]  # FromRow, FromNode or a literal

    @property
    def reads(self) -> list[FromNode]:
        return [value for value in self.inputs.values() if isinstance(value, FromNode)]


@dataclass(frozen=True)
class Node:
    name: str
    variants: Mapping[str, Variant]  # the first is the baseline's
    location: Location
    output: str = "text"
    labels: Sequence[str] = ()
    metric: str = "exact_match"
    gold: str = ""  # the key in node_outputs
    min_score: float = 1.0
    asks: bool = True  # a prompt node of prompt flow only renders

    @property
    def upstream(self) -> set[str]:
        return {value.node for variant in self.variants.values() for value in variant.reads}

    def parse(self, text: str) -> Any:
        """What an answer says, as the node's kind of output; ``ValueError`` when it says no such thing."""
        if self.output == "json":
            return _json(text)
        return self._label(text) if self.output == "label" else text.strip()

    def _label(self, text: str) -> str:
        """The label that the answer is, or the only one that it names; one within another named one does not count."""
        said, known = normalize(text), {normalize(label): label for label in self.labels}
        if said in known:
            return known[said]
        named = [form for form in known if re.search(rf"(?<![a-z0-9_]){re.escape(form)}(?![a-z0-9_])", said)]
        named = [form for form in named if not any(form != other and form in other for other in named)]
        if len(named) != 1:
            count = "none" if not named else "more than one"
            raise ValueError(f"the answer names {count} of the labels {', '.join(self.labels)}: {text.strip()!r:.80}")
        return known[named[0]]


@dataclass(frozen=True)
class Flow:
    nodes: Sequence[Node]  # each after those that it reads
    output: str
    sweep: str = "one_factor"
    notes: Sequence[str] = field(default=())  # what an import left out

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def candidates(self, max_num_variants: int) -> dict[str, dict[str, str]]:
        """Variant name -> the variant of each node; the baseline first."""
        if self.sweep == "grid":
            size = math.prod(len(node.variants) for node in self.nodes)
        else:
            size = 1 + sum(len(node.variants) - 1 for node in self.nodes)
        if size > max_num_variants:
            raise UserError(
                f"sweep: {self.sweep} gives {size} variants of the flow, more than "
                f"max_num_variants={max_num_variants}: raise that, take prompts out, or set sweep: one_factor"
            )
        first = {node.name: next(iter(node.variants)) for node in self.nodes}
        if self.sweep == "grid":
            chosen = itertools.product(*(node.variants for node in self.nodes))
            combinations = [dict(zip(first, choice, strict=True)) for choice in chosen]
        else:
            others = [{node.name: name} for node in self.nodes for name in list(node.variants)[1:]]
            combinations = [first, *(first | other for other in others)]
        return {_title(first, combination): combination for combination in combinations}


def _title(first: dict[str, str], combination: dict[str, str]) -> str:
    changed = [f"{node}-{variant}" for node, variant in combination.items() if first[node] != variant]
    return ".".join(changed) or BASELINE


def reference(value: Any, location: Location, refuse: Refuse) -> Any:
    """A value of ``inputs`` as FromRow or FromNode where it is a reference, else itself."""
    if not isinstance(value, str) or "${" not in value:
        return value
    found = _REFERENCE.fullmatch(value.strip())
    head, *rest = found[1].strip().split(".") if found else [""]
    if head == "row" and rest and all(rest):
        return FromRow(".".join(rest))
    if rest and rest[0] == "output" and _NAME.fullmatch(head) and all(rest):
        return FromNode(head, tuple(rest[1:]))
    refuse(location, f"{value!r} is no reference; write ${{row.<field>}} or ${{<node>.output}}, and nothing around it")


def assemble(nodes: Sequence[Node], output: Any, sweep: str, refuse: Refuse, notes: Sequence[str] = ()) -> Flow:
    """The flow of these nodes; refused when a name, a reference, an input or the order does not work out."""
    by_name: dict[str, Node] = {}
    for node in nodes:
        if node.name in by_name or node.name == "row":
            what = "stands for the eval item" if node.name == "row" else "is the name of an earlier node too"
            refuse((*node.location, "name"), f"{node.name!r} {what}; give each node a name of its own")
        by_name[node.name] = node
    for node in nodes:
        _check_references(node, by_name, refuse)
        _check_templates(node, refuse)
    if not isinstance(output, FromNode) or output.keys or output.node not in by_name:
        known = ", ".join(f"${{{name}.output}}" for name in by_name)
        refuse(("output",), f"the output of the flow must be that of a node: {known}")
    ordered = _ordered(by_name, refuse)
    used = {output.node}.union(*(node.upstream for node in nodes))
    for node in nodes:
        if node.name not in used:
            refuse(node.location, f"nothing reads node {node.name!r}; use its output, or take it out")
    return Flow(ordered, output.node, sweep, tuple(notes))


def _check_references(node: Node, by_name: Mapping[str, Node], refuse: Refuse) -> None:
    for variant in node.variants.values():
        for name, value in variant.inputs.items():
            location = (*node.location, "inputs", name)
            if isinstance(value, FromNode) and value.node not in by_name:
                refuse(location, f"there is no node {value.node!r}; the nodes: {', '.join(by_name)}")
            if isinstance(value, FromNode) and value.keys and by_name[value.node].output != "json":
                refuse(location, f"node {value.node!r} has no parts to read; its output is not json")


def _check_templates(node: Node, refuse: Refuse) -> None:
    for variant in node.variants.values():
        variant.prompt.check(set(variant.inputs), node.name)
    read = set().union(*(variant.prompt.variables for variant in node.variants.values()))
    for variant in node.variants.values():
        for name in variant.inputs:
            if name not in read:
                refuse((*node.location, "inputs", name), f"no template of node {node.name!r} reads its input {name!r}")


def _ordered(by_name: Mapping[str, Node], refuse: Refuse) -> list[Node]:
    """Topological, and otherwise as written."""
    ordered: dict[str, Node] = {}
    while len(ordered) < len(by_name):
        ready = [node for name, node in by_name.items() if name not in ordered and node.upstream <= ordered.keys()]
        if not ready:
            left = [node for name, node in by_name.items() if name not in ordered]
            refuse(left[0].location, f"the nodes {', '.join(n.name for n in left)} wait for each other (a cycle)")
        ordered |= {node.name: node for node in ready}
    return list(ordered.values())


def _json(text: str) -> Any:
    fenced = _FENCED.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text, parse_constant=_no_number)
        as_text(value).encode()
    except (ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError: half a character
        raise ValueError(f"the answer is no JSON ({error}): {text.strip()!r:.80}") from None
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def as_text(value: Any) -> str:
    """An output as it stands in the records."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
