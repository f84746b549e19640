"""Two models side by side on the same questions: answers, perplexity of the references, and speed."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import reference_losses
import source_model
from paired_difference import Difference, paired_difference

from slmkit import answer_text, lineage, records
from slmkit.errors import UserError

if TYPE_CHECKING:
    from engines import Engine
    from main import Args

SLICE = "language"


@dataclass(frozen=True)
class Item:
    id: str
    messages: list[dict[str, str]]
    references: list[str]
    language: str
    cluster: str


@dataclass(frozen=True)
class Answer:
    text: str
    prefill: float  # tokens a second up to the first new token
    decode: float | None  # and from there on; None where there is no second


@dataclass(frozen=True)
class Side:
    """What one of the two models was measured at; an answer is None where the prompt is too long for it."""

    sha256: str
    weight_bytes: int
    all_bytes: int
    perplexity: float
    answers: list[str | None]
    scores: list[float]
    prefill: float  # tokens a second
    decode: float | None


@dataclass(frozen=True)
class Quality:
    args: "Args"
    items: list[Item]
    before: Side
    after: Side
    difference: Difference
    slices: dict[str, tuple[float, float, Difference]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.why_not is None

    @property
    def why_not(self) -> str | None:
        """Why the quantized model is not good enough, or not known to be."""
        name, limit, loss = self.args.metric, self.args.max_quality_drop, -self.difference.mean
        if loss > limit + 1e-12:  # the sums of a mean carry rounding, which is not a loss
            return f"{name} falls by {loss:.4f}, which is more than max_quality_drop={limit:g}"
        if self.mean_score(self.before) <= limit < 1:
            return (
                f"{name} of the original is {self.mean_score(self.before):.4f}, so it could not fall by more than "
                f"max_quality_drop={limit:g}, whatever was lost; take questions that the original can answer"
            )
        return None

    @property
    def size_ratio(self) -> float:
        return self.after.weight_bytes / self.before.weight_bytes

    def mean_score(self, side: Side) -> float:
        return sum(side.scores) / len(side.scores)

    def metrics(self) -> dict[str, float]:
        found = {
            "release/size_ratio": self.size_ratio,
            "release/perplexity_ratio": self.after.perplexity / self.before.perplexity,
            f"release/{self.args.metric}_difference": self.difference.mean,
        }
        for phase in ("prefill", "decode"):
            if ratio := speedup(self, phase):
                found[f"perf/{phase}_speedup"] = ratio
                found[f"perf/{phase}_tokens_per_second"] = getattr(self.after, phase)
        return found

    def summary(self) -> str:
        """The outcome as a person reads it in the log."""
        before, after, of = self.before, self.after, self.difference
        lines = [
            f"{'PASSED' if self.passed else 'FAILED'}: {self.args.method}, {of.num_items:,} questions",
            f"  weights      {before.weight_bytes / 2**20:,.1f} MiB to {after.weight_bytes / 2**20:,.1f} MiB "
            f"({self.size_ratio:.2f}x)",
        ]
        for phase in ("decode", "prefill"):
            if ratio := speedup(self, phase):
                was, now = getattr(before, phase), getattr(after, phase)
                lines.append(f"  {phase:<12} {was:,.0f} to {now:,.0f} tokens a second ({ratio:.2f}x)")
        lines.append(f"  perplexity   {before.perplexity:.4g} to {after.perplexity:.4g}")
        lines.append(
            f"  {self.args.metric:<12} {self.mean_score(before):.1%} to {self.mean_score(after):.1%}, "
            f"{100 * of.mean:+.1f} points (95% interval {100 * of.low:+.1f} to {100 * of.high:+.1f})"
        )
        return "\n".join(lines)


def speedup(found: Quality, phase: str) -> float | None:
    before, after = getattr(found.before, phase), getattr(found.after, phase)
    return after / before if before and after else None


def read_items(path: Path) -> list[Item]:
    """The eval items, each a chat that waits for an answer, with references."""
    items: dict[str, Item] = {}
    for record, source, line in records.read_located(path):
        where, id = f"{source}:{line}", record.get("id")
        if not isinstance(id, str) or not id or id in items:
            raise UserError(f"{where}: 'id' is missing, empty or not unique ({id!r}); give each item its own")
        references = record.get("references")
        if not isinstance(references, list) or not references or not all(map(_has_text, references)):
            raise UserError(f"{where}: eval item {id!r} needs 'references', a list of texts that are not blank")
        try:
            records.check_chat(record)
            records.check_slices(record)
        except ValueError as error:
            raise UserError(f"{where}: eval item {id!r}: {error}") from None
        if record["messages"][-1]["role"] == "assistant":
            raise UserError(f"{where}: eval item {id!r} ends with the assistant's turn; end it with the question")
        language = str((record.get("slices") or {}).get(SLICE, "all"))
        cluster = record.get("cluster")
        # An item without a cluster is one by itself, whatever the clusters are called.
        cluster = f"item {id}" if cluster is None else f"cluster {cluster}"
        items[id] = Item(id, record["messages"], references, language, cluster)
    if not items:
        raise UserError(f"{path}: no eval items; without them nobody knows what the quantizing costs")
    return list(items.values())


def _has_text(reference: Any) -> bool:
    return isinstance(reference, str) and bool(reference.strip())


def compare(args: "Args", quantized: Path, items: list[Item]) -> Quality:
    """Measure both models with the engines that serve them, the same prompts, tokens and threads."""
    import engines

    folders = args.model, quantized
    try:
        both = [engines.load(folder, num_threads(args)) for folder in folders]
        prompts = [_prompt(both[0], item, args.max_new_tokens) for item in items]
        if not any(prompts):
            raise UserError(
                f"{args.eval_items}: no item can be asked: with max_new_tokens={args.max_new_tokens} each is too long "
                f"for the {both[0].context_length} tokens that the model takes, or refused by its chat template"
            )
        answers = _answers(both, prompts, args.max_new_tokens)
        context_length = both[0].context_length
        del both  # before the models are loaded once more
    except engines.UnusableModelError as error:
        raise UserError(str(error)) from error
    pairs = _with_references(args.model, items, prompts, context_length)
    if not pairs:
        raise UserError(f"{args.eval_items}: no reference fits behind its question; the model is too short for them")
    sides = []
    for folder, given in zip(folders, answers, strict=True):
        texts = [answer and answer.text for answer in given]
        scores = [_score(text, item, args.metric) for text, item in zip(texts, items, strict=True)]
        sizes = source_model.weight_bytes(folder), source_model.all_bytes(folder)
        perplexity = reference_losses.perplexity(folder, pairs)
        sides.append(Side(lineage.sha256(folder), *sizes, perplexity, texts, scores, *_speeds(given)))
    before, after = sides
    difference = paired_difference(before.scores, after.scores, [item.cluster for item in items])
    return Quality(args, items, before, after, difference, _by_language(items, before, after))


def num_threads(args: "Args") -> int:
    """The same for both, since the engines' own defaults differ."""
    return args.num_threads or len(os.sched_getaffinity(0))


