"""A base model of Transformers in memory once, and LoRA adapters on it that a request picks by name."""

import copy
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import UnusableModelError
from transformers_engine import TransformersEngine

if TYPE_CHECKING:
    import torch

    Adapter = dict[str, tuple[torch.Tensor, torch.Tensor]]  # by layer: A, and B times the scale

PREFIX = "base_model.model."
LOW, HIGH = ".lora_A.weight", ".lora_B.weight"


class LoraEngine(TransformersEngine):
    """The base; each of ``adapters`` is the same model with that adapter in use while it makes a token."""

    def __init__(self, folder: Path, num_threads: int | None = None) -> None:
        super().__init__(folder / "base", num_threads)
        self._in_use: list[Adapter] = []  # one or none; shared by all, and changed by who has the turn
        self._adapter: Adapter | None = None
        self.adapters = {}
        for path in sorted((folder / "adapters").iterdir()):
            named = copy.copy(self)
            named._adapter = read_adapter(path, self._model)
            self.adapters[path.name] = named
        if not self.adapters:
            raise UnusableModelError(f"{folder}: no adapter below adapters/")
        for layer in {layer for named in self.adapters.values() for layer in named._adapter}:
            self._model.get_submodule(layer).register_forward_hook(self._added(layer))

    def _added(self, layer: str) -> Any:
        def add(module: Any, args: tuple, output: "torch.Tensor") -> "torch.Tensor":
            for adapter in self._in_use:
                if layer in adapter:
                    low, high = adapter[layer]
                    output = output + args[0] @ low.T @ high.T
            return output

        return add

    def _forward(self, *args: Any, **options: Any) -> Any:
        self._in_use[:] = [self._adapter] if self._adapter else []
        return super()._forward(*args, **options)


def has_adapters(folder: Path) -> bool:
    """Whether it is a base with LoRA adapters beside it, as combine_adapters writes it."""
    return (folder / "base" / "config.json").is_file() and (folder / "adapters").is_dir()


def read_adapter(folder: Path, model: Any) -> "Adapter":
    """As combine_adapters has let it through: plain low-rank matrices for linear layers of this model."""
    import torch
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
        found = load_file(folder / "adapter_model.safetensors")
        tensors = {key.removeprefix(PREFIX): value.float() for key, value in found.items()}
        layers = {key.removesuffix(LOW) for key in tensors if key.endswith(LOW)}
        if not layers or {name + end for name in layers for end in (LOW, HIGH)} != tensors.keys():
            raise ValueError("other weights than pairs of lora_A and lora_B")
        adapter = {name: (tensors[name + LOW], scale * tensors[name + HIGH]) for name in layers}
        for name, (low, high) in adapter.items():
            layer = model.get_submodule(name)
            if not isinstance(layer, torch.nn.Linear) or layer.weight.shape != (high.shape[0], low.shape[1]):
                raise ValueError(f"{name} has another shape, or is no linear layer")
            if not (low.isfinite().all() and high.isfinite().all()):
                raise ValueError(f"{name} holds NaN or infinity")
    except Exception as error:  # safetensors raises errors of its own kinds
        raise UnusableModelError(f"{folder}: no LoRA adapter of this base ({type(error).__name__}: {error})") from error
    return adapter
