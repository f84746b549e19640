"""4-bit ONNX models for CPUs, by the model builder of ONNX Runtime GenAI: no calibration, embeddings too."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from source_model import Source

from slmkit.errors import UserError

# The chat models that the builder of the pinned version makes for CPUs; a test holds them to its source.
ARCHITECTURES = (
    "Ernie4_5ForCausalLM",
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "GraniteForCausalLM",
    "HunYuanDenseV1ForCausalLM",
    "Lfm2ForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "NemotronForCausalLM",
    "OlmoForCausalLM",
    "Phi3ForCausalLM",
    "PhiForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "SmolLM3ForCausalLM",
)
GROUP_SIZES = (32, 64, 128)
ACCURACY_LEVEL = 4  # multiply in int8, which is what the CPU is quick at


def check(source: Source, group_size: int) -> None:
    if group_size not in GROUP_SIZES:
        raise UserError(f"group_size {group_size} is not one of {', '.join(map(str, GROUP_SIZES))}")
    if source.architecture not in ARCHITECTURES:
        raise UserError(
            f"{source.folder}: {source.architecture} has no ONNX build; take bnb-nf4 or bnb-int8, or a model of "
            f"{', '.join(ARCHITECTURES)}"
        )


def quantize(folder: Path, target: Path, *, group_size: int, precision: str = "int4") -> None:
    """Write model.onnx, its weights, genai_config.json and the tokenizer. ``precision`` fp32 is to compare with."""
    from onnxruntime_genai.models import builder

    # The builder passes over names that it does not know, such as the int4_block_size of earlier versions.
    options = [f"block_size={group_size}", f"accuracy_level={ACCURACY_LEVEL}", "op_types_to_quantize=MatMul/Gather"]
    with tempfile.TemporaryDirectory() as cache, _no_repository(cache):
        place = ("", str(folder), str(target), precision, "cpu", cache)
        builder.create_model(*place, **builder.parse_extra_options(*place, options if precision == "int4" else []))


@contextlib.contextmanager
def _no_repository(empty: str) -> Iterator[None]:
    """The builder stamps the commit of the repository around its package, which is yours where .venv lies in it: the
    same model would have another hash after each commit."""
    before = os.environ.get("GIT_DIR")
    os.environ["GIT_DIR"] = empty
    try:
        yield
    finally:
        del os.environ["GIT_DIR"]
        if before is not None:
            os.environ["GIT_DIR"] = before
