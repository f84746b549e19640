"""Attention within each document of a packed row: no mask, no padding, and no work between documents.

Transformers' own way on a CPU, or on a GPU without flash kernels, is one mask of all tokens by all tokens, of which
nearly everything is masked out.
"""

from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "document_sdpa"
_HALF = (torch.float16, torch.bfloat16)
_WINDOW_IN_MASK = ("phimoe", "qwen2_moe", "blt", "doge")


def attend_within_documents(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of [1, heads, tokens, width] within the bounds ``cu_seq_lens_q`` [documents + 1].

    Returns [1, tokens, heads, width]. Without bounds the row is one document. Registered as ``document_sdpa`` with
    Transformers; torch's ``varlen_attn`` does it on a GPU in half precision, else ``sdpa`` document by document.
    """
    if cu_seq_lens_q is None:
        lengths = [query.shape[2]]
    elif query.is_cuda and query.dtype in _HALF and not dropout:
        from torch.nn.attention.varlen import varlen_attn

        flat = [states[0].transpose(0, 1) for states in (query, key, value)]
        window = (sliding_window - 1 if sliding_window else -1, 0)
        bounds, longest = (cu_seq_lens_q, cu_seq_lens_q), (max_length_q, max_length_q)
        attended = varlen_attn(*flat, *bounds, *longest, scale=scaling, window_size=window, enable_gqa=True)
        return attended[None], None
    else:
        lengths = cu_seq_lens_q.diff().tolist()
    attended = [
        sdpa_attention_forward(
            module, q, k, v, _window_mask(q, sliding_window), dropout=dropout, scaling=scaling, is_causal=True
        )[0]
        for q, k, v in zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    ]
    return torch.cat(attended, dim=1), None


def _window_mask(query: torch.Tensor, sliding_window: int | None) -> torch.Tensor | None:
    """Which of the tokens before it each token sees, where a document is longer than the window."""
    length = query.shape[2]
    if not sliding_window or length <= sliding_window:
        return None
    position = torch.arange(length, device=query.device)
    distance = position[:, None] - position[None, :]
    return ((distance >= 0) & (distance < sliding_window))[None, None]


AttentionInterface.register(NAME, attend_within_documents)


def best_attention(config: PreTrainedConfig, max_length: int) -> str:
    """``document_sdpa``, but for the models that it would get wrong.

    ``eager`` alone caps attention scores or sinks them; some models say in the mask alone how far a token sees, which
    matters where a chat can be longer.
    """
    text = config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None) is not None or text.model_type == "gpt_oss":
        return "eager"
    windowed = text.model_type in _WINDOW_IN_MASK and max_length > (getattr(text, "sliding_window", None) or max_length)
    return "sdpa" if windowed else NAME
