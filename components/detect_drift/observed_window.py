"""One window as it was observed: canaries, traffic and who answered, out of the input files."""

import collections
import urllib.parse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import canary_answers
import pydantic
import traffic_window
from drift_snapshot import Snapshot

from slmkit import checked_files, lineage
from slmkit.errors import UserError

ASKED_WITH = ("max_new_tokens", "prompt_format", "truncate_prompt")  # of generate_answers: they change the answers


class Inputs(Protocol):
    canary_items: Path | None
    predictions: Path | None
    scores: Path | None
    traffic: Path | None
    window: Path | None
    endpoint: Path | None
    metric: str


class Endpoint(pydantic.BaseModel):
    """What is read of the output of deploy_endpoint."""

    name: str | None = None
    scoring_uri: str | None = None
    deployment: str | None = None
    model: str | None = None
    model_sha256: str | None = None


def observe(inputs: Inputs) -> tuple[Snapshot, list[str]]:
    """What there was to see, and what is to be said of it."""
    canary_files = (inputs.canary_items, inputs.predictions, inputs.scores)
    if any(canary_files) != all(canary_files):
        raise UserError("canary_items, predictions and scores go together: give all three or none")
    if not any((*canary_files, inputs.traffic, inputs.window)):
        raise UserError("nothing to look at: give canary_items, predictions and scores, or traffic, or both")
    window = traffic_window.read_window(inputs.window) if inputs.window else None
    traffic = traffic_window.read(inputs.traffic, window) if inputs.traffic else []
    endpoint = Endpoint()
    if inputs.endpoint:
        endpoint = checked_files.load(inputs.endpoint, Endpoint, "is it the output of deploy_endpoint?")

    canaries, predictions, canary_items_sha256, asked_with = [], [], None, {}
    if all(canary_files):
        canaries, predictions = canary_answers.read(*canary_files, inputs.metric)
        canary_items_sha256 = canary_answers.content_sha256(inputs.canary_items)
        parameters = lineage.read(inputs.predictions).get("parameters", {})
        asked_with = {name: parameters[name] for name in ASKED_WITH if name in parameters}
    asked = lineage.asked_for_all(predictions, "predictions")
    _check_same_endpoint(endpoint, asked)
    deployments = collections.Counter(canary.deployment for canary in canaries if canary.deployment)
    manifest: dict[str, Any] = {
        "created_at": (window and window.ended) or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "window": window and window.model_dump(mode="json"),
        "metric": inputs.metric,
        "endpoint": endpoint.name or address(endpoint.scoring_uri or asked.get("endpoint")),
        "deployment": max(deployments, key=deployments.__getitem__, default=endpoint.deployment),
        "deployments": dict(deployments),
        "model": next((str(row["endpoint_model"]) for row in predictions if row.get("endpoint_model")), endpoint.model),
        "model_sha256": endpoint.model_sha256 or asked.get("model_sha256"),
        "canary_items_sha256": canary_items_sha256,
        "asked_with": asked_with,
        "num_canaries": len(canaries),
        "num_failed": sum(canary.failed for canary in canaries),
        "num_traffic": len(traffic),
    }
    return Snapshot(manifest, canaries, traffic), list(_notes(manifest, endpoint))


def _check_same_endpoint(endpoint: Endpoint, asked: dict[str, str]) -> None:
    for what, served, answered in (
        ("model", endpoint.model_sha256, asked.get("model_sha256")),
        ("address", address(endpoint.scoring_uri), address(asked.get("endpoint"))),
    ):
        if served and answered and served != answered:
            raise UserError(
                f"the predictions are of the {what} {answered:.80}, the endpoint says {served:.80}; "
                "let generate_answers ask the endpoint that is given here"
            )


def address(url: str | None) -> str | None:
    """The URL without what may be secret in it."""
    if url is None:
        return None
    parts = urllib.parse.urlsplit(url.strip())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _notes(manifest: dict[str, Any], endpoint: Endpoint):
    deployments = manifest["deployments"]
    if len(deployments) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(deployments.items()))
        yield f"Several deployments answered the canaries ({counts}): what is said of them is of the mixture."
    elif deployments and endpoint.deployment and endpoint.deployment not in deployments:
        yield f"The deployment {manifest['deployment']} answered, and not {endpoint.deployment} as the endpoint says."
    if manifest["num_failed"]:
        yield f"{manifest['num_failed']} of {manifest['num_canaries']} canaries were not answered and count as wrong."
