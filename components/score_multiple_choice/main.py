"""Score multiple-choice questions by how likely a model finds each choice, or by the choice that its answer states."""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError
from slmkit.resume_log import ResumeLog

SPEC = Path(__file__).with_name("component.yml")
Item = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Args:
    eval_items: Path
    candidate: str
    scores: Path
    predictions: Path
    model: Path | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    auth: str = "azure"
    concurrency: int = 8
    prompt_format: str = "chat"
    method: str = "letter"
    max_batch_tokens: int = 4096
    batch_size: int = 16
    max_new_tokens: int = 256
    truncate_prompt: bool = False
    bf16: bool = False
    prompt_price: float | None = None
    completion_price: float | None = None
    machine_price_per_hour: float | None = None
    max_error_fraction: float = 0.05


def run(args: Args) -> dict[str, float]:
    # Threads that spin while they wait are slower than none as soon as another step runs beside this one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")

    from choice_items import read_items

    from model_inference.answer_sources import check_one

    check_one(args)
    records.check_candidate(args.candidate)
    items = read_items(args.eval_items, args.method)
    started = time.perf_counter()
    with ResumeLog(args.predictions, depends_on(args)) as log:
        rows = dict(log.done)
        metrics: dict[str, float] = {"choices/num_resumed": len(rows)}
        pending = [item for id, item in items.items() if id not in rows]
        for id, row in ask(args, pending, metrics) if pending else ():
            rows[id] = {"id": id, "candidate": args.candidate, **row}
            if "error" not in row:  # which may pass
                log.add(id, rows[id])
        write_outputs(args, items, rows, metrics)
        log.forget()
    metrics["perf/items_per_second"] = len(pending) / (time.perf_counter() - started)
    tracking.set_tags({"candidate": args.candidate})
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    print(summary(args, metrics, len(items)))
    return metrics


def summary(args: Args, metrics: dict[str, float], num_items: int) -> str:
    """What a person wants to know; counts where there is something to count."""
    said = [f"accuracy {metrics['eval/accuracy']:.1%} by {args.method}"]
    if "eval/accuracy_strict" in metrics:
        said.append(f"{metrics['eval/accuracy_strict']:.1%} where the answer is nothing but the label")
    names = ("num_unparsed", "num_truncated", "num_resumed")
    said += [f"{metrics[f'choices/{name}']:.0f} {name[4:]}" for name in names if metrics.get(f"choices/{name}")]
    if metrics["eval/failed_fraction"]:
        said.append(f"{metrics['eval/failed_fraction']:.1%} failed and scored 0")
    speed = metrics["perf/items_per_second"]
    return f"{args.candidate}: {num_items} questions at {speed:.1f} a second, {', '.join(said)}"


def depends_on(args: Args) -> list[Any]:
    """What a prediction depends on; how many are computed together is not among it."""
    source = lineage.sha256(args.model) if args.model else [args.endpoint, args.endpoint_model]
    settings = [args.candidate, args.prompt_format, args.method, args.truncate_prompt, args.bf16, args.max_new_tokens]
    return [source, lineage.sha256(args.eval_items), *settings]


def ask(args: Args, items: list[Item], metrics: dict[str, float]) -> Iterator[tuple[str, Row]]:
    """The id of each item with what is found out about it, as each is ready."""
    if args.method == "generate":
        return generated(args, items, metrics)
    if args.model is not None:
        return by_likelihood(args, items, metrics)
    if args.method == "letter":
        return by_first_token(args, items)
    raise UserError(f"method={args.method} needs a model; an endpoint can be asked with method=letter or generate")


def by_likelihood(args: Args, items: list[Item], metrics: dict[str, float]) -> Iterator[tuple[str, Row]]:
    from choice_likelihoods import ChoiceScorer
    from choice_tokens import Asked, ChoiceTokens

    from model_inference import loading

    by_id = {item["id"]: item for item in items}
    texts = "labels" if args.method == "letter" else "choices"
    tokenizer, model = loading.load_tokenizer(args.model), loading.load_model(args.model, bf16=args.bf16)
    limit = loading.max_positions(model)
    tokens = ChoiceTokens(tokenizer, args.prompt_format, max_tokens=limit, truncate=args.truncate_prompt)
    asked = [Asked(item["id"], item.get("messages"), [text.strip() for text in item[texts]]) for item in items]
    questions, errors = tokens.encode(asked)
    for id, error in errors.items():
        yield id, failure(error)
    num_known = model.get_input_embeddings().num_embeddings
    if any(max(question.prompt, default=0) >= num_known for question in questions):
        raise UserError(f"{args.model}: the tokenizer is not the model's, which knows {num_known:,} tokens")
    scorer = ChoiceScorer(model, args.max_batch_tokens)
    for question, log_likelihoods in scorer.score(questions):
        if log_likelihoods is None:
            yield question.id, failure(f"out of memory with a prompt of {len(question.prompt)} tokens")
            continue
        if not all(map(math.isfinite, log_likelihoods)):
            yield question.id, failure("the log-likelihood of a choice is not finite: is the model broken?")
            continue
        counts = {"prompt_tokens": len(question.prompt), "completion_tokens": 0}
        sizes = [1] * len(question.choices)
        if args.method == "text_per_byte":
            sizes = [len(text.strip().encode()) for text in by_id[question.id]["choices"]]
        elif args.method == "text_per_token":
            sizes = [len(choice) for choice in question.choices]
        values = [value / size for value, size in zip(log_likelihoods, sizes, strict=True)]
        yield question.id, likeliest(by_id[question.id][texts], values, counts)
    if scorer.why_not_packed:
        print(f"each choice was a row of its own, which is slower: {scorer.why_not_packed}")
    metrics["choices/num_truncated"] = tokens.num_truncated
    metrics["perf/num_computed_tokens"] = scorer.num_computed_tokens


