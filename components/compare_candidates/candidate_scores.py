"""What is known of each candidate: its scores, checked to pair with the others', its failures, latency and cost."""

import collections
import dataclasses
import math
from pathlib import Path
from typing import Any

from slmkit import lineage, records
from slmkit.errors import UserError

NOT_METRICS = {"id", "candidate", "failed", "error"}
LARGEST = 1e15  # beyond it sums lose the units


@dataclasses.dataclass(frozen=True)
class Candidate:
    name: str
    scores_sha256: str
    scores: dict[str, dict]
    predictions: dict[str, dict] | None
    num_left_out: int = 0
    asked: dict[str, str] = dataclasses.field(default_factory=dict)  # the model or the endpoint, if its scores say it


def read_items(path: Path) -> dict[str, dict]:
    rows = {}
    for row, source, line in records.read_located(path):
        id = checked_id(row, source, line)
        if id in rows:
            raise UserError(f"{source}:{line}: id {id!r} stands twice; ids must be unique")
        try:
            records.check_chat(row)
            records.check_slices(row)
        except ValueError as error:
            raise UserError(f"{source}:{line}: eval item {id!r}: {error}") from None
        rows[id] = row
    if not rows:
        raise UserError(f"{path}: no records; there is nothing to compare")
    return rows


def checked_id(row: dict, source: str, line: int) -> str:
    if not isinstance(row.get("id"), str):
        raise UserError(f"{source}:{line}: no 'id' (a text); every record needs one")
    return row["id"]


def read_candidates(scores_path: Path, predictions_path: Path | None) -> list[Candidate]:
    """The candidates whose scores a file holds, in the order in which they come."""
    scores = read_by_candidate(scores_path)
    predictions = read_by_candidate(predictions_path) if predictions_path else {}
    if unknown := [name for name in predictions if name not in scores]:
        found = ", ".join(map(repr, scores))
        raise UserError(f"{predictions_path}: predictions of {unknown[0]!r} beside scores of {found}; swapped inputs?")
    sha256 = lineage.sha256(scores_path)
    found = []
    for name, rows in scores.items():
        asked = lineage.asked_for_all(rows.values(), f"{scores_path}: {name}")
        of_predictions = lineage.asked_for_all(predictions.get(name, {}).values(), f"{predictions_path}: {name}")
        if asked and of_predictions and asked != of_predictions:
            raise UserError(f"{predictions_path}: {name} was asked of another model than in {scores_path}")
        found.append(Candidate(name, sha256, rows, predictions.get(name), asked=asked))
    return found


def read_by_candidate(path: Path) -> dict[str, dict[str, dict]]:
    found: dict[str, dict[str, dict]] = collections.defaultdict(dict)
    for row, source, line in records.read_located(path):
        id, name = checked_id(row, source, line), row.get("candidate")
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{source}:{line}: no 'candidate' (a text); every score and prediction names who answered")
        if not isinstance(row.get("output"), str | None):
            raise UserError(f"{source}:{line}: the 'output' of {id!r} is {type(row['output']).__name__} and not a text")
        if id in found[name]:
            raise UserError(f"{source}:{line}: id {id!r} stands twice for {name!r}; ids must be unique")
        found[name][id] = row
    if not found:
        raise UserError(f"{path}: no records; there is nothing to compare")
    return dict(found)


def pair(
    items: dict[str, dict], candidates: list[Candidate], on_unequal_ids: str
) -> tuple[dict[str, dict], list[Candidate], list[str]]:
    """The questions that are compared, each candidate's rows on them, and warnings; a pair needs all scores."""
    check_names(candidates)
    if on_unequal_ids == "error":
        check_same_ids(items, candidates)
        common = items
    else:
        common = {id: item for id, item in items.items() if all(id in one.scores for one in candidates)}
    if len(common) < 2:
        raise UserError(f"{len(common)} questions were scored for all candidates: a comparison needs two or more")
    candidates = [only(common, one) for one in candidates]
    return common, candidates, unequal(items, common, candidates)


