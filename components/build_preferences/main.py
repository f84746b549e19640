"""Make preference pairs from scored answers: for each question a better and a worse one, or the reason why not."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import preference_pairs
from preference_pairs import Answer

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
ERRORS = ("failed", "blank", "without a score", "a score without an answer", "to no question of eval_items")


@dataclass(frozen=True)
class Args:
    predictions: Path
    scores: Path
    eval_items: Path
    train_preferences: Path
    validation_preferences: Path
    report: Path
    other_predictions: Path | None = None
    other_scores: Path | None = None
    metric: str = "f1"
    min_margin: float = 0.1
    min_chosen_score: float = 0.5
    use_reference: bool = True
    max_pairs_per_prompt: int = 1
    validation_fraction: float = 0.1
    max_error_fraction: float = 0.1
    seed: int = 42


def run(args: Args) -> dict[str, float]:
    items = read_items(args.eval_items, args.use_reference)
    answers, num_answers = read_answers(args, items)
    num_errors = sum(num_answers[reason] for reason in ERRORS)
    found = ", ".join(f"{reason} {number}" for reason, number in num_answers.items() if reason in ERRORS)
    records.check_share(num_errors, num_answers.total(), args.max_error_fraction, f"answers ({found})")

    pairs, num_questions = [], Counter()
    for id, item in items.items():
        made, outcome = preference_pairs.pairs_of(item, answers[id], args)
        pairs += made
        num_questions[outcome] += 1
    if not pairs:
        reasons = ", ".join(f"{reason} {number}" for reason, number in num_questions.items())
        raise UserError(
            f"no pair from {len(items)} questions ({reasons}); lower min_margin or min_chosen_score, set "
            "use_reference, or add the answers of a second candidate"
        )
    held_out = preference_pairs.held_out_clusters(pairs, args.validation_fraction, args.seed)
    for path, wanted in ((args.train_preferences, False), (args.validation_preferences, True)):
        with records.write_records(path) as write:
            for pair in pairs:
                if (pair["cluster"] in held_out) == wanted:
                    write(pair)

    import preference_report

    settings = {name: value for name, value in asdict(args).items() if not isinstance(value, Path)}
    report = preference_report.write(args.report, pairs, held_out, num_questions, num_answers, settings)
    metrics = {f"data/{name}": float(value) for name, value in report["pairs"].items()}
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    print(preference_report.headline(report))
    return metrics


def read_items(path: Path, use_reference: bool) -> dict[str, dict[str, Any]]:
    """The questions by id, each a prompt that ends with the user's turn."""
    items: dict[str, dict[str, Any]] = {}
    for item, source, line in records.read_located(path):
        try:
            records.check_chat(item)
            if item["messages"][-1]["role"] != "user":
                raise ValueError("the messages do not end with the user's turn")
            if not isinstance(item.get("id"), str) or item["id"] in items:
                raise ValueError(f"'id' is missing or stands twice ({item.get('id')!r})")
            references = item.get("references")
            if use_reference and not (isinstance(references, list) and references and has_text(references[0])):
                raise ValueError("no 'references' (a list of texts), which use_reference needs")
        except ValueError as error:
            raise UserError(f"{source}:{line}: {error}; correct or remove the line") from None
        items[item["id"]] = item
    if not items:
        raise UserError(f"{path}: no eval items; is this the right file?")
    return items


def read_answers(args: Args, items: dict[str, Any]) -> tuple[dict[str, list[Answer]], Counter[str]]:
    """The answers of each question that can be compared, and how many answers there are of each kind."""
    predictions = read_rows(args.predictions, args.other_predictions)
    scores = read_rows(args.scores, args.other_scores)
    answers: dict[str, list[Answer]] = {id: [] for id in items}
    counts: Counter[str] = Counter()
    for id, candidate in sorted(predictions.keys() | scores.keys()):
        prediction, score = predictions.get((id, candidate)), scores.get((id, candidate))
        text = prediction["output"].strip() if prediction and has_text(prediction.get("output")) else ""
        if id not in items:
            kind = "to no question of eval_items"
        elif (prediction or {}).get("error") or (score or {}).get("failed"):
            kind = "failed"
        elif prediction is None:
            kind = "a score without an answer"
        elif score is None:
            kind = "without a score"
        elif not text:
            kind = "blank"
        elif any(text == other.text for other in answers[id]):
            kind = "the same text as another"
        else:
            kind = "compared"
            answers[id].append(Answer(candidate, text, checked_score(score, args.metric)))
        counts[kind] += 1
    return answers, counts


def read_rows(*paths: Path | None) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of all files by id and candidate."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for path in filter(None, paths):
        for row, source, line in records.read_located(path):
            key = (row.get("id"), row.get("candidate"))
            if not all(map(has_text, key)):
                raise UserError(f"{source}:{line}: a row needs 'id' and 'candidate', both texts")
            if key in rows:
                raise UserError(
                    f"{source}:{line}: {key[1]!r} has a second row for {key[0]!r}; name each sample as a candidate"
                )
            rows[key] = row
    if not rows:
        raise UserError(f"{paths[0]}: no rows; run generate_answers and score_answers first")
    return rows


def checked_score(row: dict[str, Any], metric: str) -> float:
    value = row.get(metric)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        known = ", ".join(name for name in row if name not in ("id", "candidate", "failed")) or "none"
        raise UserError(
            f"{row['candidate']}: {metric} of {row['id']!r} is {value!r}; a score is a number from 0 to 1 "
            f"(there: {known})"
        )
    return float(value)


def has_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