def by_first_token(args: Args, items: list[Item]) -> Iterator[tuple[str, Row]]:
    from endpoint_labels import NUM_TOP, label_log_likelihoods

    from model_inference import answer_sources

    with answer_sources.connect(args, prices(args)) as source:
        for item, answer in answered(source, items, max_new_tokens=1, top_logprobs=NUM_TOP):
            if isinstance(answer, str):
                yield item["id"], failure(answer)
                continue
            try:
                values = label_log_likelihoods(answer, item["labels"])
            except ValueError as error:
                yield item["id"], failure(str(error))
            else:
                yield item["id"], likeliest(item["labels"], values, spent(answer))


def generated(args: Args, items: list[Item], metrics: dict[str, float]) -> Iterator[tuple[str, Row]]:
    from stated_choice import stated_choice

    from model_inference import answer_sources

    with answer_sources.connect(args, prices(args), truncate_prompt=args.truncate_prompt) as source:
        for item, answer in answered(source, items, max_new_tokens=args.max_new_tokens):
            if isinstance(answer, str):
                yield item["id"], failure(answer)
            else:
                choice = stated_choice(answer.text, item["choices"], item.get("labels") or ())
                yield item["id"], {"output": answer.text, "choice": choice, **spent(answer)}
        metrics["choices/num_truncated"] = source.usage.get("num_truncated", 0)


def prices(args: Args) -> Any:
    from model_inference.answer_sources import Prices

    return Prices(args.prompt_price, args.completion_price, args.machine_price_per_hour)


def answered(source: Any, items: list[Item], **settings: int) -> Iterator[tuple[Item, Any]]:
    """Each item with its answer, or with the reason why there is none."""
    from model_inference.answer_sources import Request
    from slmkit.chat_client import AnswerError

    by_id, requests = {}, []
    for item in items:
        try:
            records.check_chat(item)
        except ValueError as error:
            yield item, str(error)
        else:
            by_id[item["id"]] = item
            requests.append(Request(item["id"], item["messages"], **settings))
    for request, answer in source.answers(requests):
        refused = isinstance(answer, AnswerError) or answer.refused
        reason = str(answer) if isinstance(answer, AnswerError) else "refused by the content filter or the model"
        yield by_id[request.key], reason if refused else answer


def likeliest(texts: list[str], values: list[float | None], counts: Row) -> Row:
    """The first of the choices with the highest value; None is less than any."""
    choice = max(range(len(values)), key=lambda i: -math.inf if values[i] is None else values[i])
    return {"output": texts[choice], "choice": choice, "log_likelihoods": values, **no_answer(), **counts}


def failure(error: str) -> Row:
    return {"output": "", "choice": None, **no_answer(), "error": error}


def no_answer() -> Row:
    """Many questions are scored at once, so none has a latency of its own."""
    return {"latency_ms": None, "prompt_tokens": 0, "completion_tokens": 0, "cached": False}


def spent(answer: Any) -> Row:
    names = ("latency_ms", "prompt_tokens", "completion_tokens", "cost", "cached")
    return {name: getattr(answer, name) for name in names}


def write_outputs(args: Args, items: dict[str, Item], rows: dict[str, Row], metrics: dict[str, float]) -> None:
    failed = [row for row in rows.values() if row.get("error")]
    for row in failed[:5]:
        print(f"{row['id']}: {row['error']}")
    records.check_share(len(failed), len(items), args.max_error_fraction, "eval items")
    scored = {id: score(item, rows[id], args.method) for id, item in items.items()}
    asked = lineage.asked(args)
    scores = [{"id": id, "candidate": args.candidate, **asked, **row} for id, row in scored.items()]
    with records.write_records(args.predictions) as write:
        for id in items:
            write({**rows[id], **asked})
    with records.write_records(args.scores) as write:
        for row in scores:
            write(row)
    for name in scores[0].keys() - {"id", "candidate", *asked, "failed"}:
        metrics[f"eval/{name}"] = sum(row[name] for row in scores) / len(scores)
    metrics["eval/failed_fraction"] = len(failed) / len(scores)
    if args.method == "generate":
        metrics["choices/num_unparsed"] = sum(row["choice"] is None and not row.get("error") for row in rows.values())
        metrics["choices/strict_gap"] = metrics["eval/accuracy"] - metrics["eval/accuracy_strict"]


def score(item: Item, row: Row, method: str) -> dict[str, float]:
    """1 for the right choice; a failure is 0 in everything."""
    gold, right = item["gold"], int(row["choice"] == item["gold"])
    if method == "generate":
        from stated_choice import exact_choice

        exact = exact_choice(row["output"], item["choices"], item.get("labels") or ())
        return {"accuracy": right, "accuracy_strict": int(exact == gold), "failed": int("error" in row)}
    values = [-math.inf if value is None else value for value in row.get("log_likelihoods", [])]
    shares = [math.exp(value - max(values)) for value in values]
    probability = shares[gold] / sum(shares) if shares else 0.0
    return {"accuracy": right, "gold_probability": probability, "failed": int("error" in row)}


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
