"""4-bit weights by GPTQ of llm-compressor, in the compressed-tensors form that vLLM serves."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from source_model import Source

from slmkit import records
from slmkit.errors import UserError

GROUP_SIZES = (128, 64, 32)
HEAD = "lm_head"  # stays as it is: the last layer is small and says the most


def prepare(args: Any, source: Source) -> Callable[[Path, Path], None]:
    """Check what can be checked before any work; what is given back does it."""
    group_size = fitting_group_size(source, args.group_size)
    chats = sampled(read_chats(args.calibration_chats), args.num_calibration_chats, args.seed)

    def quantize(folder: Path, target: Path) -> None:
        _quantize(folder, target, chats, group_size, args.max_length, args.seed)

    return quantize


def fitting_group_size(source: Source, largest: int) -> int:
    """The largest group, up to the one asked for, that divides the columns of every layer that is quantized."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source.folder, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    columns = {
        module.in_features: name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith(HEAD)
    }
    for size in GROUP_SIZES:
        if size <= largest and not any(number % size for number in columns):
            return size
    number, name = next((number, name) for number, name in columns.items() if number % GROUP_SIZES[-1])
    raise UserError(
        f"{source.folder}: {name} has {number} columns, which groups of {GROUP_SIZES[-1]} do not divide; take onnx-int4"
    )


def read_chats(path: Path) -> list[list[dict[str, str]]]:
    chats = []
    for record, source, line in records.read_located(path):
        try:
            records.check_chat(record)
        except ValueError as error:
            raise UserError(f"{source}:{line}: {error}") from None
        chats.append(record["messages"])
    if not chats:
        raise UserError(f"{path}: no chats to calibrate on; give those that the model was trained on")
    return chats


def sampled(chats: list[Any], num_chats: int, seed: int) -> list[Any]:
    return random.Random(seed).sample(chats, min(num_chats, len(chats)))


def _quantize(
    folder: Path, target: Path, chats: list[list[dict[str, str]]], group_size: int, max_length: int, seed: int
) -> None:
    import transformers
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier

    transformers.set_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    rows = [tokenizer.apply_chat_template(chat, return_dict=False)[:max_length] for chat in chats]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": group_size}
    recipe = GPTQModifier(config_groups={"linear": {"targets": ["Linear"], "weights": weights}}, ignore=[HEAD])
    oneshot(
        model=model,
        dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}),
        recipe=recipe,
        max_seq_length=max_length,
        num_calibration_samples=len(rows),
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(target, save_compressed=True)
