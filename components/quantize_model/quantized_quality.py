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

NUM_TIMED = 8  # prompts, those with the longest answers, since decoding is what takes the time
SLICE = "language"


@dataclass(frozen=True)
class Item:
    id: str
    messages: list[dict[str, str]]
    references: list[str]
    language: str
    cluster: str


@dataclass(frozen=True)
class Side:
    """What one of the two models was measured at; an answer is None where the prompt is too long for it."""

    sha256: str
    weight_bytes: int
    all_bytes: int
    perplexity: float
    answers: list[str | None]
    scores: list[float]
    prefill: float | None  # tokens a second
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
        # The sums of a mean carry rounding, which is not a loss.
        return -self.difference.mean <= self.args.max_quality_drop + 1e-12

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
        answers = [[_answer(engine, prompt, args.max_new_tokens) for prompt in prompts] for engine in both]
        timed = _longest(prompts, answers)
        speeds = _speeds(both, timed, args)
        context_length = both[0].context_length
        del both  # before the models are loaded once more
    except engines.UnusableModelError as error:
        raise UserError(str(error)) from error
    pairs = _with_references(args.model, items, prompts, context_length)
    if not pairs:
        raise UserError(f"{args.eval_items}: no reference fits behind its question; the model is too short for them")
    sides = []
    for folder, given, speed in zip(folders, answers, speeds, strict=True):
        texts = [text for text, _ in given]
        scores = [_score(text, item, args.metric) for text, item in zip(texts, items, strict=True)]
        sizes = source_model.weight_bytes(folder), source_model.all_bytes(folder)
        perplexity = reference_losses.perplexity(folder, pairs)
        sides.append(Side(lineage.sha256(folder), *sizes, perplexity, texts, scores, *speed))
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


def _answer(engine: "Engine", prompt: list[int], max_new_tokens: int) -> tuple[str | None, int]:
    """The greedy answer and its number of tokens."""
    if not prompt:
        return None, 0
    decoder = engine.decoder()
    pieces = [decoder.put(token) for token in engine.stream(prompt, max_new_tokens)]
    return "".join([*pieces, decoder.end()]), len(pieces)


def _score(text: str | None, item: Item, metric: str) -> float:
    if text is None:
        return 0.0
    return max(getattr(answer_text, metric)(text, reference) for reference in item.references)


def _longest(prompts: list[list[int]], answers: list[list[tuple[str | None, int]]]) -> list[list[int]]:
    """The prompts to which both models say the most."""
    lengths = [min(ours[1], theirs[1]) for ours, theirs in zip(*answers, strict=True)]
    order = sorted((i for i, prompt in enumerate(prompts) if prompt), key=lambda i: -lengths[i])
    return [prompts[i] for i in order[:NUM_TIMED]]


def _speeds(both: "list[Engine]", prompts: list[list[int]], args: "Args") -> list[tuple[float | None, float | None]]:
    """Tokens a second of each engine, in and out: the median of rounds in which the two take turns at each prompt."""
    rounds: list[list[tuple[float | None, float | None]]] = [[] for _ in both]
    for number in range(args.num_speed_rounds + 1):
        sums = [[0.0] * 4 for _ in both]
        for prompt in prompts:
            order = range(len(both)) if number % 2 else reversed(range(len(both)))
            for side in order:
                for i, value in enumerate(timed(both[side], prompt, args.max_new_tokens)):
                    sums[side][i] += value
        if number:  # the first round is to warm up
            for side, (tokens_in, seconds_in, tokens_out, seconds_out) in enumerate(sums):
                rounds[side].append((tokens_in / seconds_in, tokens_out / seconds_out if tokens_out else None))
    return [(_median(prefill for prefill, _ in side), _median(decode for _, decode in side)) for side in rounds]


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def timed(engine: "Engine", prompt: list[int], max_new_tokens: int) -> tuple[int, float, int, float]:
    """Tokens and seconds up to the first new token, and tokens and seconds from there on."""
    started = time.perf_counter()
    moments = [time.perf_counter() for _ in engine.stream(prompt, max_new_tokens)]
    if not moments:
        return len(prompt), time.perf_counter() - started, 0, 0.0
    return len(prompt), moments[0] - started, len(moments) - 1, moments[-1] - moments[0]


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
