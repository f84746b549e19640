"""How surprised a model is by the right answers: the summed negative log-likelihood of their tokens."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slmkit.errors import UserError

if TYPE_CHECKING:
    import torch

Pair = tuple[list[int], list[int]]  # the tokens of a prompt, and of the reference that should follow


def perplexity(folder: Path, pairs: Sequence[Pair]) -> float:
    """exp of the mean loss a token over all references."""
    logits_of = _onnx_logits if (folder / "genai_config.json").is_file() else _transformers_logits
    losses = [_loss(logits, reference) for (_, reference), logits in zip(pairs, logits_of(folder, pairs), strict=True)]
    mean = math.fsum(losses) / sum(len(reference) for _, reference in pairs)
    if not math.isfinite(mean):
        raise UserError(f"{folder}: the model gives no numbers (NaN); its weights are broken")
    return math.exp(min(mean, 700.0))  # above it no float holds the perplexity


def _loss(logits: "torch.Tensor", reference: list[int]) -> float:
    import torch

    return float(torch.nn.functional.cross_entropy(logits.float(), torch.tensor(reference), reduction="sum"))


def _onnx_logits(folder: Path, pairs: Sequence[Pair]) -> "Iterator[torch.Tensor]":
    import numpy as np
    import onnxruntime_genai
    import torch

    model = onnxruntime_genai.Model(str(folder))
    for prompt, reference in pairs:
        tokens = [*prompt, *reference[:-1]]
        params = onnxruntime_genai.GeneratorParams(model)
        params.set_search_options(max_length=len(tokens) + 1)
        generator = onnxruntime_genai.Generator(model, params)
        generator.append_tokens(np.array(tokens, dtype=np.int32))
        yield torch.from_numpy(generator.get_output("logits")[0, -len(reference) :].astype(np.float32))


def _transformers_logits(folder: Path, pairs: Sequence[Pair]) -> "Iterator[torch.Tensor]":
    import torch
    from transformers import AutoModelForCausalLM

    # In float32, as the engine that serves it.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    for prompt, reference in pairs:
        tokens = torch.tensor([[*prompt, *reference[:-1]]], device=model.device)
        with torch.inference_mode():
            yield model(tokens, logits_to_keep=len(reference)).logits[0].cpu()
