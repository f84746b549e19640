"""An answer of a chat endpoint, and what all of them cost."""

import dataclasses
import statistics
from typing import Any


@dataclasses.dataclass(frozen=True)
class Answer:
    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    cost: float | None = None  # in the currency of the client's prices; None without prices
    latency_ms: float | None = None  # None when it came from the cache
    cached: bool = False
    refused: bool = False  # by the content filter or by the model; the text is then empty
    logprobs: list[dict[str, Any]] | None = None  # of each token, as the endpoint says where it was asked to
    deployment: str | None = None  # of those behind an Azure ML endpoint, which one answered

    def kept(self) -> dict[str, Any]:
        """What the cache keeps of it."""
        names = ("text", "prompt_tokens", "completion_tokens", "finish_reason", "cost", "logprobs")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass
class Usage:
    """What was asked and paid in this run: answers from the cache cost no request, token or time."""

    prices: tuple[float, float] | None = None  # per million prompt and completion tokens
    requests: int = 0  # sent over the network, retries included
    answers: int = 0  # new and well-formed
    cached: int = 0
    refused: int = 0
    failed: int = 0
    malformed: int = 0
    retries: int = 0
    throttled: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latencies_ms: list[float] = dataclasses.field(default_factory=list)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        if self.prices is None:
            return None
        return (prompt_tokens * self.prices[0] + completion_tokens * self.prices[1]) / 1e6

    def summary(self) -> dict[str, float]:
        """The totals; the cost where there are prices; median and 95th percentile of the latency where some was."""
        totals = {name: value for name, value in vars(self).items() if name not in ("prices", "latencies_ms")}
        if self.prices:
            totals["cost"] = self.cost(self.prompt_tokens, self.completion_tokens)
        if self.latencies_ms:
            totals["latency_p50_ms"] = statistics.median(self.latencies_ms)
            totals["latency_p95_ms"] = sorted(self.latencies_ms)[int(0.95 * (len(self.latencies_ms) - 1))]
        return totals
