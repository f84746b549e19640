"""Turn the files of a benchmark into eval items: checked, few-shot, sampled, and compared with the training data."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import benchmark_files
import benchmark_formats
import benchmark_items
from benchmark_files import Row
from benchmark_formats import NO_GOLD, Question, RowError

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError
from slmkit.records import Refused

SPEC = Path(__file__).with_name("component.yml")
NUM_NAMED = 3  # rows in an error message


@dataclass(frozen=True)
class Args:
    benchmark: str
    eval_items: Path
    report: Path
    raw_data: Path | None = None
    files: str = "**/*"
    fewshot_files: str | None = None
    dataset_name: str | None = None
    dataset_revision: str | None = None
    dataset_config: str | None = None
    split: str | None = None
    fewshot_split: str | None = None
    columns: str | None = None
    answer_style: str = "letter"
    num_fewshot: int = 0
    instruction: str | None = None
    max_num_items: int | None = None
    train_data: Path | None = None
    ngram_words: int = 8
    ngram_characters: int = 13
    min_overlap: float = 0.7
    max_contaminated_fraction: float | None = None
    max_error_fraction: float = 0.02
    seed: int = 42


def run(args: Args) -> dict[str, float]:
    check(args)
    read, header = reader(args)
    asked_rows, pool_rows = rows(args, header)
    asked, refused = read_questions(asked_rows, read)
    if not asked and refused and all(row.reason == NO_GOLD for row in refused):
        raise UserError(
            f"none of the {len(refused)} rows of {refused[0].source} says which answer is right: this split withholds "
            "them; evaluate one that has them, such as the validation split"
        )
    pool, refused_examples = read_questions(pool_rows, read) if pool_rows else (None, [])
    refused += refused_examples
    num_rows = len(asked) + len(pool or ()) + len(refused)
    check_refused(args, num_rows, asked, refused)
    if args.answer_style == "text" and any(question.lists_choices for question in asked):
        raise UserError(f"the questions of {args.benchmark} list their choices themselves; use answer_style letter")

    examples = benchmark_items.examples_by_subject(asked, pool, args.num_fewshot, args.seed)
    rest = asked
    if pool is None:  # what a prompt shows is not asked
        shown = {benchmark_items.id_of(question) for chosen in examples.values() for question in chosen}
        rest = [question for question in asked if benchmark_items.id_of(question) not in shown]
    chosen = benchmark_items.sample(rest, args.max_num_items, args.seed)
    items = [
        benchmark_items.as_item(question, examples[question.subject], args.answer_style, args.instruction)
        for question in chosen
    ]
    report = {
        "counts": {
            "rows": num_rows,
            "refused": len(refused),
            "for_examples_only": len(pool or ()),
            "left_out_as_examples": len(asked) - len(rest),
            "not_drawn": len(rest) - len(chosen),
            "items": len(items),
        },
        "contamination": find_contamination(args, chosen, items) if args.train_data else None,
        "parameters": {name: value for name, value in asdict(args).items() if not isinstance(value, Path)},
    }
    return write(args, items, report, refused)


def check(args: Args) -> None:
    if bool(args.raw_data) == bool(args.dataset_name):
        raise UserError("give either raw_data (a folder of files) or dataset_name, one of the two")
    if args.dataset_name and not args.split:
        raise UserError(f"split of {args.dataset_name!r} is missing; name the one to evaluate, such as test")
    if (args.benchmark == "columns") != bool(args.columns):
        raise UserError("columns says what the columns are, for benchmark=columns and for no other")
    other = {"fewshot_split": args.dataset_name, "fewshot_files": args.raw_data}
    for name, source in other.items():
        if getattr(args, name) and not source:
            raise UserError(f"{name} belongs to {'dataset_name' if name == 'fewshot_split' else 'raw_data'}")
        if getattr(args, name) and not args.num_fewshot:
            raise UserError(f"{name} is given and num_fewshot is 0; say how many examples to show")
    if args.max_contaminated_fraction is not None and not args.train_data:
        raise UserError("max_contaminated_fraction needs train_data, the chats to look into")


def reader(args: Args) -> tuple[Any, tuple[str, ...] | None]:
    """How a row is read, and the header of a CSV file without one."""
    if args.benchmark != "columns":
        return benchmark_formats.FORMATS[args.benchmark]
    import column_mapping

    return benchmark_formats.mapped(column_mapping.parse(args.columns)), None


def rows(args: Args, header: tuple[str, ...] | None) -> tuple[Iterator[Row | Refused], Iterator[Row | Refused] | None]:
    """The rows to ask, and those to take examples from where they have a source of their own."""
    if args.dataset_name:
        what = args.dataset_name, args.dataset_revision, args.dataset_config
        pool = benchmark_files.read_dataset(*what, args.fewshot_split) if args.fewshot_split else None
        return benchmark_files.read_dataset(*what, args.split), pool
    folder = args.raw_data
    pool_files = benchmark_files.find_files(folder, args.fewshot_files) if args.fewshot_files else []
    files = [path for path in benchmark_files.find_files(folder, args.files) if path not in pool_files]
    if not files:
        raise UserError(f"{args.files!r} and {args.fewshot_files!r} match the same files; none is left to ask")
    pool = benchmark_files.read_files(folder, pool_files, header) if pool_files else None
    return benchmark_files.read_files(folder, files, header), pool


def read_questions(found: Iterable[Row | Refused], read: Any) -> tuple[list[Question], list[Refused]]:
    """The questions of the rows, each once. An id that two rows share stops the step: which of them would be scored?"""
    questions: list[Question] = []
    refused: list[Refused] = []
    first: dict[str, str] = {}
    for row in found:
        if isinstance(row, Refused):
            refused.append(row)
            continue
        place = f"{row.source}:{row.line}"
        try:
            question = benchmark_formats.check(read(row))
            earlier = first.setdefault(benchmark_items.id_of(question), place)
            if earlier != place and question.source_id:
                raise UserError(
                    f"{place}: the id {question.source_id!r} stands at {earlier} already; ids must be unique: correct "
                    "it, or let files match one of the two files"
                )
            if earlier != place:
                raise RowError(f"the same question and choices as at {earlier}")
        except RowError as error:
            refused.append(Refused(row.source, row.line, str(error), str(row.values)[:200]))
        else:
            questions.append(question)
    return questions, refused


def check_refused(args: Args, num_rows: int, asked: list[Question], refused: list[Refused]) -> None:
    named = "; ".join(map(str, refused[:NUM_NAMED])) + "; ..." * (len(refused) > NUM_NAMED)
    try:
        if not asked:
            raise UserError(f"no question in {num_rows} rows{f' ({named})' if refused else ''}; is benchmark right?")
        records.check_share(len(refused), num_rows, args.max_error_fraction, f"rows ({named})")
    except UserError:
        with records.whole_folder(args.report) as folder:
            write_quarantine(folder, refused)
        raise


def write_quarantine(folder: Path, refused: list[Refused]) -> None:
    with records.write_records(folder / "quarantine.jsonl") as refuse:
        for row in refused:
            refuse(asdict(row))


def find_contamination(args: Args, chosen: list[Question], items: list[dict[str, Any]]) -> dict[str, Any]:
    """Mark each item by a slice, so that a comparison shows the clean ones apart; none is dropped."""
    import contamination

    asked = [(f"{question.context}\n{question.text}", question.worked_answer or question.answer) for question in chosen]
    overlaps, num_chats = contamination.overlaps(asked, args.train_data, args.ngram_words, args.ngram_characters)
    for item, overlap in zip(items, overlaps, strict=True):
        item["slices"]["contaminated"] = "yes" if overlap.question >= args.min_overlap else "no"
    worst = sorted(zip(overlaps, asked, items, strict=True), key=lambda entry: (-entry[0].question, entry[2]["id"]))
    share = sum(overlap.question >= args.min_overlap for overlap in overlaps) / len(overlaps)
    with_answer = sum(overlap.with_answer >= args.min_overlap for overlap in overlaps) / len(overlaps)
    if args.max_contaminated_fraction is not None and share > args.max_contaminated_fraction:
        raise UserError(
            f"{share:.1%} of the items stand in train_data, more than max_contaminated_fraction="
            f"{args.max_contaminated_fraction} (such as {worst[0][2]['id']}: {worst[0][1][0].strip()[:80]!r}); give "
            "these items to prepare_dataset as guarded_data, and train again"
        )
    return {
        "num_chats": num_chats,
        "question_fraction": share,
        "question_and_answer_fraction": with_answer,
        "too_short_for_ngrams_fraction": sum(not overlap.num_ngrams for overlap in overlaps) / len(overlaps),
        "examples": [
            {"id": item["id"], "question": question.strip(), "overlap": overlap.question}
            for overlap, (question, _), item in worst[:10]
            if overlap.question
        ],
    }


def write(args: Args, items: list[dict[str, Any]], report: dict[str, Any], refused: list[Refused]) -> dict[str, float]:
    import benchmark_report

    report = benchmark_report.summary(items) | report
    with records.whole_folder(args.report) as folder:
        write_quarantine(folder, refused)
        benchmark_report.write(folder, report, items, refused)
        with records.write_records(args.eval_items) as write_item:
            for item in items:
                write_item(item)
    metrics = {f"data/num_{name}": float(number) for name, number in report["counts"].items()}
    if report["contamination"]:
        metrics["data/contaminated_fraction"] = report["contamination"]["question_fraction"]
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    lineage.write(args, SPEC)
    print(benchmark_report.headline(report))
    return metrics


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
