"""Let a model answer evaluation items: greedy decoding in batches of like length, a row for every item."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True)
class Args:
    model: Path
    eval_items: Path
    candidate: str
    predictions: Path
    max_new_tokens: int = 128
    batch_size: int = 16
    max_error_fraction: float = 0.05


@dataclass
class Question:
    """One eval item on its way: its prompt as token ids, then its answer or the reason why there is none."""

    id: str
    prompt: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    output: str = ""
    latency_ms: float = 0.0
    was_cut: bool = False
    error: str | None = None


def run(args: Args) -> dict[str, float]:
    # Threads that spin while they wait are slower than none as soon as another step runs beside this one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")
    model, tokenizer = load(args.model)
    questions = read_questions(args, tokenizer, longest_prompt(model, args.max_new_tokens))
    started = time.perf_counter()
    ready = sorted((q for q in questions if q.error is None), key=lambda q: len(q.prompt))
    for start in range(0, len(ready), args.batch_size):
        answer_or_split(model, tokenizer, ready[start : start + args.batch_size], args.max_new_tokens)
    seconds = time.perf_counter() - started

    failed = [question for question in questions if question.error]
    for question in failed[:5]:
        print(f"{question.id}: {question.error}")
    records.check_share(len(failed), len(questions), args.max_error_fraction, "eval items")
    with records.write_records(args.predictions) as write:
        for question in questions:
            write(prediction(question, args.candidate))

    num_tokens = sum(len(question.answer) for question in questions)
    metrics = {
        "generate/num_items": len(questions),
        "generate/num_failed": len(failed),
        "generate/num_cut": sum(question.was_cut for question in questions),
        "perf/generate_seconds": seconds,
        "perf/tokens_per_second": num_tokens / seconds if seconds else 0.0,
    }
    tracking.set_tags({"candidate": args.candidate})
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    print(
        f"{args.candidate}: {len(questions)} items in {seconds:.1f} s, {num_tokens} tokens, {len(failed)} failed, "
        f"{metrics['generate/num_cut']} cut at max_new_tokens={args.max_new_tokens}"
    )
    return metrics


def load(folder: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The model, on the accelerator when there is one, and its tokenizer, which pads on the left."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json, so this is no model folder; give the output of import_model")

    import torch
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if not tokenizer.chat_template:
        raise UserError(f"{folder}: the tokenizer has no chat template; use an instruction-tuned model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = PartialState().device
    # In fp32 an answer does not depend on what else is in its batch; bf16 rounds differently for each shape.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    return model, tokenizer


def longest_prompt(model: "PreTrainedModel", max_new_tokens: int) -> int:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and limit <= max_new_tokens:
        raise UserError(f"max_new_tokens={max_new_tokens} leaves no room for a prompt: the model takes {limit} tokens")
    return limit - max_new_tokens if limit is not None else 2**31


def read_questions(args: Args, tokenizer: "PreTrainedTokenizerBase", max_prompt_tokens: int) -> list[Question]:
    questions = [question_from(item, tokenizer, max_prompt_tokens) for item in read_items(args.eval_items)]
    if not questions:
        raise UserError(f"{args.eval_items}: no eval items; is this the right file?")
    return questions


def read_items(path: Path) -> list[dict[str, Any]]:
    items = {}
    for item, source, line in records.read_located(path):
        id = item.get("id")
        if not isinstance(id, str) or not id or id in items:
            raise UserError(f"{source}:{line}: 'id' is missing, empty or not unique ({id!r}); give each item its own")
        items[id] = item
    return list(items.values())


def question_from(item: dict[str, Any], tokenizer: "PreTrainedTokenizerBase", max_prompt_tokens: int) -> Question:
    """The prompt of an item; an item that cannot be asked carries the reason."""
    from jinja2 import TemplateError

    question = Question(item["id"])
    try:
        records.check_chat(item)
        if item["messages"][-1]["role"] == "assistant":
            raise ValueError("the messages end with the assistant's turn; an eval item ends with the question")
        tokens = tokenizer.apply_chat_template(item["messages"], add_generation_prompt=True, return_dict=True)
        question.prompt = tokens["input_ids"]
        if len(question.prompt) > max_prompt_tokens:
            raise ValueError(f"the prompt has {len(question.prompt)} tokens, the model takes {max_prompt_tokens}")
    except (ValueError, TemplateError) as error:  # a template refuses an order of roles that it does not know
        question.error = str(error)
    return question


def answer_or_split(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch: list[Question], max_new_tokens: int
) -> None:
    """Answer a batch, in halves when the accelerator's memory is too small for it."""
    import torch

    try:
        return answer(model, tokenizer, batch, max_new_tokens)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            batch[0].error = f"out of memory with a prompt of {len(batch[0].prompt)} tokens"
            return None
    middle = len(batch) // 2
    for half in (batch[:middle], batch[middle:]):
        answer_or_split(model, tokenizer, half, max_new_tokens)


def answer(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch: list[Question], max_new_tokens: int
) -> None:
    """Answer a batch in place; each question bears its share of the time."""
    import torch
    from transformers import GenerationConfig

    # Only the model's stop tokens are taken over from its generation settings: sampling, penalties and the like would
    # make two candidates incomparable.
    stops = model.generation_config.eos_token_id
    stops = {tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])} - {None}
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(stops),
        pad_token_id=tokenizer.pad_token_id,
    )
    started = time.perf_counter()
    inputs = tokenizer.pad({"input_ids": [question.prompt for question in batch]}, return_tensors="pt")
    inputs = inputs.to(model.device)
    with torch.inference_mode():
        rows = model.generate(**inputs, generation_config=greedy)[:, inputs["input_ids"].shape[1] :].tolist()
    share_ms = (time.perf_counter() - started) * 1000 / len(batch)
    for question, row in zip(batch, rows, strict=True):
        end = next((i for i, token in enumerate(row) if token in stops), None)
        question.answer = row if end is None else row[: end + 1]
        question.was_cut = end is None
        question.output = tokenizer.decode(question.answer, skip_special_tokens=True).strip()
        question.latency_ms = share_ms


def prediction(question: Question, candidate: str) -> dict[str, Any]:
    row = {
        "id": question.id,
        "candidate": candidate,
        "output": question.output,
        "latency_ms": round(question.latency_ms, 3),
        "prompt_tokens": len(question.prompt),
        "completion_tokens": len(question.answer),
        "cached": False,
    }
    return row if question.error is None else {**row, "error": question.error}


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
