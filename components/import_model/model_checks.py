"""Whether a copied folder is a whole model that can be trained: configuration, weights, vocabulary, special tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import template_checks
from model_source import read_json
from template_checks import Finding

from slmkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LoadedT = TypeVar("LoadedT")
SAMPLE = 1024  # numbers looked at in each tensor


@dataclass(frozen=True)
class Checked:
    """A model that can be trained, and what was found about it."""

    config: "PretrainedConfig"
    architecture: str
    num_parameters: int
    findings: list[Finding]
    tags: dict[str, str]


def check(folder: Path, source: str, trust_remote_code: bool) -> Checked:
    """Raises ``UserError`` for what nobody can train; the rest is a finding."""
    import transformers

    transformers.logging.set_verbosity_error()
    settings = read_json(folder / "config.json")
    if settings.get("quantization_config"):
        raise UserError(
            f"{source}: its weights are quantized; import the original model, which finetune_model quantizes by itself "
            "with method=qlora"
        )
    num_tensors = _check_files(folder, source)
    num_layers = settings.get("num_hidden_layers")
    if isinstance(num_layers, int) and num_layers > num_tensors:  # before so many are made
        raise UserError(f"{source}: {num_layers} layers by config.json, and only {num_tensors} tensors; copy it again")
    findings = [Finding("files", True, f"{num_tensors} tensors in safetensors files that are whole")]
    if any("auto_map" in read_json(folder / name) for name in ("config.json", "tokenizer_config.json")):
        use = "was run" if trust_remote_code else "was left out; Transformers has its own class for it"
        findings.append(Finding("remote code", not trust_remote_code, f"the Python code that the model brings {use}"))

    def load(kind: str, **options: Any) -> Any:
        loader = getattr(transformers, kind).from_pretrained
        return _load(lambda: loader(folder, trust_remote_code=trust_remote_code, **options), source)

    config, tokenizer = load("AutoConfig"), load("AutoTokenizer")
    # On the meta device nothing but the names and shapes of the weights is read.
    model, info = load(
        "AutoModelForCausalLM", device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True
    )
    findings.append(_check_parameters(model, info, source))
    findings.append(_check_vocabulary(model, tokenizer, source))
    found, tags = template_checks.check(tokenizer, model.generation_config, source)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Checked(config, type(model).__name__, num_parameters, findings + found, tags)


def _load(loader: Callable[[], LoadedT], source: str) -> LoadedT:
    import transformers

    try:
        return loader()
    except Exception as error:  # tokenizers in Rust raise nothing narrower
        line = " ".join(str(error).split())[:300]
        if "trust_remote_code" in line or "custom code" in line:
            raise UserError(
                f"{source}: Transformers {transformers.__version__} has no class for it, and the Python code that it "
                "brings (auto_map) is not run; choose another model, or set trust_remote_code=true if you trust it"
            ) from None
        raise UserError(f"{source}: Transformers {transformers.__version__} cannot read the model ({line})") from error


def _check_files(folder: Path, source: str) -> int:
    """Every file is whole, and no tensor begins with NaN, which is what a training that diverged leaves everywhere.

    Returns the number of tensors.
    """
    from safetensors import SafetensorError, safe_open

    num_tensors = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118
                    num_tensors += 1
                    if _begins_with_nan(weights.get_slice(name)):
                        raise UserError(f"{source}: {name} in {file.name} holds NaN; take an earlier checkpoint")
        except (SafetensorError, OSError) as error:
            raise UserError(f"{source}: {file.name} is damaged or cut short ({error}); copy the model again") from None
    return num_tensors


def _begins_with_nan(tensor: Any) -> bool:
    rank = len(tensor.get_shape())
    if not rank or not tensor.get_dtype().startswith(("F", "BF")):
        return False
    return bool(tensor[(slice(0, 1),) * (rank - 1) + (slice(0, SAMPLE),)].float().isnan().any())


def _check_parameters(model: "PreTrainedModel", info: dict[str, Any], source: str) -> Finding:
    """The weights are those of the configuration; Transformers would fill what is missing with random numbers."""
    kind = type(model).__name__
    if info["mismatched_keys"]:
        name, found, wanted = min(info["mismatched_keys"])
        raise UserError(
            f"{source}: {name} is {list(found)} in the weights and {list(wanted)} by config.json; they are not of one "
            "model, copy both again"
        )
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{source}: the weights lack {len(missing)} parameters of {kind} ({', '.join(missing[:3])}); copy the "
            "whole model"
        )
    if unexpected := sorted(info["unexpected_keys"]):
        return Finding("parameters", False, f"{kind} does not use {len(unexpected)} tensors, such as {unexpected[0]}")
    return Finding("parameters", True, f"every parameter of {kind} is there, with the shape that config.json says")


def _check_vocabulary(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", source: str) -> Finding:
    """Every id that can occur has a row in the embedding."""
    rows = model.get_input_embeddings().weight.shape[0]
    num_tokens = max(len(tokenizer), max(tokenizer.get_vocab().values(), default=-1) + 1)
    if num_tokens > rows:
        raise UserError(
            f"{source}: the tokenizer has {num_tokens} tokens and the embedding {rows} rows; they are not of one "
            "model, or tokens were added without resizing it"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(f"{source}: the tokenizer has no eos_token, so that no answer would end; set it in its files")
    for where, holder in (
        ("the tokenizer", tokenizer),
        ("config.json", model.config),
        ("generation_config.json", model.generation_config),
    ):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            for token in template_checks.as_list(getattr(holder, name, None)):
                if not 0 <= token < rows:
                    raise UserError(
                        f"{source}: {name} {token} of {where} is outside the embedding of {rows} rows; correct it there"
                    )
    padding = "" if tokenizer.pad_token_id is not None else "; no pad token, so that training pads with eos"
    return Finding("vocabulary", True, f"{num_tokens:,} tokens, {rows:,} rows in the embedding{padding}")
