"""Puts TRL's trainer together from the inputs of the component."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from datasets import Dataset
from document_attention import best_attention
from packed_sft_trainer import PackedSFTTrainer
from transformers import AutoConfig, EarlyStoppingCallback, set_seed
from trl import SFTConfig, pack_dataset

from model_training import adapters, checkpoints, distribution, loading
from model_training.model_flops import peak_flops
from model_training.steady_trainer import NUM_KEPT_CHECKPOINTS, join
from model_training.training_log import TrainingLog
from slmkit import tracking

if TYPE_CHECKING:
    from chat_tokenization import Row, TokenizedChats
    from main import Args
    from transformers import PreTrainedTokenizerBase

MEASURED = ("eval_loss", "eval_mean_token_accuracy", "eval_exact_match")


def make_trainer(
    args: "Args",
    tokenizer: "PreTrainedTokenizerBase",
    train: "TokenizedChats",
    validation: "TokenizedChats",
    checkpoint: Path | None = None,
) -> PackedSFTTrainer:
    """Model, data and trainer, ready to train or to go on from ``checkpoint``."""
    set_seed(args.seed)
    config = trainer_config(args, evaluate=bool(validation.rows), checkpoint=checkpoint)
    join(config, checkpoint)
    attention = args.attn_implementation
    if attention == "auto":
        attention = best_attention(AutoConfig.from_pretrained(args.base_model), args.max_length)
    model = loading.load_model(args.base_model, method=args.method, bf16=config.bf16, attn_implementation=attention)
    lora = None
    if args.adapter:
        model = adapters.load_adapter(model, args.base_model, args.adapter)
    elif args.method != "full":
        names = ("lora_r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "target_modules")
        lora = adapters.lora_config(model, **{name: getattr(args, name) for name in names})
    patience = args.early_stopping_patience
    tracking.log_params({name: value for name, value in asdict(args).items() if not isinstance(value, Path)})
    trainer = PackedSFTTrainer(
        model=model,
        args=config,
        train_dataset=rows_of(train.rows, args.max_length, args.packing),
        # Always packed: evaluation is exact either way, and faster so.
        eval_dataset=rows_of(validation.rows, args.max_length, packing=True) if validation.rows else None,
        processing_class=tokenizer,
        peft_config=lora,
        training_log=TrainingLog(peak_flops(torch.bfloat16 if config.bf16 else torch.float32)),
        callbacks=[EarlyStoppingCallback(patience)] if patience else None,
    )
    distribution.check(args.fsdp, trainer.accelerator)
    return trainer


def rows_of(chats: "list[Row]", max_length: int, packing: bool) -> Dataset:
    """A row a chat, or as many chats as fit in max_length tokens, best fit first, none of them cut."""
    dataset = Dataset.from_list(chats)
    return pack_dataset(dataset, max_length, strategy="bfd") if packing else dataset


def trainer_config(args: "Args", *, evaluate: bool, checkpoint: Path | None = None) -> SFTConfig:
    same = (
        *("learning_rate", "num_train_epochs", "per_device_train_batch_size", "auto_find_batch_size"),
        *("warmup_steps", "lr_scheduler_type", "weight_decay", "max_grad_norm", "neftune_noise_alpha"),
        *("use_liger_kernel", "eval_steps", "save_steps", "metric_for_best_model", "seed"),
    )
    on_gpu = torch.cuda.is_available()
    world_size = distribution.world_size()
    universal = checkpoints.needs_conversion(checkpoint, world_size)
    return SFTConfig(
        **{name: getattr(args, name) for name in same},
        **distribution.trainer_arguments(args.deepspeed, args.fsdp, universal=universal),
        output_dir=str(args.checkpoints),
        gradient_accumulation_steps=checkpoints.gradient_accumulation_steps(
            checkpoint, args.gradient_accumulation_steps, world_size
        ),
        # Rows come as token ids, each chat whole and no longer than max_length.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        per_device_eval_batch_size=1,
        eval_strategy="steps" if evaluate else "no",
        prediction_loss_only=True,
        save_strategy="steps",
        save_total_limit=NUM_KEPT_CHECKPOINTS,
        load_best_model_at_end=args.keeps_best,
        greater_is_better=args.metric_for_best_model != "eval_loss",
        restore_callback_states_from_checkpoint=True,
        # TRL's defaults, bf16 and gradient checkpointing, cost a CPU four fifths of its speed.
        use_cpu=not on_gpu,
        bf16=loading.use_bf16(args.bf16, args.base_model),
        activation_checkpointing=loading.use_gradient_checkpointing(
            args.gradient_checkpointing,
            args.base_model,
            method=args.method,
            max_length=args.max_length,
            per_device_train_batch_size=args.per_device_train_batch_size,
            num_gpus=world_size if args.deepspeed.startswith("zero3") or args.fsdp else 1,
            lora_r=args.lora_r,
        ),
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
    )
