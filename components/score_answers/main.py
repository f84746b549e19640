"""Score each answer of a candidate against the references of its question."""

import collections
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import answer_slots
from answer_numbers import final_number

from slmkit import cli, lineage, records, textstats, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
METRICS = ("exact_match", "f1", "chrf", "bleu", "rouge1", "rouge2", "rougeL", "numeric", "json", "regex")
# What a reference must hold for a metric: a function that finds None where it does not, and the word for it.
NEEDED: dict[str, tuple[Callable[[str], object], str]] = {
    "numeric": (final_number, "a number"),
    "json": (answer_slots.leaves, "JSON"),
}
SLICES = ("language", "question_type")
MAX_LOGGED_SLICES = 20


@dataclass(frozen=True)
class Args:
    predictions: Path
    eval_items: Path
    scores: Path
    metrics: str = "exact_match,f1,chrf"
    tokenization: str = "auto"
    answer_pattern: str | None = None
    patterns: Path | None = None


def run(args: Args) -> dict[str, float]:
    names = parse_metrics(args)
    find_answer, checks = read_patterns(args)
    items = read_items(args.eval_items, names)
    predictions = read_predictions(args.predictions, items)
    candidate = only_candidate(args.predictions, predictions.values())
    asked = lineage.asked_for_all(predictions.values(), str(args.predictions))
    failed = {id for id in items if id not in predictions or predictions[id].get("error")}
    found = {id: find_answer(predictions[id]["output"]) for id in items if id not in failed}
    answers = {id: answer for id, answer in found.items() if answer is not None}

    import answer_metrics

    metrics = answer_metrics.chosen(names, args.tokenization, checks)
    answered = [items[id] for id in answers]
    references, languages = [item["references"] for item in answered], list(map(language, answered))
    columns = answer_metrics.score(metrics, list(answers.values()), references, languages)
    rows = {id: dict.fromkeys(columns, 0.0) | {"failed": int(id in failed)} for id in items}
    for name, column in columns.items():
        for id, value in zip(answers, column, strict=True):
            rows[id][name] = value
    with records.write_records(args.scores) as write:
        for id, row in rows.items():
            write({"id": id, "candidate": candidate, **asked, **row})

    means = {name: statistics.fmean(row[name] for row in rows.values()) for name in (*columns, "failed")}
    logged = {f"eval/{name}": mean for name, mean in means.items()}
    logged["eval/failed_fraction"] = logged.pop("eval/failed")
    tracking.log_metrics(logged | slice_means(items, rows, names[0]))
    lineage.write(args, SPEC)
    print(f"{candidate}: {len(items)} questions, " + ", ".join(f"{name} {means[name]:.1%}" for name in columns))
    print(f"failed and scored 0: {len(failed)}, {len(items) - len(predictions)} of them without a prediction")
    if args.answer_pattern:
        print(f"not in the form of answer_pattern and scored 0: {len(found) - len(answers)}")
    return logged


def parse_metrics(args: Args) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in args.metrics.split(",") if part.strip()))
    if unknown := [name for name in names if name not in METRICS]:
        raise UserError(f"metrics: {unknown[0]!r} is not one of {', '.join(METRICS)}")
    if not names:
        raise UserError(f"metrics is empty: name at least one of {', '.join(METRICS)}")
    if ("regex" in names) != (args.patterns is not None):
        raise UserError("the metric regex and the input patterns go together: give both or none")
    return names


def read_patterns(args: Args) -> tuple[Callable[[str], str | None], list]:
    """What finds the answer in an output, and the checks of the metric regex."""
    if not (args.answer_pattern or args.patterns):
        return str, []
    import answer_patterns

    find_answer = answer_patterns.AnswerPattern(args.answer_pattern).find if args.answer_pattern else str
    return find_answer, answer_patterns.read_checks(args.patterns) if args.patterns else []


def read_items(path: Path, metrics: Iterable[str]) -> dict[str, dict]:
    """The eval items by id; each must carry at least one reference with text, such as the metrics need."""
    needed = {metric: NEEDED[metric] for metric in metrics if metric in NEEDED}
    items = {}
    for item, source, line in records.read_located(path):
        where = f"{source}:{line}"
        id = checked_id(item, where)
        if id in items:
            raise UserError(f"{where}: id {id!r} stands twice in the eval items; ids must be unique")
        references = item.get("references")
        if not isinstance(references, list) or not references or not all(map(has_text, references)):
            raise UserError(f"{where}: eval item {id!r} needs 'references', a list of texts that are not blank")
        try:
            records.check_slices(item)
        except ValueError as error:
            raise UserError(f"{where}: eval item {id!r}: {error}") from None
        for metric, (find, word) in needed.items():
            if lacking := [reference for reference in references if find(reference) is None]:
                raise UserError(f"{where}: {metric} needs {word} in the reference {lacking[0][:60]!r} of item {id!r}")
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
    names = list({str(name := prediction.get("candidate")): name for prediction in predictions}.values())
    if len(names) > 1 or not all(map(has_text, names)):
        raise UserError(f"{path}: predictions of one named candidate are needed, found {sorted(map(str, names))}")
    return names[0]


def language(item: dict) -> str:
    """The language that the item states (ja, or ja-JP), else that of its first reference."""
    stated = (item.get("slices") or {}).get("language")
    return str(stated).partition("-")[0].lower() if stated else textstats.language(item["references"][0])


def slice_means(items: dict[str, dict], rows: dict[str, dict], metric: str) -> dict[str, float]:
    """One metric by language and by question type, the largest slices only: a metric each in MLflow."""
    groups = collections.defaultdict(list)
    for id, item in items.items():
        for key in SLICES:
            if value := (item.get("slices") or {}).get(key):
                groups[f"eval/{metric}/{key}/{value}"].append(rows[id][metric])
    largest = sorted(groups, key=lambda name: -len(groups[name]))[:MAX_LOGGED_SLICES]
    return {name: statistics.fmean(groups[name]) for name in largest}


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
