"""What a model folder holds, for Transformers, for ONNX Runtime GenAI or in MLflow's layout: refused if incomplete."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit.errors import UserError

INCOMPLETE = 9  # exit code
CONFIGURATIONS = ("genai_config.json", "config.json")
WEIGHTS = ("*.safetensors", "*.bin", "*.onnx", "*.onnx.data", "*.gguf")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
FACTS = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")


@dataclass(frozen=True)
class ModelFolder:
    model_type: str  # as Azure ML calls it
    summary: str


def read(model: Path) -> ModelFolder:
    """One line about the model; a folder without configuration, weights or tokenizer is refused."""
    if not model.is_dir():
        raise UserError(f"{model}: not a folder; a model folder in Hugging Face layout is needed", INCOMPLETE)
    config = configuration(model)
    weights = [file for pattern in WEIGHTS for file in model.rglob(pattern)]
    if not weights:
        raise UserError(f"{model}: no weights ({', '.join(WEIGHTS)}); was the training step finished?", INCOMPLETE)
    if not any(next(model.rglob(name), None) for name in TOKENIZERS):
        raise UserError(f"{model}: no tokenizer ({', '.join(TOKENIZERS[:3])}); nothing could ask it", INCOMPLETE)
    said = [f"{fact} {config[fact]}" for fact in FACTS if fact in config]
    said.append(f"{sum(file.stat().st_size for file in weights) / 1e6:,.1f} MB of weights")
    return ModelFolder("mlflow_model" if (model / "MLmodel").is_file() else "custom_model", ", ".join(said))


def configuration(model: Path) -> dict[str, Any]:
    """The model's own; of ONNX Runtime GenAI in the words of Transformers. MLflow keeps it a folder deeper."""
    found = [file for name in CONFIGURATIONS for file in sorted(model.rglob(name), key=lambda file: len(file.parts))]
    if not found and next(model.rglob("adapter_config.json"), None):
        raise UserError(
            f"{model}: an adapter alone; register what combine_adapters makes of it and its base", INCOMPLETE
        )
    if not found:
        raise UserError(f"{model}: no config.json; a model folder in Hugging Face layout is needed", INCOMPLETE)
    try:
        config = json.loads(found[0].read_text(encoding="utf-8"))
        if found[0].name == "genai_config.json":
            inner = config["model"]
            config = {**inner, **inner["decoder"], "model_type": f"{inner['type']} (ONNX Runtime GenAI)"}
        return dict(config)
    except ValueError as error:
        raise UserError(f"{found[0]}: not JSON: {error}", INCOMPLETE) from None
    except (KeyError, TypeError):
        raise UserError(f"{found[0]}: not a configuration of a model", INCOMPLETE) from None
