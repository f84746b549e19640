"""The log-likelihoods of labels from an endpoint that says which first tokens of its answer are the likeliest."""

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

from slmkit.answers import Answer

NUM_TOP = 20  # which is as many as OpenAI, Azure OpenAI and vLLM's server name


def label_log_likelihoods(answer: Answer, labels: Sequence[str]) -> list[float | None]:
    """Of each label, with or without a space before it; None for one that is less likely than all that are named.

    ``ValueError`` with the reason when no label is named.
    """
    if not answer.logprobs:
        raise ValueError("the endpoint gives no log-probabilities; use method=generate")
    found = dict.fromkeys(labels, -math.inf)
    try:
        for token in answer.logprobs[0]["top_logprobs"]:
            name, value = _token(token), float(token["logprob"])
            if name in found and math.isfinite(value):
                found[name] = _log_add(found[name], value)
    except (TypeError, KeyError, IndexError):
        raise ValueError("the endpoint's log-probabilities are malformed; use method=generate") from None
    values = [value if value > -math.inf else None for value in found.values()]
    if not any(value is not None for value in values):
        raise ValueError(
            f"none of the labels {', '.join(labels)} is among the {NUM_TOP} likeliest first tokens; use method=generate"
        )
    return values


def _token(token: dict[str, Any]) -> str:
    return unicodedata.normalize("NFC", str(token["token"])).strip()


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high + math.log1p(math.exp(low - high)) if low > -math.inf else high
