"""Load what is trained: tokenizer and weights, in the precision that the hardware gains by."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_training import memory_estimate
from slmkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WIDE_ENOUGH = 512  # hidden size


def load_tokenizer(base_model: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model folder; raises ``UserError`` where there is none or it has no chat template."""
    if not (base_model / "config.json").is_file():
        raise UserError(f"{base_model}: no config.json, so this is no model folder; give the output of import_model")
    if (base_model / "adapter_config.json").is_file():  # which PEFT, installed here, would put in use
        raise UserError(
            f"{base_model}: has an adapter beside the model (adapter_config.json); take it out, or merge it"
        )

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model)
    if not tokenizer.chat_template:
        raise UserError(f"{base_model}: the tokenizer has no chat template; import the instruction-tuned variant")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def use_bf16(asked: bool | None, base_model: Path) -> bool:
    """Whether to compute in bfloat16: as asked, else where the hardware gains by it.

    That is a GPU that has it, and a CPU with matrix units for it (AMX) under models that are wide enough; by
    ``tests/benchmarks/train.py precision`` narrower models and other CPUs lose by it, the latter a factor of ten.
    """
    import torch
    from transformers import AutoConfig

    if asked is not None:
        return asked
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    hidden_size = AutoConfig.from_pretrained(base_model).get_text_config().hidden_size
    return torch.cpu._is_amx_tile_supported() and hidden_size >= _WIDE_ENOUGH


def use_gradient_checkpointing(asked: bool | None, base_model: Path, **settings: Any) -> bool:
    """Whether to compute activations twice: as asked, else where a GPU would by estimate not hold them.

    ``settings`` are those of ``memory_estimate.estimate``.
    """
    import torch

    if asked is not None or not torch.cuda.is_available():
        return bool(asked)

    from transformers import AutoConfig

    shape = memory_estimate.shape_of(AutoConfig.from_pretrained(base_model))
    needed = memory_estimate.estimate(shape, **settings, gradient_checkpointing=False).total
    return needed > memory_estimate.USABLE * torch.cuda.mem_get_info()[1]


def check_quantization() -> None:
    """Raises ``UserError`` where 4-bit weights cannot be trained."""
    _check_gpu("method=qlora", "bitsandbytes", "method=lora")


def check_liger_kernel() -> None:
    """Raises ``UserError`` where Liger's kernels cannot run."""
    _check_gpu("use_liger_kernel=true", "liger_kernel", "use_liger_kernel=false")


def _check_gpu(what: str, package: str, instead: str) -> None:
    import importlib.util

    import torch

    if not torch.cuda.is_available():
        raise UserError(f"{what} needs a GPU, and there is none; use {instead}, or a GPU cluster")
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{what} needs the package {package}; use the environment slm-train, or {instead}")


def load_model(
    base_model: Path, *, method: str, bf16: bool, attn_implementation: str | None = None
) -> "PreTrainedModel":
    """The causal language model of a folder, ready to train by ``method`` (full, lora or qlora).

    All weights are trained in float32 under bfloat16 autocast, since small updates are lost in bfloat16; frozen ones
    are kept in bfloat16 where that is computed in, or in 4 bits (NF4, Dettmers et al. 2023) for qlora.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 and method != "full" else torch.float32}
    if method == "qlora":
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float16,
        )
    model = AutoModelForCausalLM.from_pretrained(base_model, attn_implementation=attn_implementation, **options)
    if method == "qlora":
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return model
