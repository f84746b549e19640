"""Eval items as a flow needs them: what its nodes read of a row, and what each node should have said."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flow_graph import MISSING, Flow, FromRow, Node, as_text

from slmkit import records
from slmkit.errors import UserError


@dataclass(frozen=True)
class Item:
    record: dict[str, Any]
    row: dict[str, Any]  # field -> value, of the fields that the flow reads
    gold: dict[str, Any]  # node -> what it should have said, parsed as the node's kind of output
    references: list[Any]  # of the final answer

    @property
    def question(self) -> str:
        return self.record["messages"][-1]["content"]

    @property
    def cluster(self) -> str:
        return str(self.record.get("cluster") or self.record["id"])

    def golds(self, flow: Flow, node: str) -> list[Any]:
        """What counts as right from this node: the references where it gives the answer, else its gold."""
        if node == flow.output:
            return self.references
        return [self.gold[node]] if node in self.gold else []


def read(path: Path, flow: Flow) -> dict[str, Item]:
    """The items by id; ``UserError`` with file and line for one that the flow cannot be evaluated on."""
    items: dict[str, Item] = {}
    reads = [
        value
        for node in flow.nodes
        for variant in node.variants.values()
        for value in variant.inputs.values()
        if isinstance(value, FromRow)
    ]
    for record, source, line in records.read_located(path):
        try:
            item = _item(record, flow, reads)
            if record["id"] in items:
                raise ValueError(f"id {record['id']!r} stands twice; ids must be unique")
        except ValueError as error:
            raise UserError(f"{source}:{line}: {error}") from None
        items[record["id"]] = item
    if not items:
        raise UserError(f"{path}: no eval items; is this the right file?")
    for node in flow.nodes:
        if node.gold != node.name and not any(node.name in item.gold for item in items.values()):
            raise UserError(f"{path}: no eval item has {node.gold!r} in node_outputs, the gold of node {node.name!r}")
    return items


def _item(record: dict[str, Any], flow: Flow, reads: list[FromRow]) -> Item:
    if not isinstance(record.get("id"), str) or not record["id"].strip():
        raise ValueError("no 'id' (a text); every eval item needs one")
    records.check_chat(record)
    if record["messages"][-1]["role"] != "user":
        raise ValueError("the messages do not end with the user's turn, which is the question")
    golds = record.get("node_outputs") or {}
    if not isinstance(golds, dict) or not all(isinstance(value, str) for value in golds.values()):
        raise ValueError("'node_outputs' must give a text for each node")
    gold = {node.name: _parsed(node, golds[node.gold]) for node in flow.nodes if node.gold in golds}
    references = record.get("references") or []
    if not isinstance(references, list) or not all(isinstance(text, str) and text.strip() for text in references):
        raise ValueError("'references' must be a list of texts that are not blank")
    output = flow[flow.output]
    wanted = [_parsed(output, text) for text in references] or [gold[node] for node in gold if node == flow.output]
    if not wanted:
        raise ValueError(f"nothing to compare the answer with: no 'references', and no {output.gold!r} in node_outputs")
    return Item(record, {value.name: _field(record, value) for value in reads}, gold, wanted)


def _parsed(node: Node, text: str) -> Any:
    try:
        return node.parse(text)
    except ValueError as error:
        raise ValueError(f"the gold of node {node.name!r} is none: {error}") from None


def _field(record: dict[str, Any], wanted: FromRow) -> Any:
    if wanted.name == "question":
        return record["messages"][-1]["content"]
    value: Any = record
    for key in wanted.name.split("."):
        value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
    if value is MISSING and wanted.default is not MISSING:
        return wanted.default
    if not isinstance(value, str):
        found = "is not there" if value is MISSING else f"is no text but {as_text(value):.40}"
        raise ValueError(f"the flow reads ${{row.{wanted.name}}}, which {found} in this eval item")
    return value
