"""The steps of a pipeline job: pipeline components expanded, bindings resolved, order found, values checked."""

import dataclasses
import graphlib
import re
from pathlib import Path
from typing import Any

from localml import sweep_plan
from localml.errors import RunError
from localml.ports import Binding, Bound, Data, FromStep, Literal, checked
from localml.sweep_plan import Plan

_BINDING = re.compile(r"^\$\{\{\s*parent\.(inputs|outputs|jobs)\.(.+?)\s*\}\}$")


@dataclasses.dataclass(frozen=True)
class Step:
    """One command to run. ``name`` is dotted where the step stands in a pipeline component; ports that are absent are
    not in ``inputs``."""

    name: str
    component: Any  # azure.ai.ml.entities.CommandComponent
    inputs: dict[str, Binding]
    environment_variables: dict[str, str]
    num_processes: int
    distributed: bool
    sweep: Plan | None = None  # of a step that runs its component once a trial

    @property
    def component_name(self) -> str:
        """The name in the component's file; azure-ai-ml calls every component from a file ``azureml_anonymous``."""
        return Path(self.component._source_path).parent.name if self.component._source_path else self.component.name

    @property
    def needs(self) -> set[str]:
        """The names of the steps whose outputs this one reads."""
        return {binding.step for binding in self.inputs.values() if isinstance(binding, FromStep)}


@dataclasses.dataclass(frozen=True)
class Graph:
    """The steps of a job in an order in which they can run, and where its outputs come from."""

    steps: dict[str, Step]
    outputs: dict[str, FromStep]


def build(job: Any) -> Graph:
    """Flatten a pipeline job into ``Step``s; raises ``RunError`` for a binding to nothing, a cycle or a bad value."""
    # A pipeline of the DSL binds its nodes also to optional inputs that were not given.
    inputs: Bound = {name: None for name, port in job.component.inputs.items() if port.optional}
    inputs |= {name: _binding_of(_given(port)) for name, port in job.inputs.items()}
    steps, outputs = _expand(job.jobs, inputs, prefix="")
    try:
        order = list(
            graphlib.TopologicalSorter({name: sorted(step.needs) for name, step in steps.items()}).static_order()
        )
    except graphlib.CycleError as error:
        raise RunError(f"the steps wait for each other: {' -> '.join(reversed(error.args[1]))}") from None
    return Graph({name: steps[name] for name in order}, outputs)


def _expand(nodes: dict[str, Any], parent: Bound, prefix: str) -> tuple[dict[str, Step], dict[str, FromStep]]:
    """Steps of ``nodes`` whose pipeline has the inputs ``parent``, and the outputs that the pipeline gives outside."""
    steps: dict[str, Step] = {}
    inner_outputs: dict[str, dict[str, FromStep]] = {}  # outputs of pipeline components, by node
    pending = dict(nodes)
    for name, node in nodes.items():
        if node.type not in ("command", "pipeline", "sweep"):
            raise RunError(
                f"{prefix}{name}: a {node.type} node cannot run on this machine yet; run this job on Azure ML"
            )
        if isinstance(component := component_of(node), str):
            raise RunError(f"{prefix}{name}: component {component} is in a workspace; name its file instead")
    # A pipeline component's outputs are known once it is expanded, so nodes wait for those that they read from.
    while pending:
        ready = [name for name, node in pending.items() if not (_nodes_read(node) & _pipelines(pending, but=name))]
        if not ready:
            raise RunError(f"the steps wait for each other: {' -> '.join(f'{prefix}{name}' for name in pending)}")
        for name in ready:
            node = pending.pop(name)
            bound = _bind(f"{prefix}{name}", node, parent, nodes, inner_outputs, prefix)
            if node.type == "pipeline":
                more, inner_outputs[name] = _expand(node.component.jobs, bound, f"{prefix}{name}.")
                steps.update(more)
            else:
                steps[f"{prefix}{name}"] = _step(f"{prefix}{name}", node, bound)
    return steps, _exported(nodes, inner_outputs, prefix)


def _pipelines(nodes: dict[str, Any], but: str) -> set[str]:
    return {name for name, node in nodes.items() if node.type == "pipeline" and name != but}


