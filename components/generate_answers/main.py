"""Let a model or an endpoint answer evaluation items, greedily: a row for every item, with its answer or its error."""

import collections
import dataclasses
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_inference.prompts import REFUSED, TOO_LONG
from slmkit import cli, lineage, records, tracking
from slmkit.answer_cache import cache_key
from slmkit.errors import UserError
from slmkit.resume_log import ResumeLog

if TYPE_CHECKING:
    from model_inference.answer_sources import AnswerSource, Request

SPEC = Path(__file__).with_name("component.yml")
TAKEN_OVER = {"output", "prompt_tokens", "completion_tokens", "cost", "finish_reason"}


@dataclass(frozen=True)
class Args:
    eval_items: Path
    candidate: str
    predictions: Path
    model: Path | None = None
    base_model: Path | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    auth: str = "azure"
    deployed_endpoint: Path | None = None
    concurrency: int = 8
    prompt_format: str = "chat"
    batch_size: int = 16
    bf16: bool = False
    max_new_tokens: int = 128
    truncate_prompt: bool = False
    earlier_predictions: Path | None = None
    prompt_price: float | None = None
    completion_price: float | None = None
    machine_price_per_hour: float | None = None
    max_error_fraction: float = 0.05


def run(args: Args) -> dict[str, float]:
    records.check_candidate(args.candidate)
    args, deployed = at_deployed(args)
    # Threads that spin while they wait are slower than none as soon as another step runs beside this one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")
    from model_inference import answer_sources

    items = read_items(args.eval_items)
    prices = answer_sources.Prices(args.prompt_price, args.completion_price, args.machine_price_per_hour)
    with answer_sources.connect(
        args, prices, truncate_prompt=args.truncate_prompt, base_model=args.base_model
    ) as source:
        started = time.perf_counter()
        requests = [answer_sources.Request(id, item.get("messages"), args.max_new_tokens) for id, item in items.items()]
        hashes = {request.key: request_hash(source, request) for request in requests}
        asked = lineage.asked(args)
        served = {"endpoint_model": args.endpoint_model} if args.endpoint_model else {}
        rows = earlier_rows(args, hashes, asked)
        with ResumeLog(args.predictions, [source.identity, deployed, args.candidate, vars(prices)]) as log:
            rows |= {id: row for id, row in log.done.items() if row["request_sha256"] == hashes.get(id)}
            num_known = len(rows)
            for request, answer in source.answers([request for request in requests if request.key not in rows]):
                row = prediction(args.candidate, asked | served, request.key, hashes[request.key], answer)
                rows[request.key] = row
                if "error" not in row:  # a failure is asked about again
                    log.add(request.key, row)
            seconds = time.perf_counter() - started
            report_failures(rows, args.max_error_fraction)
            with records.write_records(args.predictions) as write:
                for id in items:
                    write(rows[id])
        metrics = figures(rows, seconds, source)
    tracking.set_tags({"candidate": args.candidate})
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    log.forget()
    print(summary(args.candidate, num_known, metrics))
    deployments = collections.Counter(row["deployment"] for row in rows.values() if "deployment" in row)
    if len(deployments) > 1:
        shares = ", ".join(f"{name} {count}" for name, count in deployments.most_common())
        print(f"answered by more than one deployment: {shares}")
    return metrics


def at_deployed(args: Args) -> tuple[Args, list[str | None]]:
    """The arguments with the endpoint that deployed_endpoint describes, and what serves there."""
    if args.deployed_endpoint is None:
        return args, []
    if (args.endpoint, args.model) != (None, None):
        raise UserError("deployed_endpoint says what is asked; leave out model and endpoint")
    if args.earlier_predictions is not None:
        raise UserError(
            "deployed_endpoint is asked anew, as another model may serve there; leave out earlier_predictions"
        )
    from slmkit import endpoint_access

    found = endpoint_access.read_deployed(args.deployed_endpoint)
    model = args.endpoint_model or found.model
    if model not in (names := (found.model, *found.adapters)):
        raise UserError(f"{args.deployed_endpoint}: no {model:.80} at this endpoint; known are {', '.join(names)}")
    args = dataclasses.replace(args, endpoint=found.scoring_uri, endpoint_model=model, auth=found.auth)
    return args, [found.deployment, found.model_sha256]


