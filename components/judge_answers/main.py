"""Let a model judge answers by a rubric: each on a scale, or in pairs that are shown in both orders."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from judge_rubric import Rubric
    from judge_verdicts import Task

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True)
class Args:
    predictions: Path
    eval_items: Path
    scores: Path
    baseline_scores: Path
    judgments: Path
    report: Path
    baseline_predictions: Path | None = None
    model: Path | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    auth: str = "azure"
    concurrency: int = 8
    prompt_format: str = "chat"
    batch_size: int = 16
    bf16: bool = False
    rubric: Path | None = None
    rubric_name: str = "relevance"
    num_repeats: int = 1
    temperature: float = 0.7
    max_new_tokens: int = 512
    max_error_fraction: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Side:
    """A candidate, what was asked for it, and its answers by question; where there is none, it has failed."""

    name: str
    asked: dict[str, str]
    answers: dict[str, str]


def run(args: Args) -> dict[str, float]:
    import judge_report
    import judge_rubric
    import judge_verdicts

    from model_inference import answer_sources
    from slmkit.resume_log import ResumeLog

    answer_sources.check_one(args)
    rubric = judge_rubric.load(args.rubric, args.rubric_name)
    items = read_items(args.eval_items, rubric)
    sides = [read_side(path, items) for path in (args.predictions, args.baseline_predictions) if path]
    if len({side.name for side in sides}) < len(sides):
        raise UserError(f"both files of predictions are of {sides[0].name!r}; compare two candidates")
    tasks = list(plan(items, sides, rubric, args.num_repeats))
    requests = {
        task.key: answer_sources.Request(
            key=task.key,
            messages=task.messages,
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature if args.num_repeats > 1 else 0.0,
            seed=args.seed + task.repeat,
            response_format=judge_verdicts.response_format(pairwise=len(sides) > 1),
        )
        for task in tasks
    }
    with answer_sources.connect(args) as source:
        asked = [source.identity, [vars(request) for request in requests.values()]]
        with ResumeLog(args.judgments, asked) as log:
            rows = list(judge_verdicts.ask(source, tasks, log, requests))

    candidates = {f"{port}candidate": side.name for port, side in zip(("", "baseline_"), sides, strict=False)}
    with records.write_records(args.judgments) as write:
        for row in rows:
            write({**row, **candidates})
    check_failures(rows, args)
    metric = rubric.name if len(sides) == 1 else f"{rubric.name}_win"
    of_item: dict[str, list[dict]] = {id: [] for id in items}
    for row in rows:
        of_item[row["id"]].append(row)
    scores = list(score(sides, of_item, metric))
    for path, ours in ((args.scores, True), (args.baseline_scores, False)):
        with records.write_records(path) as write:
            for row in scores:
                if (row["candidate"] == sides[0].name) == ours:
                    write(row)
    report = judge_report.write(args, rubric, items, sides, of_item, scores, metric)

    metrics = judge_report.metrics(report)
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    lineage.write(args, SPEC)
    log.forget()
    print(judge_report.headline(report))
    return metrics


def read_items(path: Path, rubric: "Rubric") -> dict[str, dict[str, Any]]:
    """The questions by id, each a chat that ends with the user's turn."""
    items: dict[str, dict[str, Any]] = {}
    for item, source, line in records.read_located(path):
        try:
            records.check_chat(item)
            if item["messages"][-1]["role"] != "user":
                raise ValueError("the messages do not end with the user's turn")
            if not isinstance(item.get("id"), str) or not item["id"] or item["id"] in items:
                raise ValueError(f"'id' is missing or stands twice ({item.get('id')!r})")
            references = item.get("references")
            if rubric.show_references and not (
                isinstance(references, list) and references and all(isinstance(text, str) for text in references)
            ):
                raise ValueError(f"no 'references' (a list of texts), which the rubric {rubric.name} shows the judge")
        except ValueError as error:
            raise UserError(f"{source}:{line}: {error}; correct or remove the line") from None
        items[item["id"]] = item
    if not items:
        raise UserError(f"{path}: no eval items; there is nothing to judge")
    return items


def read_side(path: Path, items: dict[str, Any]) -> Side:
    """The answers of one candidate; an id that was not asked, or stands twice, means that files do not fit."""
    seen, answers, names, rows = set(), {}, set(), []
    for row, source, line in records.read_located(path):
        id, where = row.get("id"), f"{source}:{line}"
        if not isinstance(id, str) or id not in items:
            raise UserError(f"{where}: prediction {id!r} answers no eval item; were they made from other eval items?")
        if id in seen:
            raise UserError(f"{where}: prediction {id!r} stands twice; give one answer a question, of one candidate")
        if not row.get("error") and not isinstance(row.get("output"), str):
            raise UserError(f"{where}: prediction {id!r} has neither an 'output' text nor an 'error'")
        seen.add(id)
        rows.append({name: row[name] for name in lineage.ASKED if name in row})
        names.add(row.get("candidate"))
        if not row.get("error"):
            answers[id] = row["output"]
    if len(names) != 1 or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{path}: predictions of one named candidate are needed, found {sorted(map(str, names))}")
    return Side(names.pop(), lineage.asked_for_all(rows, str(path)), answers)


def plan(items: dict[str, Any], sides: list[Side], rubric: "Rubric", num_repeats: int) -> "Iterator[Task]":
    """Every verdict that is wanted: of the questions that all sides have answered, in both orders if there are two."""
    from judge_verdicts import ORDERS, Task

    for id, item in items.items():
        answers = [side.answers[id] for side in sides if id in side.answers]
        if len(answers) < len(sides):
            continue
        for order, shown in zip(ORDERS, (answers, answers[::-1]), strict=True) if len(sides) > 1 else [(None, answers)]:
            messages = rubric.ask(item, shown)
            for repeat in range(num_repeats):
                yield Task(id, messages, repeat, order)


def check_failures(rows: list[dict[str, Any]], args: Args) -> None:
    import judge_verdicts

    reasons = judge_verdicts.failures(rows)
    if rows and reasons.total() / len(rows) > args.max_error_fraction:
        said = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common(3))
        raise UserError(
            f"{reasons.total()} of {len(rows)} verdicts failed ({said}), more than max_error_fraction="
            f"{args.max_error_fraction}; see {args.judgments}. A second start asks for these alone"
        )


def score(sides: list[Side], of_item: dict[str, list[dict]], metric: str) -> Iterator[dict[str, Any]]:
    """A row an item and candidate: without an answer, or without a verdict, it is 0 and failed."""
    import judge_verdicts

    for id, rows in of_item.items():
        answered = [id in side.answers for side in sides]
        if len(sides) > 1 and sum(answered) == 1:  # the one answer there is wins unseen
            values = [float(there) for there in answered]
        elif len(sides) > 1:
            won = judge_verdicts.win(rows)
            values = [None, None] if won is None else [won, 1 - won]
        else:
            values = [judge_verdicts.grade(rows)]
        for side, there, value in zip(sides, answered, values, strict=True):
            row = {"id": id, "candidate": side.name, **side.asked, metric: value or 0.0}
            row["failed"] = int(not there or value is None)
            if row["failed"]:
                row["error"] = "no verdict of the judge" if there else "no answer to judge"
            yield row


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
