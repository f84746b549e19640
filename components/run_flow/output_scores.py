"""Scores of what the nodes of a flow say, each from 0 to 1, against their gold."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flow_graph import Flow, as_text
from flow_items import Item
from flow_runs import Outcomes, Slot

from slmkit import answer_text

_TEXT_METRICS = {
    "exact_match": answer_text.exact_match,
    "f1": answer_text.f1,
    "contains": lambda answer, gold: float(answer_text.normalize(gold) in answer_text.normalize(answer)),
}
Scores = dict[Slot, float]  # of the outcomes for which there is gold


def score(metric: str, value: Any, golds: Sequence[Any]) -> float:
    """The best over the golds."""
    if metric == "json":
        return max(leaf_accuracy(value, gold) for gold in golds)
    return max(_TEXT_METRICS[metric](as_text(value), as_text(gold)) for gold in golds)


def leaf_accuracy(value: Any, gold: Any) -> float:
    """The share of the leaves of either that are in both, by path and normalized text."""
    given, wanted = dict(_leaves(value)), dict(_leaves(gold))
    paths = given.keys() | wanted.keys()
    return sum(path in given and path in wanted and given[path] == wanted[path] for path in paths) / len(paths)


def _leaves(value: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    left: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while left:  # no recursion: an answer may nest deeper than Python does
        path, value = left.pop()
        if isinstance(value, dict | list) and value:
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            left += [((*path, key), part) for key, part in parts]
        else:
            whole = isinstance(value, float) and value.is_integer()  # 8.0 says what 8 says
            yield path, answer_text.normalize(as_text(int(value) if whole else value))


def score_all(flow: Flow, items: Mapping[str, Item], outcomes: Outcomes) -> Scores:
    """The score of every outcome for which there is gold; no output scores 0."""
    nodes = {node.name: node for node in flow.nodes}
    scores = {}
    for slot, outcome in outcomes.items():
        node = nodes[slot[2]]
        if golds := items[slot[3]].golds(flow, node.name):
            scores[slot] = 0.0 if outcome.error else score(node.metric, outcome.value, golds)
    return scores
