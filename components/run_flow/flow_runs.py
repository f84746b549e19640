"""Run all variants of a flow over all items, a node at a time: what is asked twice is answered once."""

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flow_graph import Flow, FromNode, FromRow, Node, Variant
from flow_items import Item

from model_inference.answer_sources import AnswerSource, Request
from slmkit.answers import Answer
from slmkit.chat_client import AnswerError
from slmkit.records import content_id
from slmkit.resume_log import ResumeLog

MODES = END_TO_END, ISOLATED = "end_to_end", "isolated"


@dataclass(frozen=True)
class Outcome:
    """What became of one node for one item: an output, or the error that stands for it."""

    value: Any = None
    error: str | None = None
    not_run: bool = False  # because a node before it gave no output
    answer: Answer | None = None


@dataclass(frozen=True)
class Traffic:
    """How many requests a node took, over all variants and both modes."""

    node: str
    num_needed: int
    num_distinct: int  # the others were the same as one of these
    num_asked: int  # the others were answered before a kill
    num_failed: int
    num_cut: int


Slot = tuple[str, str, str, str]  # mode, candidate, node and item
Outcomes = dict[Slot, Outcome]


class FlowRuns:
    def __init__(
        self,
        flow: Flow,
        items: Mapping[str, Item],
        source: AnswerSource,
        log: ResumeLog,
        *,
        max_new_tokens: int,
        seed: int,
    ) -> None:
        self._flow, self._items, self._source, self._log = flow, items, source, log
        self._max_new_tokens, self._seed = max_new_tokens, seed
        self._answers = {key: Answer(**row) for key, row in log.done.items()}
        self.errors: dict[str, str] = {}
        self.outcomes: Outcomes = {}
        self.traffic: list[Traffic] = []

    def run(self, candidates: Mapping[str, Mapping[str, str]]) -> None:
        """Fill ``outcomes`` for candidates that are given as node -> variant."""
        for node in self._flow.nodes:
            self._run_node(node, candidates)

    def end_to_end(self, candidate: str, id: str) -> dict[str, Outcome]:
        """The outcomes of all nodes for one item, in the order of the flow."""
        return {node.name: self.outcomes[END_TO_END, candidate, node.name, id] for node in self._flow.nodes}

    def _run_node(self, node: Node, candidates: Mapping[str, Mapping[str, str]]) -> None:
        waiting: dict[Slot, str] = {}
        requests: dict[str, Request] = {}
        prepared: dict[tuple[str, str], Request | Outcome] = {}  # most slots have the inputs of another
        for mode, (candidate, chosen), id in itertools.product(MODES, candidates.items(), self._items):
            slot = (mode, candidate, node.name, id)
            name = chosen[node.name]
            values = self._values(node.variants[name], slot)
            if isinstance(values, dict):
                key = (name, repr(values))
                if key not in prepared:
                    prepared[key] = self._prepare(node, node.variants[name], values)
                values = prepared[key]
            if isinstance(values, Request):
                waiting[slot] = values.key
                requests[values.key] = values
            elif values is not None:
                self.outcomes[slot] = values
        asked = [request for key, request in requests.items() if key not in self._answers]
        self._ask(asked)
        self.outcomes |= {slot: self._outcome(node, key) for slot, key in waiting.items()}
        answers = [self._answers[key] for key in requests if key in self._answers]
        self.traffic.append(
            Traffic(
                node.name,
                len(waiting),
                len(requests),
                len(asked),
                len(requests) - len(answers),
                sum(answer.finish_reason == "length" for answer in answers),
            )
        )

    def _values(self, variant: Variant, slot: Slot) -> dict[str, Any] | Outcome | None:
        """What the variant reads; the outcome where a node before it failed, None where gold is missing to isolate."""
        mode, candidate, _, id = slot
        item, values = self._items[id], {}
        for name, value in variant.inputs.items():
            if isinstance(value, FromRow):
                values[name] = item.row[value.name]
            elif not isinstance(value, FromNode):
                values[name] = value
            elif mode == ISOLATED and value.node not in item.gold:
                return None
            else:
                gold = mode == ISOLATED
                before = Outcome(item.gold[value.node]) if gold else self.outcomes[mode, candidate, value.node, id]
                if before.error:
                    return Outcome(error=f"not run: {value.node} gave no output", not_run=True)
                try:
                    values[name] = part(before.value, value)
                except LookupError as error:
                    return Outcome(error=str(error.args[0]))
        return values

    def _prepare(self, node: Node, variant: Variant, values: dict[str, Any]) -> Request | Outcome:
        try:
            if not node.asks:
                return Outcome(variant.prompt.text(values))
            return self._request(variant, variant.prompt.messages(values))
        except ValueError as error:
            return Outcome(error=" ".join(str(error).split()))

    def _request(self, variant: Variant, messages: list[dict[str, str]]) -> Request:
        """Its key is its content, so that the same question of another variant, or of an earlier start, is this one."""
        parameters = variant.prompt.parameters
        asked = {
            "messages": messages,
            "max_new_tokens": parameters.max_tokens or self._max_new_tokens,
            "temperature": parameters.temperature,
            "seed": self._seed,
            "response_format": parameters.response_format,
        }
        return Request(key=content_id(json.dumps(asked, ensure_ascii=False, sort_keys=True)), **asked)

    def _ask(self, requests: Iterable[Request]) -> None:
        for request, answer in self._source.answers(list(requests)):
            if isinstance(answer, AnswerError):
                self.errors[request.key] = str(answer)
            elif answer.refused:
                self.errors[request.key] = "refused by the content filter or the model"
            else:
                self._log.add(request.key, asdict(answer))
                self._answers[request.key] = answer

    def _outcome(self, node: Node, key: str) -> Outcome:
        if key in self.errors:
            return Outcome(error=self.errors[key])
        answer = self._answers[key]
        try:
            return Outcome(node.parse(answer.text), answer=answer)
        except ValueError as error:
            return Outcome(error=" ".join(str(error).split()), answer=answer)


def part(value: Any, wanted: FromNode) -> Any:
    """What a reference reads of an output; ``LookupError`` with the reason when the output has no such part."""
    for key in wanted.keys:
        if not isinstance(value, dict) or key not in value:
            raise LookupError(f"{wanted.node} gave no {'.'.join(wanted.keys)!r}")
        value = value[key]
    return value
