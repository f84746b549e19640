"""What is known of each candidate: its scores, checked to pair with the others', its failures and its latency."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from slmkit import lineage, records
from slmkit.errors import UserError

NOT_METRICS = {"id", "candidate", "failed", "error"}


@dataclass(frozen=True)
class Candidate:
    name: str
    scores_sha256: str
    scores: dict[str, dict]
    predictions: dict[str, dict] | None


def read_by_id(path: Path) -> dict[str, dict]:
    rows = {}
    for row, source, line in records.read_located(path):
        if not isinstance(row.get("id"), str):
            raise UserError(f"{source}:{line}: no 'id' (a text); every record needs one")
        if row["id"] in rows:
            raise UserError(f"{source}:{line}: id {row['id']!r} stands twice; ids must be unique")
        rows[row["id"]] = row
    if not rows:
        raise UserError(f"{path}: no records; there is nothing to compare")
    return rows


def read_candidate(scores_path: Path, predictions_path: Path | None) -> Candidate:
    scores = read_by_id(scores_path)
    name = only_name(scores_path, scores.values())
    predictions = None
    if predictions_path:
        predictions = read_by_id(predictions_path)
        if (found := only_name(predictions_path, predictions.values())) != name:
            raise UserError(f"{predictions_path}: predictions of {found!r} beside scores of {name!r}; swapped inputs?")
    return Candidate(name, lineage.sha256(scores_path), scores, predictions)


def only_name(path: Path, rows: Iterable[dict]) -> str:
    names = {str(row.get("candidate") or "") for row in rows}
    if len(names) > 1 or "" in names:
        raise UserError(f"{path}: rows of one named candidate are needed, found {sorted(names)}")
    return names.pop()


def check_pairs(items: dict[str, dict], candidates: list[Candidate]) -> None:
    """A pair needs both scores: no question is dropped silently."""
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise UserError(f"the score files are of one candidate, {names[0]!r}; give each candidate its own name")
    for candidate in candidates:
        for what, ids in (
            ("without a score", items.keys() - candidate.scores.keys()),
            ("scored but not in eval_items", candidate.scores.keys() - items.keys()),
        ):
            if ids:
                some = ", ".join(sorted(ids)[:3])
                raise UserError(
                    f"{candidate.name}: {len(ids)} questions {what} ({some}{', ...' if len(ids) > 3 else ''}); "
                    "score all candidates on the same eval items"
                )
    if len(items) < 2:
        raise UserError("one question only: a comparison needs two or more")


def common_metrics(candidates: list[Candidate], metric: str) -> list[str]:
    """The metrics that all candidates were scored on, the wanted one first."""
    first = [next(iter(candidate.scores.values())) for candidate in candidates]
    common = [name for name in first[0] if name not in NOT_METRICS and all(name in row for row in first)]
    if metric not in common:
        found = ", ".join(common) or "none"
        raise UserError(f"metric {metric!r} is not in the scores of all candidates; in all of them: {found}")
    return [metric, *(name for name in common if name != metric)]


def checked_score(candidate: Candidate, metric: str, id: str) -> float:
    value = candidate.scores[id].get(metric)
    if not isinstance(value, int | float) or not 0 <= value <= 1:  # NaN is refused too
        raise UserError(f"{candidate.name}: {metric} of {id!r} is {value!r}; a score is a number from 0 to 1")
    return float(value)


def failures(candidate: Candidate) -> dict[str, float]:
    num_failed = sum(bool(row.get("failed") or row.get("error")) for row in candidate.scores.values())
    return {"num_failed": num_failed, "failed_fraction": num_failed / len(candidate.scores)}


def latency(candidate: Candidate) -> dict[str, float] | None:
    """Percentiles over the answers that were really made: a cached answer has no latency, a failure is no answer."""
    import numpy as np

    made = [row for row in (candidate.predictions or {}).values() if not row.get("cached") and not row.get("error")]
    taken = [row["latency_ms"] for row in made if row.get("latency_ms")]
    if not taken:
        return None
    p50, p95 = np.percentile(taken, [50, 95])
    return {"p50": float(p50), "p95": float(p95), "num_answers": len(taken)}