def _nodes_read(node: Any) -> set[str]:
    given = (_given(port) for port in node.inputs.values())
    matches = (_BINDING.match(value) for value in given if isinstance(value, str))
    return {match[2].split(".")[0] for match in matches if match and match[1] == "jobs"}


def _bind(
    where: str,
    node: Any,
    parent: Bound,
    nodes: dict[str, Any],
    inner_outputs: dict[str, dict[str, FromStep]],
    prefix: str,
) -> Bound:
    bound: Bound = {}
    for name, port in component_of(node).inputs.items():
        if node.type == "sweep" and name in (node.search_space or {}):
            continue
        given = _given(node.inputs[name]) if name in node.inputs else None
        binding = _resolve(f"{where}.inputs.{name}", given, parent, nodes, inner_outputs, prefix)
        if binding is None and port.default is not None:
            binding = Literal(port.default)
        if binding is None and not port.optional:
            raise RunError(f"{where}: the required input {name!r} is bound to nothing")
        bound[name] = None if binding is None else checked(f"{where}.inputs.{name}", port, binding)
    return bound


def _resolve(
    where: str,
    given: Any,
    parent: Bound,
    nodes: dict[str, Any],
    inner_outputs: dict[str, dict[str, FromStep]],
    prefix: str,
) -> Binding | None:
    if not isinstance(given, str) or "${{" not in given:
        return _binding_of(given)
    match = _BINDING.match(given)
    if not match:
        raise RunError(f"{where}: cannot read the binding {given!r}")
    kind, rest = match[1], match[2].split(".")
    if kind == "inputs":
        if rest[0] not in parent:
            raise RunError(
                f"{where}: {given} is bound to nothing; the pipeline has: {', '.join(parent) or 'no inputs'}"
            )
        return parent[rest[0]]
    if kind != "jobs" or len(rest) != 3 or rest[1] != "outputs":
        raise RunError(f"{where}: cannot read the binding {given!r}")
    step, _, port = rest
    if step not in nodes:
        raise RunError(f"{where}: {given} is bound to nothing; the pipeline has the steps: {', '.join(nodes)}")
    outputs = component_of(nodes[step]).outputs
    if port not in outputs:
        raise RunError(f"{where}: {given} is bound to nothing; {step} gives: {', '.join(outputs)}")
    return inner_outputs[step][port] if step in inner_outputs else FromStep(f"{prefix}{step}", port)


def _given(port: Any) -> Any:
    """What a port is bound to, as a job file writes it; the DSL holds objects in the place of ``${{...}}``."""
    data = port._data
    return data._data_binding() if hasattr(data, "_data_binding") else data


def _binding_of(given: Any) -> Binding | None:
    if given is None:
        return None
    if isinstance(given, (str, int, float, bool)):
        return Literal(given)
    path = getattr(given, "path", None)  # azure.ai.ml.Input
    return None if path is None else Data(str(path))


def component_of(node: Any) -> Any:
    """The component that a node runs: a sweep calls it its trial."""
    return node.trial if node.type == "sweep" else node.component


def _step(name: str, node: Any, bound: Bound) -> Step:
    component = component_of(node)
    # The node's own word wins. A sweep has none on processes: they are a matter of its trial.
    distribution = (None if node.type == "sweep" else node.distribution) or component.distribution
    instances = getattr(node.resources or component.resources, "instance_count", None) or 1
    per_instance = getattr(distribution, "process_count_per_instance", None) or 1
    variables = {key: str(value) for key, value in (getattr(node, "environment_variables", None) or {}).items()}
    count = int(instances) * int(per_instance) if distribution else 1
    inputs = {port: binding for port, binding in bound.items() if binding is not None}
    plan = sweep_plan.read(name, node) if node.type == "sweep" else None
    return Step(name, component, inputs, variables, count, distribution is not None, plan)


def _exported(nodes: dict[str, Any], inner: dict[str, dict[str, FromStep]], prefix: str) -> dict[str, FromStep]:
    exported: dict[str, FromStep] = {}
    for name, node in nodes.items():
        for port, output in node.outputs.items():
            given = _given(output)
            match = _BINDING.match(given) if isinstance(given, str) else None
            if match and match[1] == "outputs":
                exported[match[2]] = inner[name][port] if name in inner else FromStep(f"{prefix}{name}", port)
    return exported
