"""Where LoRA adapters stand in a model: on every linear layer of its text decoder, but not on a router of experts."""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from slmkit.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ALL = "all-linear"
_ROUTER = re.compile(r"(^|[._])(gate|router)(\.|$)")
# PEFT takes these names, in a mixture of experts, for layers of Transformers 4 that are parts of a tensor by now.
_TAKEN_FOR_EXPERTS = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")


def lora_targets(
    model: "PreTrainedModel", target_modules: str | None = None, *, lora_dropout: float = 0, use_dora: bool = False
) -> dict[str, list[str] | None]:
    """``target_modules`` and ``target_parameters`` of a ``LoraConfig``: all layers, or those of a comma-separated list.

    Not PEFT's own "all-linear", which in PEFT 0.21 puts adapters on routers (Phi-3.5-MoE then fails in ``forward``)
    and into vision towers. Experts that Transformers keeps in one tensor are parameters, not layers; on these PEFT
    has neither dropout nor DoRA, which is a ``UserError``.
    """
    layers, parameters = list(_linear_layers(model)), list(_expert_parameters(model))
    if parameters:
        parameters += [f"{name}.weight" for name in _ending_in(_TAKEN_FOR_EXPERTS, layers)]
        layers = [name for name in layers if not _ending_in(_TAKEN_FOR_EXPERTS, [name])]
    without_experts = ",".join(_last_names(layers, 1))
    if target_modules and target_modules != ALL:
        asked = [name.strip() for name in target_modules.split(",")]
        unknown = [name for name in asked if not _ending_in([name], layers + parameters)]
        if unknown:
            known = _last_names([name.removesuffix(".weight") for name in layers + parameters], 1)
            raise UserError(
                f"target_modules: {', '.join(map(repr, unknown))} is no layer of {type(model).__name__}; there are "
                f"{', '.join(known)}"
            )
        layers, parameters = _ending_in(asked, layers), _ending_in(asked, parameters)
    if parameters and (lora_dropout or use_dora):
        raise UserError(
            f"{type(model).__name__} keeps its experts in one tensor, on which PEFT has neither dropout nor DoRA; set "
            f"lora_dropout=0 and use_dora=false, or target_modules={without_experts}"
        )
    short = _last_names(layers, 1)
    matched = _ending_in(short, [name for name, _ in model.named_modules()])
    return {
        "target_modules": short if set(matched) == set(layers) else sorted(layers),  # a vision tower has equal names
        "target_parameters": _last_names(parameters, 3) or None,
    }


def _linear_layers(model: "PreTrainedModel") -> Iterator[str]:
    import torch
    from transformers.pytorch_utils import Conv1D

    for name, module in _decoder_modules(model):
        is_router = _ROUTER.search(name) or "Router" in type(module).__name__
        if isinstance(module, (torch.nn.Linear, Conv1D)) and not is_router:
            yield name


def _expert_parameters(model: "PreTrainedModel") -> Iterator[str]:
    """The tensors [experts, out, in] or [experts, in, out]."""
    for name, module in _decoder_modules(model):
        for parameter_name, parameter in module.named_parameters(recurse=False):
            shape = getattr(parameter, "ds_shape", parameter.shape)  # as it was before ZeRO-3 partitioned it
            if len(shape) == 3 and "Conv" not in type(module).__name__:
                yield f"{name}.{parameter_name}"


def _decoder_modules(model: "PreTrainedModel") -> "Iterator[tuple[str, torch.nn.Module]]":
    inside, head = set(model.get_decoder().modules()), model.get_output_embeddings()
    return ((name, module) for name, module in model.named_modules() if module in inside and module is not head)


def _ending_in(endings: Iterable[str], names: list[str]) -> list[str]:
    """The names that end in one of ``endings``, part by part, as PEFT compares them."""
    return [n for n in names if any(f".{n.removesuffix('.weight')}".endswith(f".{ending}") for ending in endings)]


def _last_names(names: list[str], num_parts: int) -> list[str]:
    return sorted({".".join(name.split(".")[-num_parts:]) for name in names})
