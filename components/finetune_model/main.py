"""Fine-tune a causal language model on chats: TRL's SFTTrainer under a typed layer that goes on after a kill."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from chat_tokenization import TokenizedChats
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

SPEC = Path(__file__).with_name("component.yml")
NUM_KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class Args:
    base_model: Path
    train_data: Path
    validation_data: Path
    model: Path
    checkpoints: Path
    method: str = "lora"
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    learning_rate: float = 2e-4
    num_train_epochs: float = 3
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    max_length: int = 1024
    packing: bool = False
    assistant_only_loss: bool = True
    warmup_steps: float = 0.03
    lr_scheduler_type: str = "cosine"
    weight_decay: float = 0
    early_stopping_patience: int | None = None
    eval_steps: int = 50
    save_steps: int = 50
    max_error_fraction: float = 0.1
    seed: int = 42


def run(args: Args) -> dict[str, float]:
    if args.early_stopping_patience and args.save_steps % args.eval_steps:
        raise UserError(
            f"save_steps={args.save_steps} is not a multiple of eval_steps={args.eval_steps}; with "
            "early_stopping_patience the best weights must be among the saved ones"
        )
    # Threads that spin while they wait are slower than none as soon as another step runs beside this one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")

    import checkpoint_recovery

    tokenizer = load_tokenizer(args.base_model)
    train, validation = read_data(args, tokenizer)
    checkpoint = checkpoint_recovery.prepare(args.checkpoints, identity(args))
    trainer = make_trainer(args, tokenizer, train, validation)
    if checkpoint:
        print(f"goes on from {checkpoint.name}")
    started = time.perf_counter()
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    save(args, trainer, tokenizer)

    metrics = {
        "train/loss": result.training_loss,
        "train/num_chats": len(train.rows),
        "train/num_left_out": train.left_out.total() + validation.left_out.total(),
        "train/num_steps": trainer.state.global_step,
        "perf/train_seconds": seconds,
    }
    if not checkpoint:
        num_tokens = trainer.state.epoch * sum(len(row["input_ids"]) for row in train.rows)
        metrics["perf/tokens_per_second"] = num_tokens / seconds
    if validation.rows:
        metrics["eval/loss"] = trainer.evaluate()["eval_loss"]
    tracking.log_metrics(metrics, step=trainer.state.global_step)
    lineage.write(args, SPEC)
    summary = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    print(f"{args.method} on {len(train.rows)} chats: {summary}")
    return metrics


def identity(args: Args) -> dict[str, object]:
    """What makes this run the run that its checkpoints belong to: everything but where things stand."""
    values = {name: value for name, value in asdict(args).items() if not isinstance(value, Path)}
    inputs = {name: lineage.sha256(getattr(args, name)) for name in ("base_model", "train_data", "validation_data")}
    return {**values, **inputs}


def load_tokenizer(base_model: Path) -> "PreTrainedTokenizerBase":
    if not (base_model / "config.json").is_file():
        raise UserError(f"{base_model}: no config.json, so this is no model folder; give the output of import_model")

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model)
    if not tokenizer.chat_template:
        raise UserError(f"{base_model}: the tokenizer has no chat template; import the instruction-tuned variant")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def read_data(args: Args, tokenizer: "PreTrainedTokenizerBase") -> "tuple[TokenizedChats, TokenizedChats]":
    """Both data sets as token ids; says what was left out, and stops when it was too much or nothing is left."""
    from chat_tokenization import tokenize_chats

    both = []
    for name in ("train_data", "validation_data"):
        path = getattr(args, name)
        chats = tokenize_chats(path, tokenizer, args.max_length, args.assistant_only_loss)
        for reason, count in chats.left_out.items():
            print(f"{name}: {count} of {chats.num_chats} chats left out: {reason} ({args.max_length=})")
        reasons = ", ".join(chats.left_out) or "nothing"
        records.check_share(
            chats.left_out.total(), chats.num_chats, args.max_error_fraction, f"chats of {name} ({reasons})"
        )
        both.append(chats)
    train, validation = both
    if not train.rows:
        raise UserError(f"{args.train_data}: no chat to train on; check the file and max_length={args.max_length}")
    if not validation.rows and args.early_stopping_patience:
        raise UserError(f"{args.validation_data}: no chats, but early_stopping_patience needs a validation loss")
    return train, validation


def make_trainer(
    args: Args, tokenizer: "PreTrainedTokenizerBase", train: "TokenizedChats", validation: "TokenizedChats"
) -> "SFTTrainer":
    import torch
    from cpu_sft_trainer import CpuSFTTrainer
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, EarlyStoppingCallback, TrainerCallback, set_seed
    from trl import SFTTrainer

    class LogToMlflow(TrainerCallback):
        """Sends what the Trainer logs to the open run, under this project's names."""

        def on_log(self, args, state, control, logs=None, **kwargs):
            kept = {
                f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}": value
                for name, value in (logs or {}).items()
                if name.removeprefix("eval_") in ("loss", "learning_rate", "grad_norm")
            }
            if kept and state.is_world_process_zero:
                tracking.log_metrics(kept, step=state.global_step)

    set_seed(args.seed)
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu and args.method == "lora" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(args.base_model, dtype=dtype)
    lora = LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    callbacks = [LogToMlflow()]
    if args.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
    tracking.log_params({name: value for name, value in asdict(args).items() if not isinstance(value, Path)})
    trainer_type = SFTTrainer if on_gpu else CpuSFTTrainer
    return trainer_type(
        model=model,
        args=trainer_config(args, on_gpu=on_gpu, evaluate=bool(validation.rows)),
        train_dataset=Dataset.from_list(train.rows),
        eval_dataset=Dataset.from_list(validation.rows) if validation.rows else None,
        processing_class=tokenizer,
        peft_config=lora if args.method == "lora" else None,
        callbacks=callbacks,
    )


def trainer_config(args: Args, *, on_gpu: bool, evaluate: bool) -> "SFTConfig":
    from trl import SFTConfig

    same = (
        *("learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("max_length", "packing", "warmup_steps", "lr_scheduler_type", "weight_decay", "eval_steps", "save_steps"),
        "seed",
    )
    return SFTConfig(
        **{name: getattr(args, name) for name in same},
        output_dir=str(args.checkpoints),
        per_device_eval_batch_size=args.per_device_train_batch_size,
        eval_strategy="steps" if evaluate else "no",
        eval_packing=False,
        save_strategy="steps",
        save_total_limit=NUM_KEPT_CHECKPOINTS,
        load_best_model_at_end=args.early_stopping_patience is not None,
        metric_for_best_model="eval_loss" if args.early_stopping_patience else None,
        restore_callback_states_from_checkpoint=True,
        # TRL's defaults, bf16 and gradient checkpointing, cost a CPU four fifths of its speed.
        use_cpu=not on_gpu,
        bf16=on_gpu,
        activation_checkpointing=on_gpu,
        logging_steps=10,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
    )


def save(args: Args, trainer: "SFTTrainer", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write whole weights, adapters merged, in Hugging Face layout."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if args.method == "lora":
        model = model.merge_and_unload()
    with records.whole_folder(args.model) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
