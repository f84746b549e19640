"""The canaries of a window: each item with its answer and its score, joined by id; nothing is dropped on the way."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from drift_snapshot import Canary

from slmkit import records
from slmkit.errors import UserError

REFUSED = "refused by the content filter"  # of generate_answers: an answer, and no failure of the endpoint
NOT_METRICS = {"repeat", "failed"}


def read(items_path: Path, predictions_path: Path, scores_path: Path, metric: str) -> tuple[list[Canary], list[dict]]:
    """The canaries in the order of their items, and the predictions as they came."""
    items = _by_id(items_path, "canary_items", _check_item)
    predictions = _by_id(predictions_path, "predictions", _check_prediction)
    scores = _by_id(scores_path, "scores", lambda row: _check_score(row, metric))
    for what, rows in (("predictions", predictions), ("scores", scores)):
        if unknown := rows.keys() - items.keys():
            raise UserError(
                f"{what}: {_some(unknown)} not in canary_items; answer and score the very items that are given here"
            )
    answered = {id for id, row in predictions.items() if row.get("error") in (None, "", REFUSED)}
    if unscored := answered - scores.keys():
        raise UserError(f"scores: {_some(unscored)} answered but not scored; run score_answers on these predictions")
    clusters = _clusters(items.values())
    canaries = [
        _canary(item, clusters, predictions.get(id) if id in answered else None, scores.get(id), metric)
        for id, item in items.items()
    ]
    return canaries, list(predictions.values())


def content_sha256(path: Path) -> str:
    """A hash of what is asked and expected, whatever the order of rows and keys."""
    named = ("id", "canary_id", "edit", "repeat", "messages", "references")
    lines = [
        json.dumps({name: item.get(name) for name in named}, sort_keys=True) for item in records.read_records(path)
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _by_id(path: Path, what: str, check: Callable[[dict], None]) -> dict[str, dict]:
    rows: dict[str, dict] = {}
    for row, source, line in records.read_located(path):
        where, id = f"{source}:{line}", row.get("id")
        if not isinstance(id, str) or not id:
            raise UserError(f"{where}: no 'id' (a text) in {what}; every record needs one")
        if id in rows:
            raise UserError(f"{where}: id {id[:80]!r} stands twice in {what}; ids must be unique")
        try:
            check(row)
        except ValueError as error:
            raise UserError(f"{where}: {what}: {id[:80]!r}: {error}") from None
        rows[id] = row
    if not rows and what == "canary_items":
        raise UserError(f"{path}: no canaries; make them by prepare_canaries")
    return rows


def _check_item(item: dict) -> None:
    records.check_chat(item)
    records.check_slices(item)
    references = item.get("references") or []
    if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
        raise ValueError("'references' is not a list of texts")
    if not isinstance(item.get("edit"), str | None):
        raise ValueError("'edit' is neither null nor the name of an edit")
    repeat = item.get("repeat", 0)
    if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 0:
        raise ValueError(f"'repeat' is {repeat!r:.40} and not 0, 1, 2, ...")


def _check_prediction(row: dict) -> None:
    if not row.get("error") and not isinstance(row.get("output"), str):
        raise ValueError("neither an 'output' (a text) nor an 'error'")
    if not isinstance(row.get("deployment"), str | None):
        raise ValueError("'deployment' is not a text")


def _check_score(row: dict, metric: str) -> None:
    if metric not in row:
        numbers = [name for name, value in row.items() if isinstance(value, int | float) and name not in NOT_METRICS]
        raise ValueError(f"no metric {metric!r}; there are {', '.join(numbers) or 'none'}")
    value = row[metric]
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{metric} is {str(value)[:40]!r} and not a number from 0 to 1")


def _some(ids: Iterable[str]) -> str:
    ids = sorted(ids)
    return f"{len(ids)} ids ({', '.join(ascii(id[:80]) for id in ids[:3])}{', ...' if len(ids) > 3 else ''}) are"


def _canary_id(item: dict) -> str:
    return str(item.get("canary_id") or item["id"])


def _clusters(items: Iterable[dict]) -> dict[str, str]:
    """By canary_id; a prompt that stands under many is in one cluster, for asking it again is no further evidence."""
    of_prompt, found = {}, {}
    for item in items:
        id = _canary_id(item)
        cluster = str(item.get("cluster") or id)
        if item.get("edit") is None:
            found[id] = of_prompt.setdefault(json.dumps(item["messages"]), cluster)
        found.setdefault(id, cluster)
    return found


def _canary(item: dict, clusters: dict[str, str], prediction: dict | None, score: dict | None, metric: str) -> Canary:
    """The prediction is None where there is no answer."""
    failed = prediction is None
    tokens = (prediction or {}).get("prompt_tokens")
    canary_id = _canary_id(item)
    return Canary(
        id=item["id"],
        canary_id=canary_id,
        edit=item.get("edit"),
        repeat=item.get("repeat", 0),
        cluster=clusters[canary_id],
        slices={key: str(value) for key, value in (item.get("slices") or {}).items() if value is not None},
        output="" if failed else prediction.get("output") or "",
        score=0.0 if failed else float(score[metric]),
        failed=failed,
        references=item.get("references") or [],
        question=item["messages"][-1]["content"],
        prompt_tokens=tokens if isinstance(tokens, int) and tokens > 0 else 0,
        deployment=(prediction or {}).get("deployment"),
    )