def summary(candidate: str, num_known: int, metrics: dict[str, float]) -> str:
    """What a person wants to know; counts where there is something to count."""
    counts = {"answered before": num_known}
    counts |= {word: metrics[f"generate/num_{word}"] for word in ("failed", "refused", "too_long", "cut", "cached")}
    counts |= {"truncated": metrics.get("perf/num_truncated", 0)}
    said = [f"{count:,.0f} {word.replace('_', ' ')}" for word, count in counts.items() if count]
    if "perf/tokens_per_second" in metrics:
        said.insert(0, f"{metrics['perf/tokens_per_second']:,.0f} tokens a second")
    if "perf/latency_p95_ms" in metrics:
        said.append(f"p95 {metrics['perf/latency_p95_ms']:,.0f} ms")
    if "generate/cost" in metrics:
        said.append(f"cost {metrics['generate/cost']:.4g}")
    seconds = f"{metrics['perf/generate_seconds']:.1f} s"
    return ", ".join([f"{candidate}: {metrics['generate/num_items']} items in {seconds}", *said])


def read_items(path: Path) -> dict[str, dict[str, Any]]:
    items = {}
    for item, source, line in records.read_located(path):
        id = item.get("id")
        if not isinstance(id, str) or not id or id in items:
            raise UserError(f"{source}:{line}: 'id' is missing, empty or not unique ({id!r}); give each item its own")
        items[id] = item
    if not items:
        raise UserError(f"{path}: no eval items; is this the right file?")
    return items


def request_hash(source: "AnswerSource", request: "Request") -> str:
    """The same for the same question to the same source; what an answer is known by."""
    return cache_key(source.identity, request.messages, request.max_new_tokens)


def earlier_rows(args: Args, hashes: dict[str, str], asked: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The rows of items that an earlier run answered; when they were asked now, that took no time.

    A row that says it is of another model is not taken over, whatever its request's hash.
    """
    if args.earlier_predictions is None:
        return {}
    rows = [row for row in records.read_records(args.earlier_predictions) if not row.get("error")]
    rows = [row for row in rows if {name: row[name] for name in lineage.ASKED if name in row} in ({}, asked)]
    known = {row.get("request_sha256"): row for row in rows if row.keys() >= TAKEN_OVER}
    taken = {"candidate": args.candidate, **asked, "latency_ms": None, "cached": True}
    return {id: {**known[sha256], "id": id, **taken} for id, sha256 in hashes.items() if sha256 in known}


def prediction(candidate: str, asked: dict[str, str], id: str, sha256: str, answer: Any) -> dict[str, Any]:
    """``answer`` is an Answer, or the error in its stead."""
    row = {
        "id": id,
        "candidate": candidate,
        **asked,
        "output": "",
        "latency_ms": None,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cost": None,
        "cached": False,
        "finish_reason": None,
        "request_sha256": sha256,
    }
    if isinstance(answer, Exception):
        return {**row, "error": str(answer)}
    row |= {name: getattr(answer, name) for name in row if hasattr(answer, name)}
    row["output"] = answer.text
    if answer.deployment:
        row["deployment"] = answer.deployment
    if answer.latency_ms is not None:
        row["latency_ms"] = round(answer.latency_ms, 3)
    return {**row, "error": REFUSED} if answer.refused else row


def report_failures(rows: dict[str, dict[str, Any]], max_error_fraction: float) -> None:
    failed = {id: row["error"] for id, row in rows.items() if "error" in row}
    for id, error in list(failed.items())[:5]:
        print(f"{id}: {error}")
    if len(failed) > 5:
        print(f"and {len(failed) - 5} more")
    if len(failed) / len(rows) > max_error_fraction:  # 0.29 * 100 is below 29
        raise UserError(
            f"{len(failed)} of {len(rows)} eval items failed, which is more than max_error_fraction="
            f"{max_error_fraction}; what was answered is kept: start again to ask about the others only"
        )


def figures(rows: dict[str, dict[str, Any]], seconds: float, source: "AnswerSource") -> dict[str, float]:
    answered = rows.values()
    errors = [row["error"] for row in answered if "error" in row]
    latencies = sorted(row["latency_ms"] for row in answered if row["latency_ms"] is not None)
    costs = [row["cost"] for row in answered if row["cost"] is not None]
    found = {
        "generate/num_items": len(rows),
        "generate/num_failed": len(errors),
        "generate/num_refused": errors.count(REFUSED),
        "generate/num_too_long": sum(bool(TOO_LONG.search(error)) for error in errors),
        "generate/num_cut": sum(row["finish_reason"] == "length" for row in answered),
        "generate/num_cached": sum(row["cached"] for row in answered),
        "generate/num_deployments": len({row["deployment"] for row in answered if "deployment" in row}),
        "perf/generate_seconds": seconds,
        **{f"perf/{name}": value for name, value in source.usage.items()},
    }
    if latencies:
        found["perf/latency_p50_ms"] = statistics.median(latencies)
        found["perf/latency_p95_ms"] = latencies[int(0.95 * (len(latencies) - 1))]
    if costs:
        found["generate/cost"] = sum(costs)
    return found


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
