"""What a run of a flow came to, for each candidate: scores and faults of its nodes, final answers as records."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import fault_attribution
import output_scores
from flow_graph import Flow, as_text
from flow_intervals import Interval, mean_interval, share_interval
from flow_items import Item
from flow_runs import END_TO_END, ISOLATED, FlowRuns
from output_scores import Scores


@dataclass(frozen=True)
class NodeScores:
    """What one node does in one candidate; isolated and upstream_loss are over the items that have both scores."""

    node: str
    variant: str
    metric: str
    num_judged: int
    end_to_end: float | None
    num_isolated: int
    isolated: float | None
    upstream_loss: Interval | None
    num_at_fault: int
    at_fault_fraction: Interval  # of all items


@dataclass(frozen=True)
class Evaluation:
    flow: Flow
    items: Mapping[str, Item]
    candidates: Mapping[str, Mapping[str, str]]  # name -> the variant of each node
    runs: FlowRuns
    scores: Scores
    faults: Mapping[str, Mapping[str, str]]  # candidate -> item -> the node at fault
    seed: int

    @property
    def clusters(self) -> dict[str, str]:
        return {id: item.cluster for id, item in self.items.items()}

    def column(self, mode: str, candidate: str, node: str) -> dict[str, float]:
        """The scores of a node by item, as far as there are any."""
        slots = {id: (mode, candidate, node, id) for id in self.items}
        return {id: self.scores[slot] for id, slot in slots.items() if slot in self.scores}

    def node_scores(self, candidate: str) -> list[NodeScores]:
        rows = []
        for node in self.flow.nodes:
            real, isolated = (self.column(mode, candidate, node.name) for mode in (END_TO_END, ISOLATED))
            losses = {id: isolated[id] - score for id, score in real.items() if id in isolated}
            num_at_fault = sum(name == node.name for name in self.faults[candidate].values())
            rows.append(
                NodeScores(
                    node.name,
                    self.candidates[candidate][node.name],
                    node.metric,
                    len(real),
                    mean(real.values()),
                    len(losses),
                    mean(isolated[id] for id in losses),
                    mean_interval(losses, self.clusters, self.seed) if losses else None,
                    num_at_fault,
                    share_interval(num_at_fault, len(self.items)),
                )
            )
        return rows

    def prediction(self, candidate: str, id: str) -> dict[str, Any]:
        """The final answer, with what the whole flow took for it."""
        outcomes = self.runs.end_to_end(candidate, id)
        final, answers = outcomes[self.flow.output], [o.answer for o in outcomes.values() if o.answer]
        latencies, costs = [answer.latency_ms for answer in answers], [answer.cost for answer in answers]
        row = {
            "output": "" if final.error else as_text(final.value),
            "latency_ms": round(sum(latencies), 3) if answers and None not in latencies else None,
            "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
            "completion_tokens": sum(answer.completion_tokens for answer in answers),
            "cached": any(answer.cached for answer in answers),
        }
        if answers and None not in costs:
            row["cost"] = sum(costs)
        if final.error:
            row["error"] = next(f"{name}: {o.error}" for name, o in outcomes.items() if o.error and not o.not_run)
        return row

    def final_scores(self, candidate: str, id: str) -> dict[str, float]:
        """The metric of the final node and, of a text, exact_match and f1, which score_answers gives too."""
        node, final = self.flow[self.flow.output], self.runs.end_to_end(candidate, id)[self.flow.output]
        names = dict.fromkeys([node.metric, *(() if node.output == "json" else ("exact_match", "f1"))])
        references = self.items[id].references
        row = {name: 0.0 if final.error else output_scores.score(name, final.value, references) for name in names}
        return {**row, "failed": int(final.error is not None)}


def evaluate(
    flow: Flow, items: Mapping[str, Item], candidates: Mapping[str, Mapping[str, str]], runs: FlowRuns, seed: int
) -> Evaluation:
    scores = output_scores.score_all(flow, items, runs.outcomes)
    faults = {
        name: fault_attribution.nodes_at_fault(flow, items, name, chosen, runs, scores)
        for name, chosen in candidates.items()
    }
    return Evaluation(flow, items, candidates, runs, scores, faults, seed)


def mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return statistics.fmean(values) if values else None
