"""Tiny random models of the families that are trained here, each with what sets its family apart."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # so that a wrong mask shows
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEAD_DIM = {"head_dim": 8}
WINDOW = {"sliding_window": 6}  # shorter than the documents of the tests
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"], **WINDOW}

# The configuration's class and what it takes beside SIZES.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {**HEAD_DIM, **WINDOW}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", HEAD_DIM),
    "gemma2": ("Gemma2Config", {**HEAD_DIM, **ALTERNATING, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", {**HEAD_DIM, **ALTERNATING, "query_pre_attn_scalar": 8}),
    "phi": ("PhiConfig", {}),
    "phi3": ("Phi3Config", WINDOW),
    "phimoe": ("PhimoeConfig", {**EXPERTS, **WINDOW, "router_jitter_noise": 0.0, "input_jitter_noise": 0.0}),
    "mixtral": ("MixtralConfig", EXPERTS),
    "qwen3_moe": ("Qwen3MoeConfig", {**HEAD_DIM, **QWEN_EXPERTS}),
    "qwen2_moe": (  # beside its experts, an expert for all and a layer without any
        "Qwen2MoeConfig",
        {**QWEN_EXPERTS, "shared_expert_intermediate_size": 16, "mlp_only_layers": [0]},
    ),
}
MOE = ("phimoe", "mixtral", "qwen3_moe", "qwen2_moe")


def tiny_model(family: str, **changes: Any) -> "PreTrainedModel":
    """The same weights each time; ``changes`` go to the configuration, as ``attn_implementation`` does."""
    import torch
    import transformers

    name, own = CONFIGS[family]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**{**SIZES, **own, **changes})
    return transformers.AutoModelForCausalLM.from_config(config).eval()
