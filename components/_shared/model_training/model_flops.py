"""Floating-point operations that a training step needs, and how many of them this machine can do."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Dense bfloat16 peak in FLOP/s, from NVIDIA's data sheets. The longest name that fits is taken.
PEAK_FLOPS = {
    "T4": 65e12,  # float16: it has no bfloat16
    "V100": 125e12,  # float16
    "A10": 125e12,
    "A100": 312e12,
    "L4": 121e12,
    "L40S": 362e12,
    "H100": 989e12,
    "H100 NVL": 835e12,
    "H200": 989e12,
    "B200": 2250e12,
}


@dataclass(frozen=True)
class ModelFlops:
    """What forward and backward pass need: for each token, for each label and for each pair of tokens that attend.

    As in PaLM (Chowdhery et al. 2022, appendix B): two operations a weight in the forward pass, as many for the
    gradient of its input and as many for its own, which frozen weights do not need. Attention is counted causal and
    within documents, embeddings and recomputed activations are not counted, and of a mixture of experts only those
    that a token visits.
    """

    per_token: float
    per_label: float
    per_pair: float

    def of(self, num_tokens: float, num_labels: float, num_pairs: float) -> float:
        return self.per_token * num_tokens + self.per_label * num_labels + self.per_pair * num_pairs


def model_flops(model: "PreTrainedModel") -> ModelFlops:
    """``model`` may hold adapters, be quantized or be partitioned by ZeRO-3."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings().weight
    outside = {id(head), id(model.get_input_embeddings().weight)}
    num_experts = next(
        (n for name in ("num_local_experts", "num_experts", "n_routed_experts") if (n := getattr(config, name, None))),
        1,
    )
    visited = getattr(config, "num_experts_per_tok", None) or num_experts
    per_token = 0.0
    for name, weight in model.named_parameters():
        if id(weight) not in outside:
            share = visited / num_experts if ".experts." in name else 1.0
            per_token += share * _numel(weight) * (6 if weight.requires_grad else 4)
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    return ModelFlops(
        per_token=per_token,
        per_label=config.vocab_size * config.hidden_size * (6 if head.requires_grad else 4),
        per_pair=12 * width * config.num_hidden_layers,
    )


def _numel(weight: "torch.nn.Parameter") -> int:
    if hasattr(weight, "ds_numel"):  # partitioned by ZeRO-3
        return weight.ds_numel
    if hasattr(weight, "quant_state") and weight.quant_state is not None:  # two 4-bit weights a byte
        return weight.quant_state.shape.numel()
    return weight.numel()


def peak_flops(dtype: "torch.dtype") -> float:
    """FLOP/s of one device: from the data sheet, or from a product of two matrices where there is none."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if known := [key for key in PEAK_FLOPS if key in name]:
            return PEAK_FLOPS[max(known, key=len)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 768
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        c = a @ b
        c[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
