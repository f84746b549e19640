"""Score each answer of a candidate against the references of its question."""

import collections
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
SLICES = ("language", "question_type")
MAX_LOGGED_SLICES = 20


@dataclass(frozen=True)
class Args:
    predictions: Path
    eval_items: Path
    scores: Path


def run(args: Args) -> dict[str, float]:
    items = read_items(args.eval_items)
    predictions = read_predictions(args.predictions, items)
    candidate = only_candidate(args.predictions, predictions.values())
    failed = {id for id in items if id not in predictions or predictions[id].get("error")}

    import answer_metrics

    # A failure is scored as the empty answer, which no metric gives more than 0.
    answers = ["" if id in failed else predictions[id]["output"] for id in items]
    columns = answer_metrics.score(answers, [item["references"] for item in items.values()])
    columns["failed"] = [int(id in failed) for id in items]
    rows = {id: {name: column[i] for name, column in columns.items()} for i, id in enumerate(items)}
    with records.write_records(args.scores) as write:
        for id, row in rows.items():
            write({"id": id, "candidate": candidate, **row})

    metrics = {f"eval/{name}": statistics.fmean(column) for name, column in columns.items()}
    metrics["eval/failed_fraction"] = metrics.pop("eval/failed")
    tracking.log_metrics(metrics | slice_means(items, rows))
    lineage.write(args, SPEC)
    shown = ", ".join(f"{name} {statistics.fmean(column):.1%}" for name, column in columns.items() if name != "failed")
    print(f"{candidate}: {len(items)} questions, {shown}")
    print(f"failed and scored 0: {len(failed)}, {len(items) - len(predictions)} of them without a prediction")
    return metrics


def read_items(path: Path) -> dict[str, dict]:
    """The eval items by id; each must carry at least one reference with text."""
    items = {}
    for item, source, line in records.read_located(path):
        where = f"{source}:{line}"
        id = checked_id(item, where)
        if id in items:
            raise UserError(f"{where}: id {id!r} stands twice in the eval items; ids must be unique")
        references = item.get("references")
        if not isinstance(references, list) or not references or not all(map(has_text, references)):
            raise UserError(f"{where}: eval item {id!r} needs 'references', a list of texts that are not blank")
        items[id] = item
    if not items:
        raise UserError(f"{path}: no eval items; there is nothing to score")
    return items


def read_predictions(path: Path, items: dict[str, dict]) -> dict[str, dict]:
    """The predictions by id; an id that was not asked, or stands twice, means that the files do not belong together."""
    predictions = {}
    for prediction, source, line in records.read_located(path):
        where = f"{source}:{line}"
        id = checked_id(prediction, where)
        if id not in items:
            raise UserError(f"{where}: prediction {id!r} answers no eval item; were they made from other eval items?")
        if id in predictions:
            raise UserError(f"{where}: prediction {id!r} stands twice; keep one answer a question")
        if not prediction.get("error") and not isinstance(prediction.get("output"), str):
            raise UserError(f"{where}: prediction {id!r} has neither an 'output' text nor an 'error'")
        predictions[id] = prediction
    if not predictions:
        raise UserError(f"{path}: no predictions; run generate_answers first")
    return predictions


def checked_id(record: dict, where: str) -> str:
    if not has_text(record.get("id")):
        raise UserError(f"{where}: no 'id' (a text); every record needs one")
    return record["id"]


def has_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def only_candidate(path: Path, predictions: Iterable[dict]) -> str:
    names = {prediction.get("candidate") for prediction in predictions}
    if len(names) > 1 or not all(map(has_text, names)):
        raise UserError(f"{path}: predictions of one named candidate are needed, found {sorted(map(str, names))}")
    return names.pop()


def slice_means(items: dict[str, dict], rows: dict[str, dict]) -> dict[str, float]:
    """Exact match by language and by question type, the largest slices only: a metric each in MLflow."""
    groups = collections.defaultdict(list)
    for id, item in items.items():
        for key in SLICES:
            if value := (item.get("slices") or {}).get(key):
                groups[f"eval/exact_match/{key}/{value}"].append(rows[id]["exact_match"])
    largest = sorted(groups, key=lambda name: -len(groups[name]))[:MAX_LOGGED_SLICES]
    return {name: statistics.fmean(groups[name]) for name in largest}


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
