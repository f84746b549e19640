"""How much GPU memory training a causal language model takes, worked out from its configuration alone.

Bytes per parameter: trained ones 18 (fp32 weight and its bf16 copy 6, gradient 4, AdamW's two moments 8: Hugging Face,
"Model training anatomy"), frozen ones 2; for QLoRA 4.127 bits in linear layers (NF4 with double quantization: Dettmers
et al. 2023, arXiv 2305.14314) and 4 elsewhere, where PEFT turns to fp32. ZeRO-3 divides all this by the number of GPUs
and gathers one layer at a time (DeepSpeed's estimate_zero3_model_states_mem_needs).

Activations are counted as Korthikanti et al. 2022 (arXiv 2205.05198) count them: the tensors that the backward pass
needs, for a layer of two RMSNorms computed in fp32, attention that keeps no matrix of scores, and a gated MLP,
    bytes per token and layer = 2(4h + 2wh) + w(2ad + 2kd + 4f)
with h hidden size, a heads and k key-value heads of d dimensions, f the MLP's width (of the experts that a token sees)
and w bytes per number, which is what Transformers keeps of a Llama. Autocast adds 10h where all weights are trained, as
it keeps the residual stream in fp32; an adapter adds a copy of its input and, for dropout, a mask. Gradient
checkpointing keeps the input of each layer, and one layer at a time. The loss is computed in chunks of label positions,
so that logits never exist for [tokens, vocabulary], and with its gradient. The parts are added up though they do not
all peak at once, so a sum errs on the high side.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PretrainedConfig

METHODS = ("full", "lora", "qlora")
CHUNK_LOGITS = 2**22  # logits that exist at a time
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a byte for 64 weights, four bytes for 256 of those
# For the CUDA context, the workspaces of libraries and memory in pieces that are too small.
USABLE = 0.9


class Sku(NamedTuple):
    name: str
    num_gpus: int
    gpu_gigabytes: int
    has_bf16: bool = True


# Azure's sizes with NVIDIA GPUs from small to large: learn.microsoft.com/azure/virtual-machines/sizes
SKUS = (
    Sku("Standard_NC4as_T4_v3", 1, 16, has_bf16=False),
    Sku("Standard_NV36ads_A10_v5", 1, 24),
    Sku("Standard_NC24ads_A100_v4", 1, 80),
    Sku("Standard_NC40ads_H100_v5", 1, 94),
    Sku("Standard_NC48ads_A100_v4", 2, 80),
    Sku("Standard_NC80adis_H100_v5", 2, 94),
    Sku("Standard_NC96ads_A100_v4", 4, 80),
    Sku("Standard_ND96amsr_A100_v4", 8, 80),
    Sku("Standard_ND96isr_H100_v5", 8, 80),
    Sku("Standard_ND96isr_H200_v5", 8, 141),
)


@dataclass(frozen=True)
class Shape:
    """What the memory depends on."""

    num_parameters: int
    largest_layer: int  # parameters of the module that has most of its own
    linear_parameters: int  # in the linear layers, which adapters go to and 4 bits hold
    linear_inputs: int
    linear_outputs: int
    vocab_size: int
    num_layers: int
    hidden: int
    heads: int  # width of all queries
    key_values: int  # width of all keys
    mlp: int
    has_query_norm: bool


@dataclass(frozen=True)
class Estimate:
    """Bytes on each GPU."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    gathered: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def shape_of(config: "PretrainedConfig", *, trust_remote_code: bool = False) -> Shape:
    """Build the model without memory for its weights, and count."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    text = config.get_text_config()
    num_heads = getattr(text, "num_attention_heads", None) or 1
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // num_heads
    mlp = getattr(text, "moe_intermediate_size", None) or getattr(text, "intermediate_size", None)
    return Shape(
        num_parameters=sum(p.numel() for p in model.parameters()),
        largest_layer=max(sum(p.numel() for p in m.parameters(recurse=False)) for m in model.modules()),
        linear_parameters=sum(m.weight.numel() for m in linear),
        linear_inputs=sum(m.in_features for m in linear),
        linear_outputs=sum(m.out_features for m in linear),
        vocab_size=text.vocab_size,
        num_layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=num_heads * head_dim,
        key_values=(getattr(text, "num_key_value_heads", None) or num_heads) * head_dim,
        mlp=(getattr(text, "num_experts_per_tok", None) or 1) * (mlp or 4 * text.hidden_size),
        has_query_norm=any(name.endswith("q_norm") for name, _ in model.named_modules()),
    )


def estimate(
    shape: Shape,
    method: str,
    max_length: int,
    *,
    per_device_train_batch_size: int = 1,
    gradient_checkpointing: bool = True,
    num_gpus: int = 1,
    lora_r: int = 16,
    bf16: bool = True,
) -> Estimate:
    """Bytes on each of ``num_gpus`` GPUs, which share the model by ZeRO-3 where they are several."""
    width = 2 if bf16 else 4
    if method == "full":
        trained, frozen = shape.num_parameters, 0.0
    else:
        trained = lora_r * (shape.linear_inputs + shape.linear_outputs)
        frozen = width * shape.num_parameters
    if method == "qlora":
        frozen = NF4_BYTES * shape.linear_parameters + 4 * (shape.num_parameters - shape.linear_parameters)
    num_tokens = per_device_train_batch_size * max_length
    return Estimate(
        weights=round(((6 if bf16 else 4) * trained + frozen) / num_gpus),
        gradients=round(4 * trained / num_gpus),
        optimizer=round(8 * trained / num_gpus),
        activations=round(num_tokens * _activations(shape, method, width, gradient_checkpointing)),
        loss=_loss(shape, method, num_tokens),
        gathered=4 * shape.largest_layer if num_gpus > 1 else 0,
    )


def _activations(shape: Shape, method: str, width: int, gradient_checkpointing: bool) -> float:
    """Bytes per token."""
    hidden = shape.hidden
    layer = 2 * (4 + 2 * width) * hidden + width * (2 * shape.heads + 2 * shape.key_values + 4 * shape.mlp)
    if shape.has_query_norm:
        layer += (4 + width) * (shape.heads + shape.key_values)
    residual = width
    if method != "full":
        # Each adapter keeps its own copy of its input and, with dropout, a mask.
        layer += (width + 1) * shape.linear_inputs / shape.num_layers
    elif width == 2:
        # Autocast keeps the residual stream in fp32, and a bf16 copy of a norm's output for each layer that reads it.
        residual, layer = 4, layer + 10 * hidden
    kept = shape.num_layers * residual * hidden + layer if gradient_checkpointing else shape.num_layers * layer
    return kept + (4 + width) * hidden  # the last norm


def _loss(shape: Shape, method: str, num_tokens: int) -> int:
    """Logits in bf16 and fp32 and their gradient, and the gradients of the hidden states and of a trained head."""
    logits = 12 * min(num_tokens * shape.vocab_size, CHUNK_LOGITS)
    head = 4 * shape.vocab_size * shape.hidden if method == "full" else 0
    return logits + 4 * num_tokens * shape.hidden + head


def smallest_sku(shape: Shape, method: str, max_length: int, **settings: int | bool) -> Sku | None:
    """The smallest size that holds it, with ZeRO-3 over its GPUs; 4 bits stay on one."""
    for sku in SKUS:
        if method == "qlora" and sku.num_gpus > 1:
            continue
        needed = estimate(shape, method, max_length, num_gpus=sku.num_gpus, bf16=sku.has_bf16, **settings)
        if needed.total <= USABLE * sku.gpu_gigabytes * 10**9:
            return sku
    return None
