"""The model that is quantized: whole, in float, and with all that serving needs; what of it goes along unchanged."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit import lineage
from slmkit.errors import UserError

CONFIG = "config.json"
# Beside the weights, what a model needs to be served and may not be passed on without. No Python code.
COMPANIONS = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*", "USE_POLICY*")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # of weights in several files
LEFT_OUT = (INDEX, lineage.NAME)


@dataclass(frozen=True)
class Source:
    folder: Path
    config: dict[str, Any]

    @property
    def architecture(self) -> str:
        named = self.config.get("architectures")
        return (
            named[0] if isinstance(named, list) and named and isinstance(named[0], str) else "an unnamed architecture"
        )


def check(folder: Path) -> Source:
    """Raises ``UserError`` for what cannot be quantized or would not answer chats, before any work is done."""
    if (folder / "genai_config.json").is_file():
        raise UserError(f"{folder}: an ONNX model already; quantize the model that it was made from")
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder}: an adapter, not a model; merge it into its base model first (finetune_model does)")
    config = _read(folder / CONFIG)
    if quantized := config.get("quantization_config") or config.get("compression_config"):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        raise UserError(f"{folder}: quantized already ({method or CONFIG}); quantize the model that it was made from")
    for name in (CONFIG, "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in _read(folder / name):
            raise UserError(f"{folder}: {name} names Python code to run (auto_map); take a model that needs none")
    _check_weights(folder)
    _check_tokenizer(folder)
    return Source(folder, config)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.parent}: no {path.name}; give a model folder in Hugging Face layout")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); copy the model again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a {type(content).__name__}, not an object; copy the model again")
    return content


def _check_weights(folder: Path) -> None:
    """Every file is there and whole, and every number is finite."""
    from safetensors import SafetensorError, safe_open

    files = weight_files(folder)
    if not files:
        raise UserError(f"{folder}: no weights in safetensors files; save the model as safetensors")
    for file in files:
        if not file.is_file() or file.parent != folder:
            raise UserError(f"{folder}: {file.name} is missing, which the index names; copy the model again")
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118
                    tensor = weights.get_tensor(name)
                    if tensor.is_floating_point() and not tensor.isfinite().all():
                        raise UserError(f"{file}: {name} holds NaN or infinity; take an earlier checkpoint")
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: damaged or cut short ({error}); copy the model again") from None


def _check_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise UserError(f"{folder}: no tokenizer; copy the whole model, tokenizer.json and tokenizer_config.json too")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers in Rust raise nothing narrower
        raise UserError(f"{folder}: the tokenizer cannot be read ({error}); copy the model again") from None
    if not tokenizer.chat_template:
        raise UserError(f"{folder}: the tokenizer has no chat template, so that no endpoint could take chats for it")


def copy_companions(folder: Path, target: Path) -> None:
    """Copy what stands beside the weights, byte by byte, but for a configuration that says how it was quantized."""
    for pattern in COMPANIONS:
        for file in folder.glob(pattern):
            kept = file.name == CONFIG and (target / CONFIG).exists()
            if file.is_file() and file.name not in LEFT_OUT and not kept:
                shutil.copyfile(file, target / file.name)


def weight_files(folder: Path) -> list[Path]:
    """Those that are loaded, be they ONNX or Hugging Face's; some models have the same weights in other files, too."""
    if onnx := sorted(folder.glob("*.onnx*")):
        return onnx
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        return []
    named = _read(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise UserError(f"{folder / INDEX}: no weight_map of file names; copy the model again")
    return [folder / name for name in sorted(set(named.values()))]


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in weight_files(folder))


def all_bytes(folder: Path) -> int:
    """Of all files of a model, lineage left out."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file() and file.name != lineage.NAME)