def check_names(candidates: list[Candidate]) -> None:
    counts = collections.Counter(one.name for one in candidates)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise UserError(f"both score files hold candidate {twice[0]!r}; give each candidate its own name, in one file")


def check_same_ids(items: dict[str, dict], candidates: list[Candidate]) -> None:
    for one in candidates:
        for what, ids in (
            ("questions without a score", items.keys() - one.scores.keys()),
            ("questions scored but not in eval_items", one.scores.keys() - items.keys()),
            ("predictions to no question of eval_items", (one.predictions or {}).keys() - items.keys()),
        ):
            if ids:
                some = ", ".join(id[:80] if id.isprintable() else ascii(id[:80]) for id in sorted(ids)[:3])
                raise UserError(
                    f"{one.name}: {len(ids)} {what} ({some}{', ...' if len(ids) > 3 else ''}); "
                    "score all candidates on the same eval items, or set on_unequal_ids to intersect"
                )


def only(ids: dict[str, Any], candidate: Candidate) -> Candidate:
    scores = {id: candidate.scores[id] for id in ids}
    predictions = candidate.predictions
    if predictions is not None:
        predictions = {id: predictions[id] for id in ids if id in predictions}
    left_out = len(candidate.scores) - len(scores)
    return dataclasses.replace(candidate, scores=scores, predictions=predictions, num_left_out=left_out)


def unequal(items: dict[str, dict], common: dict[str, dict], candidates: list[Candidate]) -> list[str]:
    if len(common) == len(items) and not any(one.num_left_out for one in candidates):
        return []
    counts = ", ".join(f"{one.name} {one.num_left_out:,}" for one in candidates)
    return [
        f"Compared on {len(common):,} of {len(items):,} questions, those that every candidate has a score for. "
        f"Scores left out: {counts}. What was left out may differ from what was kept."
    ]


def metric_names(rows: list[dict]) -> list[str]:
    """The names of the numbers that stand in all of these rows, in the order of the first."""
    return [
        name
        for name, value in rows[0].items()
        if name not in NOT_METRICS and isinstance(value, int | float) and all(name in row for row in rows)
    ]


def column(candidate: Candidate, metrics: dict[str, str]) -> list[float]:
    """A candidate's score of each question; ``metrics`` says by id what it is scored in."""
    values = [candidate.scores[id].get(metric) for id, metric in metrics.items()]
    if not set(map(type, values)) <= {int, float, bool} or not all(-LARGEST <= value <= LARGEST for value in values):
        for (id, metric), value in zip(metrics.items(), values, strict=True):
            if not isinstance(value, int | float) or not abs(value) <= LARGEST:  # nor NaN
                raise UserError(
                    f"{candidate.name}: {metric} of {id!r} is {str(value)[:40]!r}; "
                    f"a score is a finite number, at most {LARGEST:g} in size"
                )
    return values


def failures(candidate: Candidate) -> dict[str, float]:
    num_failed = sum(bool(row.get("failed") or row.get("error")) for row in candidate.scores.values())
    return {"num_failed": num_failed, "failed_fraction": num_failed / len(candidate.scores)}


def latency(candidate: Candidate) -> dict[str, float] | None:
    """Percentiles over the answers that were really made: a cached answer has no latency, a failure is no answer."""
    import numpy as np

    made = [row for row in (candidate.predictions or {}).values() if not row.get("cached") and not row.get("error")]
    taken = [row["latency_ms"] for row in made if is_amount(row.get("latency_ms")) and row["latency_ms"]]
    if not taken:
        return None
    p50, p95 = np.percentile(taken, [50, 95])
    return {"p50": float(p50), "p95": float(p95), "num_answers": len(taken)}


def cost_per_1000(candidate: Candidate) -> float | None:
    """What 1,000 requests cost, in the currency of the predictions, over those that were really made and priced."""
    rows = [row for row in (candidate.predictions or {}).values() if not row.get("cached")]
    paid = [row["cost"] for row in rows if is_amount(row.get("cost"))]
    return 1000 * math.fsum(paid) / len(paid) if paid else None


def is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST
