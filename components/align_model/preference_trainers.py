"""TRL's trainers for preferences, put together from the inputs of the component."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # ORPO and CPO are there; the version is pinned

import torch
from accelerate import PartialState
from datasets import Dataset, load_from_disk
from preference_data import Pair, unpaired
from preference_margin import PreferenceMargin
from transformers import PrinterCallback, TrainingArguments, set_seed
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.trainer.utils import add_fused_lm_head

from model_training import adapters, checkpoints, distribution, loading
from model_training.model_flops import peak_flops
from model_training.steady_trainer import NUM_KEPT_CHECKPOINTS, SteadyTrainer, join
from model_training.training_log import TrainingLog
from slmkit import tracking

if TYPE_CHECKING:
    from main import Args
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
# Where TRL's batches say which tokens there are, and which are an answer: those with at least this value.
_ATTENTION = ("attention_mask", "chosen_attention_mask", "rejected_attention_mask")
_ANSWER = {"completion_mask": 1, "chosen_labels": 0, "rejected_labels": 0}
# What is said of held-out pairs; TRL's own rewards are means of batches, which depend on their size.
MEASURED = (
    "eval_loss",
    *("eval_preference_margin", "eval_preference_accuracy", "eval_reward_margin", "eval_reward_accuracy"),
)


class AlignmentLog(TrainingLog):
    """Of the two dozen figures that TRL takes, those that say whether the model learns what it is meant to."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        kept = {name: value for name, value in (logs or {}).items() if not name.startswith("eval_") or name in MEASURED}
        super().on_log(args, state, control, logs=kept, **kwargs)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in kept.items() if name in ("loss", *MEASURED))
        if shown and state.is_world_process_zero:
            print(f"step {state.global_step}: {shown}", flush=True)


class PreferenceTrainer(SteadyTrainer):
    """What each trainer here does beside TRL's: it counts its work, and measures on held-out pairs in a way of ours."""

    def __init__(self, *, preference_margin: PreferenceMargin, **kwargs: Any) -> None:
        super().__init__(callbacks=[preference_margin], **kwargs)
        preference_margin.trainer = self
        self.remove_callback(PrinterCallback)  # a line of 20 figures at each step

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        lengths = torch.cat([mask.sum(1) for name, mask in inputs.items() if name in _ATTENTION]).tolist()
        num_labels = sum(int((inputs[name] >= least).sum()) for name, least in _ANSWER.items() if name in inputs)
        self.training_log.count(sum(lengths), num_labels, lengths)
        return super().training_step(model, inputs, *args, **kwargs)


class WithReference(PreferenceTrainer):
    """DPO and KTO: rows come as token ids, which is what TRL would make of them."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset


class WithoutReference(PreferenceTrainer):
    """ORPO and SimPO: the same token ids as for DPO. TRL's own way for these two may add tokens at both ends."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        model = self.accelerator.unwrap_model(self.model)
        add_fused_lm_head(model.get_base_model() if hasattr(model, "get_base_model") else model)

    def tokenize_row(self, pair: Pair, model: Any = None) -> dict[str, list[int]]:
        prompt = pair["prompt_ids"]
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for name in ("chosen", "rejected"):
            answer = pair[f"{name}_ids"]
            row[f"{name}_input_ids"] = prompt + answer
            row[f"{name}_attention_mask"] = [1] * len(prompt + answer)
            row[f"{name}_labels"] = [IGNORED] * len(prompt) + answer
        return row


class DPO(WithReference, DPOTrainer): ...


class KTO(WithReference, KTOTrainer): ...


class ORPO(WithoutReference, ORPOTrainer): ...


class SimPO(WithoutReference, CPOTrainer): ...


