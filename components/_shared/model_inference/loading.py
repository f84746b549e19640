"""Load a model to ask it: tokenizer and weights, without sampling settings, in a precision that is reproducible."""

from pathlib import Path
from typing import TYPE_CHECKING

from slmkit import lora_adapter
from slmkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from slmkit.lora_adapter import LoraAdapter


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model folder; ``UserError`` where there is none."""
    if not (folder / "config.json").is_file():
        if (folder / lora_adapter.CONFIG).is_file():
            raise UserError(
                f"{folder} is an adapter without its base; give the merged model, finetune_model's output model, or, "
                "to generate_answers, the base as base_model"
            )
        raise UserError(f"{folder}: no config.json, so this is no model folder; give the output of import_model")
    lora_adapter.check_has_none(folder)

    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    except Exception as error:  # Transformers raises errors of many kinds
        raise _unusable(folder, "tokenizer", error) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # made up where no file of a tokenizer is there
        raise UserError(f"{folder}: no tokenizer, or one without a vocabulary; give a whole model folder")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(folder: Path, *, bf16: bool = False, adapter: "LoraAdapter | None" = None) -> "PreTrainedModel":
    """The model, on the accelerator when there is one; with an adapter, that is merged into its weights.

    In float32 an answer does not depend on what else is in its batch; bfloat16 is faster on a GPU and rounds
    differently for each shape.
    """
    import torch
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if bf16 else torch.float32
    try:
        model, found = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except Exception as error:  # Transformers raises errors of many kinds
        raise _unusable(folder, "model", error) from error
    if missing := sorted(found["missing_keys"]):  # for which Transformers draws random numbers
        raise UserError(
            f"{folder}: {len(missing)} weights of the model are missing, such as {missing[0]}; was the folder copied "
            "whole, and does config.json belong to it?"
        )
    if adapter:
        merge(model, adapter)
    return model.to(PartialState().device).eval()


def merge(model: "PreTrainedModel", adapter: "LoraAdapter") -> None:
    """W + scale * B A for each layer: the answers of base and adapter, at the speed of the base."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(adapter.weights)
    except SafetensorError as error:
        raise UserError(f"{adapter.weights}: damaged or cut short ({error}); copy the adapter again") from None
    layers = dict(model.named_modules())
    with torch.inference_mode():
        for name, shape in adapter.layers.items():
            if not isinstance(layer := layers.get(name), torch.nn.Linear):
                raise UserError(f"{adapter.folder}: the base has no linear layer {name}", lora_adapter.OTHER_BASE)
            weight = layer.weight
            if tuple(weight.shape) != shape:
                raise lora_adapter.other_shape(adapter.folder, name, shape, tuple(weight.shape))
            low, high = (tensors[f"{lora_adapter.PREFIX}{name}.lora_{part}.weight"].float() for part in "AB")
            merged = (weight.float() + adapter.scale * (high @ low)).to(weight.dtype)
            if not merged.isfinite().all():
                raise UserError(f"{adapter.weights}: {name} comes to NaN or infinity; take an earlier checkpoint")
            # Not in place: the weights of an output layer may be those of the embeddings too.
            layer.weight = torch.nn.Parameter(merged, requires_grad=False)


def _unusable(folder: Path, what: str, error: Exception) -> UserError:
    said = " ".join(str(error).split())[:300]
    return UserError(f"{folder}: the {what} cannot be loaded ({type(error).__name__}: {said}); is the folder whole?")


def max_positions(model: "PreTrainedModel") -> int:
    """How many tokens the model takes, prompt and answer together."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31


def stop_token_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The tokens that end an answer.

    Nothing else is taken over from the model's generation settings: sampling, penalties and the like would make two
    candidates incomparable.
    """
    stops = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])} - {None}
