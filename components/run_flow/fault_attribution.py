"""For each wrong answer of a flow the node at fault.

An output is right when its score reaches the node's min_score; no output is wrong. A wrong answer is traced back from
the final node through wrong inputs to a node that was wrong although its inputs were right: this node is at fault, and
of several the first in the order of the flow. So a wrong output that a later node made good is no fault. Where a node
reads a part of a JSON output, only that part must be right. A node without gold cannot be judged: its fault counts at
the next judged node, unless it gave no output at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flow_graph import Flow, FromNode, Node
from flow_items import Item
from flow_runs import END_TO_END, FlowRuns, Outcome, part
from output_scores import Scores, leaf_accuracy

DEFINITION = __doc__.partition("\n\n")[2]


def nodes_at_fault(
    flow: Flow,
    items: Mapping[str, Item],
    candidate: str,
    chosen: Mapping[str, str],
    runs: FlowRuns,
    scores: Scores,
) -> dict[str, str]:
    """Item -> the node at fault, for the items whose final answer is wrong."""
    found = {}
    for id, item in items.items():
        outcomes = runs.end_to_end(candidate, id)
        scored = {name: scores.get((END_TO_END, candidate, name, id)) for name in outcomes}
        trace = _Trace(flow, item, outcomes, scored)
        for node in flow.nodes:
            trace.follow(node, chosen[node.name])
        if trace.is_wrong(flow.output):
            culprits = trace.inherited[flow.output] or {flow.output}
            found[id] = next(node.name for node in flow.nodes if node.name in culprits)
    return found


@dataclass
class _Trace:
    """One item on its way through the nodes, each after those that it reads."""

    flow: Flow
    item: Item
    outcomes: Mapping[str, Outcome]
    scores: Mapping[str, float | None]
    inherited: dict[str, set[str]] = field(default_factory=dict)  # node -> the nodes at fault for what it read

    def follow(self, node: Node, variant: str) -> None:
        self.inherited[node.name] = set().union(*map(self._culprits, node.variants[variant].reads))

    def is_wrong(self, name: str) -> bool | None:
        """None where it cannot be judged."""
        if self.outcomes[name].error:
            return True
        score = self.scores[name]
        return None if score is None else score < self.flow[name].min_score

    def _culprits(self, value: FromNode) -> set[str]:
        """The nodes at fault for what stands in one input."""
        name, is_wrong = value.node, self.is_wrong(value.node)
        if value.keys and not self.outcomes[name].error and name in self.item.gold:
            is_wrong = not self._has_right_part(value)
        if is_wrong is None:
            return self.inherited[name]
        return (self.inherited[name] or {name}) if is_wrong else set()

    def _has_right_part(self, value: FromNode) -> bool:
        try:
            said, gold = part(self.outcomes[value.node].value, value), part(self.item.gold[value.node], value)
        except LookupError:
            return False
        return leaf_accuracy(said, gold) == 1
