"""What was scored and what failed, by shard: sums that add up over shards and processes, as JSON and as a page."""

import json
import math
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from slmkit import html_report, records
from slmkit.errors import UserError

KINDS = {
    "unreadable": "the line is no JSON object",
    "no_chat": "the record holds no chat that waits for an answer",
    "too_long": "the prompt is longer than the model takes",
    "refused": "refused by the content filter",
    "no_answer": "the model or the endpoint gave no answer",
}
TOO_MANY_ERRORS = 3  # exit code
_STEP = math.log(1.01)  # between latencies that are told apart
_SHORTEST_MILLISECONDS = 0.001


@dataclass
class Tally:
    num_rows: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # by kind
    examples: dict[str, str] = field(default_factory=dict)  # the first error of each kind
    prompt_tokens: int = 0
    completion_tokens: int = 0
    num_cut: int = 0  # answers that reached max_new_tokens
    num_known: int = 0  # answers of an earlier start
    num_new_tokens: int = 0  # of the other answers, and the time that they took
    seconds: float = 0.0
    latencies: Counter[str] = field(default_factory=Counter)  # rows by latency, in steps of one percent

    def count(self, row: records.Record, kind: str | None) -> None:
        self.num_rows += 1
        self.prompt_tokens += row["prompt_tokens"]
        self.completion_tokens += row["completion_tokens"]
        self.num_cut += row["finish_reason"] == "length"
        if row["latency_ms"] is not None:
            self.latencies[str(round(math.log(max(row["latency_ms"], _SHORTEST_MILLISECONDS)) / _STEP))] += 1
        if kind is not None:
            self.errors[kind] += 1
            self.examples.setdefault(kind, f"{row['id']}: {row['error']}"[:300])

    def latency_ms(self, share: float) -> float | None:
        """The latency that this share of the rows does not exceed, to a percent; None without any."""
        left = math.ceil(share * self.latencies.total())
        for step, number in sorted(self.latencies.items(), key=lambda pair: int(pair[0])):
            left -= number
            if left <= 0:
                return math.exp(int(step) * _STEP)
        return None

    def figures(self) -> dict[str, Any]:
        return {
            "num_rows": self.num_rows,
            "num_failed": self.errors.total(),
            **{f"num_{kind}": self.errors[kind] for kind in KINDS},
            "num_cut": self.num_cut,
            "num_known": self.num_known,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "score_seconds": self.seconds,
            "tokens_per_second": self.num_new_tokens / self.seconds if self.seconds else 0.0,
            "latency_p50_ms": self.latency_ms(0.5),
            "latency_p95_ms": self.latency_ms(0.95),
        }

    def as_json(self) -> str:
        return json.dumps(vars(self), ensure_ascii=False)


def from_json(text: str) -> Tally:
    fields = json.loads(text)
    return Tally(**{**fields, "errors": Counter(fields["errors"]), "latencies": Counter(fields["latencies"])})


def total(tallies: Iterable[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        for name, value in vars(tally).items():
            mine = getattr(whole, name)
            if isinstance(mine, Counter):
                mine.update(value)
            elif isinstance(mine, dict):
                mine |= {kind: text for kind, text in value.items() if kind not in mine}
            else:
                setattr(whole, name, mine + value)
    return whole


def check_errors(tally: Tally, max_error_fraction: float, what: str = "") -> None:
    """Stop when more than ``max_error_fraction`` of the rows, which are written by then, have an error."""
    failed = tally.errors.total()
    if tally.num_rows and failed / tally.num_rows > max_error_fraction:  # 0.29 * 100 is below 29
        kinds = ", ".join(f"{number} {kind}" for kind, number in tally.errors.most_common())
        raise UserError(
            f"{what}{failed} of {tally.num_rows} rows have an error ({kinds}), which is more than max_error_fraction="
            f"{max_error_fraction}; all rows are written: start again to ask about the failed ones only",
            exit_code=TOO_MANY_ERRORS,
        )


def write(folder: Path, tallies: Mapping[str, Tally], max_error_fraction: float) -> None:
    """report.json and report.html; each replaces an earlier one at once, since processes may write at the same time."""
    whole = total(tallies.values())
    content = {**whole.figures(), "shards": {name: tally.figures() for name, tally in tallies.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(content, ensure_ascii=False, indent=2) + "\n",
        "report.html": _page(whole, tallies, max_error_fraction),
    }
    for name, text in texts.items():
        partial = folder / f".{uuid.uuid4().hex}"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)


def _page(whole: Tally, tallies: Mapping[str, Tally], max_error_fraction: float) -> str:
    failed = whole.errors.total()
    share = failed / whole.num_rows if whole.num_rows else 0.0
    within = share <= max_error_fraction
    verdict = html_report.badge("within the limit" if within else "above the limit", "good" if within else "bad")
    head = ("shard", "rows", "errors", "tokens", "tokens/s", "p50 ms", "p95 ms")
    errors = [(KINDS[kind], whole.errors[kind], whole.examples[kind]) for kind in KINDS if whole.errors[kind]]
    rows = [_row(name, tally) for name, tally in tallies.items()]
    known = f" {whole.num_known:,} answers are of an earlier start of this run." if whole.num_known else ""
    return html_report.page(
        "Batch scoring",
        f"<p>{whole.num_rows:,} rows, {failed:,} with an error ({share:.2%}; {max_error_fraction:.2%} may have one) "
        f"{verdict}. {whole.num_cut:,} answers were cut at their greatest length.{escape(known)}</p>",
        "<h2>Errors by reason</h2>",
        html_report.table(("reason", "rows", "the first"), errors),
        "<h2>By shard</h2>",
        html_report.table(head, [*rows, _row("all", whole)] if len(rows) > 1 else rows),
        '<p class="note">Tokens are of answers; tokens/s are those of this start, by process. The latency of a model '
        "is from entering the batch to the end of the answer; percentiles are right to a percent.</p>",
    )


def _row(name: str, tally: Tally) -> list[Any]:
    found = tally.figures()
    speed = round(found["tokens_per_second"], 1)
    latencies = ["" if found[key] is None else round(found[key], 1) for key in ("latency_p50_ms", "latency_p95_ms")]
    return [name, tally.num_rows, tally.errors.total(), tally.completion_tokens, speed, *latencies]
