"""A LoRA adapter as finetune_model leaves it (PEFT's layout): what it adds to which layers, and whether it fits a base.

Without torch. What a server that switches adapters could not serve as it was trained is refused.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from slmkit import checked_files, lineage
from slmkit.errors import UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OTHER_BASE = 4  # exit code
PREFIX = "base_model.model."
MAX_HEADER_BYTES = 100_000_000  # as safetensors allows
# What PEFT may add to low-rank matrices; vLLM serves none of it, and of some it says nothing.
UNSERVED = (
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "fan_in_fan_out",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
)
CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # ways to begin that subtract from its weights

Shape = tuple[int, ...]


class AdapterConfig(pydantic.BaseModel):
    """What is read of adapter_config.json."""

    model_config = pydantic.ConfigDict(allow_inf_nan=False, frozen=True, extra="allow", strict=True)

    peft_type: Literal["LORA"]
    r: Annotated[int, pydantic.Field(ge=1)]
    lora_alpha: Annotated[float, pydantic.Field(gt=0)]
    use_rslora: bool = False
    bias: Literal["none"] = "none"
    init_lora_weights: bool | str | None = True

    @property
    def scale(self) -> float:
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    @pydantic.model_validator(mode="after")
    def _is_plain_lora(self) -> "AdapterConfig":
        if used := [name for name in UNSERVED if (self.model_extra or {}).get(name)]:
            raise ValueError(f"{', '.join(used)}: no server can switch such adapters; train a plain LoRA adapter")
        if str(self.init_lora_weights).lower().startswith(CHANGE_THE_BASE):
            raise ValueError(f"init_lora_weights={self.init_lora_weights} changes the base, which adapters share")
        return self


@dataclass(frozen=True)
class LoraAdapter:
    folder: Path
    r: int
    scale: float
    layers: dict[str, tuple[int, int]]  # the shape of the weight that each one is added to

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


def read(folder: Path, base_model: Path | None = None) -> LoraAdapter:
    """The adapter in a folder; ``UserError`` where it holds none, one of no plain LoRA, or one of another base."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: no {CONFIG}, so no adapter; give the model of finetune_model, merge_adapter=false")
    config = checked_files.load(folder / CONFIG, AdapterConfig)
    if base_model:
        trained_on = lineage.read(folder).get("inputs", {}).get("base_model", {}).get("sha256")
        if trained_on and trained_on != (found := lineage.sha256(base_model)):
            raise UserError(
                f"{folder}: trained on another base (SHA-256 {trained_on[:16]}) than {base_model} ({found[:16]}); give "
                "that one",
                OTHER_BASE,
            )
    return LoraAdapter(folder, config.r, config.scale, dict(_layers(folder / WEIGHTS, config.r)))


def _layers(weights: Path, r: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each layer with the shape of what is added to it: of a matrix A from r rows and a matrix B of r columns."""
    if not weights.is_file():
        raise UserError(f"{weights.parent}: no {weights.name}; weights of another kind than safetensors are not read")
    shapes = tensor_shapes(weights)
    ends = (".lora_A.weight", ".lora_B.weight")
    names = {key.removeprefix(PREFIX).removesuffix(end) for key in shapes for end in ends if key.endswith(end)}
    known = {f"{PREFIX}{name}{end}" for name in names for end in ends}
    if not names or (strange := sorted(known ^ shapes.keys())):
        what = f"{strange[0]} is missing or is none" if names else "there are none"
        raise UserError(f"{weights}: low-rank matrices lora_A and lora_B of linear layers are needed; {what}")
    for name in sorted(names):
        low, high = (shapes[f"{PREFIX}{name}{end}"] for end in ends)
        if len(low) != 2 or len(high) != 2 or low[0] != r or high[1] != r:
            raise UserError(f"{weights}: {name}: matrices of {low} and {high} are not of rank {r}, which {CONFIG} says")
        yield name, (high[0], low[1])


def check_fits(adapter: LoraAdapter, base_model: Path) -> None:
    """``UserError`` unless the base has all the layers that the adapter adds to, of the same shapes."""
    found: dict[str, Shape] = {}
    for file in sorted(base_model.glob("*.safetensors")):
        found |= tensor_shapes(file)
    modules = {key.rpartition(".")[0] for key in found}
    for name, shape in adapter.layers.items():
        if name not in modules:
            raise UserError(f"{adapter.folder}: {base_model} has no layer {name}; is it of another base?", OTHER_BASE)
        if f"{name}.weight" in found and found[f"{name}.weight"] != shape:  # of quantized weights no shape is known
            raise other_shape(adapter.folder, name, shape, found[f"{name}.weight"])


def check_has_none(model: Path) -> None:
    """``UserError`` for an adapter beside a whole model, which would be in use where PEFT is installed, else not."""
    if (model / CONFIG).is_file():
        raise UserError(f"{model}: has an adapter beside the model ({CONFIG}); take it out, or merge it and ask again")


def tensor_shapes(weights: Path) -> dict[str, Shape]:
    """The shapes of the tensors of a safetensors file, by its header alone."""
    try:
        with weights.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(MAX_HEADER_BYTES, weights.stat().st_size):
                raise ValueError("the header is longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
        return {key: tuple(one["shape"]) for key, one in header.items() if key != "__metadata__"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{weights}: not a whole safetensors file: {' '.join(str(error).split())[:200]}") from None


def other_shape(folder: Path, name: str, shape: Shape, found: Shape) -> UserError:
    return UserError(f"{folder}: made for a layer {name} of {shape}, the base has {found}: another base", OTHER_BASE)
