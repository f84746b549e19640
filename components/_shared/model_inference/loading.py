"""Load a model to ask it: tokenizer and weights, without sampling settings, in a precision that is reproducible."""

from pathlib import Path
from typing import TYPE_CHECKING

from slmkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model folder; ``UserError`` where there is none."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise UserError(
                f"{folder} is an adapter without its base; give the merged model, finetune_model's output model"
            )
        raise UserError(f"{folder}: no config.json, so this is no model folder; give the output of import_model")

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(folder: Path, *, bf16: bool = False) -> "PreTrainedModel":
    """The model, on the accelerator when there is one.

    In float32 an answer does not depend on what else is in its batch; bfloat16 is faster on a GPU and rounds
    differently for each shape.
    """
    import torch
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if bf16 else torch.float32
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(PartialState().device).eval()


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
