"""LoRA adapters for the small model, with weights that change its answers, in the files that PEFT writes."""

import json
from pathlib import Path
from typing import Any

LAYERS = ("self_attn.q_proj", "mlp.down_proj")


def write(
    base_model: Path, folder: Path, *, seed: int = 0, r: int = 4, layers: tuple[str, ...] = LAYERS, **config: Any
) -> Path:
    """On all layers of two kinds; ``config`` is what adapter_config.json says else."""
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True)
    random, tensors = torch.Generator().manual_seed(seed), {}
    for name, weight in load_file(base_model / "model.safetensors").items():
        if name.endswith(tuple(f"{layer}.weight" for layer in layers)):
            where = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{where}.lora_A.weight"] = torch.randn(r, weight.shape[1], generator=random) * 0.3
            tensors[f"{where}.lora_B.weight"] = torch.randn(weight.shape[0], r, generator=random) * 0.3
    save_file(tensors, folder / "adapter_model.safetensors")
    known = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": r, "lora_alpha": 8, "bias": "none"}
    known |= {"target_modules": [layer.rpartition(".")[2] for layer in layers], "init_lora_weights": True}
    (folder / "adapter_config.json").write_text(json.dumps(known | config))
    return folder


def decide(path: Path, adapter: Path, base_model: Path, **changes: Any) -> Path:
    """The gate's decision on the adapter on this base: promote, unless ``changes`` say otherwise."""
    from slmkit import lineage

    decision = {
        "verdict": "promote",
        "candidate": "tuned",
        "baseline": "base",
        "reasons": [{"rule": "superiority", "outcome": "pass", "text": "the difference is at least +12.3 points"}],
        "comparison_sha256": "c" * 64,
        "model_sha256": lineage.model_sha256(adapter, base_model),
    }
    path.write_text(json.dumps(decision | changes))
    return path
