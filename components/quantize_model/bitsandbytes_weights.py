"""4- and 8-bit weights by bitsandbytes, as Transformers loads them: the linear layers, embeddings left as they are."""

import importlib.util
import logging
from pathlib import Path

from slmkit.errors import UserError


def check() -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("bitsandbytes is not installed; run the step in the environment quantize (on a GPU machine)")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says at each layer that float32 is cast


def quantize(folder: Path, target: Path, *, method: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if method == "bnb-nf4":
        settings = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    else:
        settings = BitsAndBytesConfig(load_in_8bit=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, device_map=device, dtype="auto", local_files_only=True
    )
    model.save_pretrained(target)
