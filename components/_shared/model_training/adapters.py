"""Low-rank adapters: where they stand in a model, going on from earlier ones, and merging them into the weights."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from slmkit import lineage, records
from slmkit.errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CONFIG = "adapter_config.json"


def lora_config(
    model: "PreTrainedModel",
    *,
    lora_r: int,
    lora_alpha: int,
    lora_dropout: float,
    use_rslora: bool = False,
    use_dora: bool = False,
    target_modules: str | None = None,
) -> "LoraConfig":
    """Adapters on the layers that ``lora_targets`` names for the architecture, or on those that are asked for."""
    from peft import LoraConfig

    from model_training.lora_targets import lora_targets

    return LoraConfig(
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        use_rslora=use_rslora,
        use_dora=use_dora,
        task_type="CAUSAL_LM",
        **lora_targets(model, target_modules, lora_dropout=lora_dropout, use_dora=use_dora),
    )


def load_adapter(model: "PreTrainedModel", base_model: Path, adapter: Path) -> "PeftModel":
    """The base with an adapter that an earlier run wrote, to be trained further.

    Raises ``UserError`` where the folder holds no adapter, or one of another base.
    """
    if not (adapter / _CONFIG).is_file():
        raise UserError(f"{adapter}: no {_CONFIG}, so no adapter; give the model of a run with merge_adapter=false")
    trained_on = lineage.read(adapter).get("inputs", {}).get("base_model", {}).get("sha256")
    if trained_on and trained_on != lineage.sha256(base_model):
        raise UserError(f"{adapter}: trained on another base than {base_model}; give that one, or leave adapter out")

    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{adapter}: does not fit {base_model} ({reason}); give the base model that it was trained on"
        ) from None


def save(
    trained: Path, model: Path, base_model: Path, tokenizer: "PreTrainedTokenizerBase", *, adapter: bool, merge: bool
) -> None:
    """Write ``model`` whole from what the Trainer saved in ``trained``: all weights, or an adapter, merged or alone.

    An adapter is merged into the weights of ``base_model`` as they are on disk, so that neither quantization nor
    partitioning while training leaves a trace in them.
    """
    with records.whole_folder(model) as folder:
        if adapter and merge:
            from peft import PeftModel
            from transformers import AutoModelForCausalLM
            from transformers.integrations.deepspeed import unset_hf_deepspeed_config

            unset_hf_deepspeed_config()  # under ZeRO-3 it would be loaded in parts, and this process is alone here
            base = AutoModelForCausalLM.from_pretrained(base_model, dtype="auto")
            PeftModel.from_pretrained(base, trained).merge_and_unload().save_pretrained(folder)
        else:
            for file in sorted(trained.iterdir()):
                if file.suffix in (".safetensors", ".json"):
                    file.replace(folder / file.name)
            if adapter:
                _without_local_path(folder / _CONFIG)
        tokenizer.save_pretrained(folder)


def _without_local_path(config: Path) -> None:
    """The adapter's lineage names its base; the folder in which that stood means nothing elsewhere."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content["base_model_name_or_path"] = None
    config.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