def _prompt(engine: "Engine", item: Item, max_new_tokens: int) -> list[int]:
    """The tokens, or none where the question cannot be asked; that counts as a wrong answer of both."""
    import engines

    try:
        tokens = engine.encode_chat(item.messages)
    except engines.UnusableChatError:
        return []
    return tokens if len(tokens) + max_new_tokens <= engine.context_length else []


def _answers(both: "list[Engine]", prompts: list[list[int]], max_new_tokens: int) -> list[list[Answer | None]]:
    """The greedy answers of both, who take turns at each prompt, so that what slows the machine slows both."""
    answers: list[list[Answer | None]] = [[None] * len(prompts) for _ in both]
    first = next(prompt for prompt in prompts if prompt)
    for engine in both:
        timed(engine, first, max_new_tokens)  # to warm up
    for place, prompt in enumerate(prompts):
        for side in (0, 1) if place % 2 else (1, 0):
            answers[side][place] = timed(both[side], prompt, max_new_tokens) if prompt else None
    return answers


def timed(engine: "Engine", prompt: list[int], max_new_tokens: int) -> Answer:
    started = time.perf_counter()
    tokens, moments = [], []
    for token in engine.stream(prompt, max_new_tokens):
        moments.append(time.perf_counter())
        tokens.append(token)
    seconds_in = (moments[0] if moments else time.perf_counter()) - started
    decode = (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 else None
    decoder = engine.decoder()
    return Answer("".join([*map(decoder.put, tokens), decoder.end()]), len(prompt) / seconds_in, decode)


def _speeds(answers: list[Answer | None]) -> tuple[float, float | None]:
    """Tokens a second, in and out, of the median question."""
    asked = [answer for answer in answers if answer]
    decode = [answer.decode for answer in asked if answer.decode]
    return median(answer.prefill for answer in asked), median(decode) if decode else None


def _score(text: str | None, item: Item, metric: str) -> float:
    if text is None:
        return 0.0
    return max(getattr(answer_text, metric)(text, reference) for reference in item.references)


def _with_references(
    folder: Path, items: list[Item], prompts: Sequence[list[int]], context_length: int
) -> list[reference_losses.Pair]:
    """The tokens of each prompt and of its first reference, where they fit; the same tokens for both models."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    encoded = [tokenizer(item.references[0], add_special_tokens=False)["input_ids"] for item in items]
    pairs = zip(prompts, encoded, strict=True)
    return [pair for pair in pairs if all(pair) and sum(map(len, pair)) <= context_length]


def _by_language(items: list[Item], before: Side, after: Side) -> dict[str, tuple[float, float, Difference]]:
    found = {}
    for language in sorted({item.language for item in items}):
        chosen = [i for i, item in enumerate(items) if item.language == language]
        was, now = [before.scores[i] for i in chosen], [after.scores[i] for i in chosen]
        difference = paired_difference(was, now, [items[i].cluster for i in chosen])
        found[language] = sum(was) / len(was), sum(now) / len(now), difference
    return found