def make_trainer(
    args: "Args",
    tokenizer: "PreTrainedTokenizerBase",
    train: list[Pair],
    validation: list[Pair],
    checkpoint: Path | None = None,
) -> PreferenceTrainer:
    """Model, data and trainer, ready to train or to go on from ``checkpoint``."""
    set_seed(args.seed)
    config = trainer_config(args, evaluate=bool(validation), checkpoint=checkpoint)
    join(config, checkpoint)
    model = loading.load_model(args.base_model, method=args.method, bf16=config.bf16)
    lora = None
    if args.method != "full":
        # TRL turns dropout off: the reference must not see other weights than the model.
        names = ("lora_r", "lora_alpha", "target_modules")
        lora = adapters.lora_config(model, lora_dropout=0, **{name: getattr(args, name) for name in names})
    tracking.log_params({name: value for name, value in asdict(args).items() if not isinstance(value, Path)})
    trainer_type = {"dpo": DPO, "kto": KTO, "orpo": ORPO, "simpo": SimPO}[args.algorithm]
    return trainer_type(
        model=model,
        args=config,
        train_dataset=dataset_of(args, train, "train"),
        eval_dataset=dataset_of(args, validation, "validation") if validation else None,
        processing_class=tokenizer,
        peft_config=lora,
        training_log=AlignmentLog(peak_flops(torch.bfloat16 if config.bf16 else torch.float32)),
        preference_margin=PreferenceMargin(validation, config.beta if args.algorithm in ("dpo", "kto") else None),
    )


def dataset_of(args: "Args", pairs: list[Pair], name: str) -> Dataset:
    """The rows of the algorithm. Several processes read one file, beside which TRL puts what the reference says."""
    rows = unpaired(pairs, args.per_device_train_batch_size, args.seed) if args.algorithm == "kto" else pairs
    if distribution.world_size() == 1:
        return Dataset.from_list(rows)
    folder = args.checkpoints / "pairs" / name
    if distribution.is_first_process():
        shutil.rmtree(folder, ignore_errors=True)
        Dataset.from_list(rows).save_to_disk(folder)
    PartialState().wait_for_everyone()
    return load_from_disk(folder)


def trainer_config(args: "Args", *, evaluate: bool, checkpoint: Path | None = None) -> TrainingArguments:
    reference = {"precompute_ref_log_probs": args.precompute_ref_log_probs}
    config_type, options = {
        "dpo": (
            DPOConfig,
            {"loss_type": [args.loss_type or "sigmoid"], "label_smoothing": args.label_smoothing, **reference},
        ),
        "kto": (KTOConfig, {"loss_type": args.loss_type or "kto", **reference}),
        "orpo": (ORPOConfig, {}),
        "simpo": (CPOConfig, {"loss_type": "simpo", "cpo_alpha": 0.0}),  # 1 would add the loss of supervised training
    }[args.algorithm]
    same = (
        *("learning_rate", "num_train_epochs", "per_device_train_batch_size", "max_length", "warmup_steps"),
        *("lr_scheduler_type", "max_grad_norm", "eval_steps", "save_steps", "seed"),
    )
    on_gpu = torch.cuda.is_available()
    world_size = distribution.world_size()
    universal = checkpoints.needs_conversion(checkpoint, world_size)
    return config_type(
        **{name: getattr(args, name) for name in same},
        **options,
        **distribution.trainer_arguments(args.deepspeed, fsdp=False, universal=universal),
        beta=args.beta or (2.0 if args.algorithm == "simpo" else 0.1),
        output_dir=str(args.checkpoints),
        gradient_accumulation_steps=checkpoints.gradient_accumulation_steps(
            checkpoint, args.gradient_accumulation_steps, world_size
        ),
        per_device_eval_batch_size=args.per_device_train_batch_size,
        eval_strategy="steps" if evaluate else "no",
        prediction_loss_only=True,
        save_strategy="steps",
        save_total_limit=NUM_KEPT_CHECKPOINTS,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=args.algorithm in ("dpo", "kto"),
        # TRL's defaults, bf16 and gradient checkpointing, cost a CPU four fifths of its speed.
        use_cpu=not on_gpu,
        bf16=loading.use_bf16(args.bf16, args.base_model),
        activation_checkpointing=loading.use_gradient_checkpointing(
            args.gradient_checkpointing,
            args.base_model,
            method=args.method,
            max_length=args.max_length,
            per_device_train_batch_size=2 * args.per_device_train_batch_size,  # both answers of each pair
            num_gpus=world_size if args.deepspeed.startswith("zero3") else 1,
            lora_r=args.lora_r,
        ),
        logging_steps=10,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
    )
