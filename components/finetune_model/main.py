"""Fine-tune a causal language model on chats: TRL's SFTTrainer under a typed layer that goes on after a kill."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_training import checkpoints, distribution, failures, loading, training_report
from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from chat_tokenization import TokenizedChats
    from transformers import PreTrainedTokenizerBase

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True)
class Args:
    base_model: Path
    train_data: Path
    validation_data: Path
    model: Path
    checkpoints: Path
    report: Path
    adapter: Path | None = None
    method: str = "lora"
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0
    use_rslora: bool = False
    use_dora: bool = False
    target_modules: str | None = None
    merge_adapter: bool = True
    learning_rate: float = 2e-4
    num_train_epochs: float = 3
    per_device_train_batch_size: int = 4
    gradient_accumulation_steps: int = 1
    auto_find_batch_size: bool = False
    max_length: int = 1024
    truncation_mode: str = "leave_out"
    packing: bool = True
    assistant_only_loss: bool = True
    warmup_steps: float = 0.03
    lr_scheduler_type: str = "cosine"
    weight_decay: float = 0
    max_grad_norm: float = 1
    neftune_noise_alpha: float | None = None
    bf16: bool | None = None
    gradient_checkpointing: bool | None = None
    use_liger_kernel: bool = False
    attn_implementation: str = "auto"
    deepspeed: str = "none"
    fsdp: bool = False
    early_stopping_patience: int | None = None
    metric_for_best_model: str = "eval_loss"
    load_best_model_at_end: bool = False
    eval_steps: int = 50
    save_steps: int = 50
    max_error_fraction: float = 0.1
    seed: int = 42

    @property
    def keeps_best(self) -> bool:
        return self.load_best_model_at_end or self.early_stopping_patience is not None


def run(args: Args) -> dict[str, float]:
    check(args)
    # Threads that spin while they wait are slower than none as soon as another step runs beside this one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")

    import sft_setup

    tokenizer = loading.load_tokenizer(args.base_model)
    train, validation = read_data(args, tokenizer)
    checkpoint = checkpoints.prepare(args.checkpoints, identity(args))
    with failures.explained(
        args.base_model,
        args.checkpoints,
        batch_size=args.per_device_train_batch_size,
        accumulation=args.gradient_accumulation_steps,
        max_length=args.max_length,
        method=args.method,
    ):
        trainer = sft_setup.make_trainer(args, tokenizer, train, validation, checkpoint)
        if checkpoint and distribution.is_first_process():
            print(f"goes on from {checkpoint.name}", flush=True)
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        evaluation = trainer.evaluate() if validation.rows else {}
        trainer.save_whole(args.model, args.base_model, adapter=args.method != "full", merge=args.merge_adapter)

    metrics = {
        "train/loss": training_report.last_loss(trainer.state.log_history, result.training_loss),
        "train/num_chats": len(train.rows),
        "train/num_left_out": train.left_out.total() + validation.left_out.total(),
        "train/num_truncated": train.truncated + validation.truncated,
        "train/num_steps": trainer.state.global_step,
        "perf/tokens_per_second": trainer.training_log.tokens_per_second,
        **{f"eval/{name[5:]}": evaluation[name] for name in sft_setup.MEASURED if name in evaluation},
    }
    if distribution.is_first_process():
        if (found := trainer.state.train_batch_size) != args.per_device_train_batch_size:
            print(f"the memory sufficed for per_device_train_batch_size={found}")
        tracking.log_metrics(metrics, step=trainer.state.global_step)
        settings = {name: value for name, value in asdict(args).items() if not isinstance(value, Path)}
        training_report.write(args.report, f"Fine-tuning: {args.method}", trainer.state.log_history, metrics, settings)
        tracking.log_artifact(args.report)
        lineage.write(args, SPEC)
        summary = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        print(f"{args.method} on {len(train.rows)} chats: {summary}")
    return metrics


def check(args: Args) -> None:
    """Refuse what cannot work before anything is read."""
    if args.keeps_best and args.save_steps % args.eval_steps:
        raise UserError(
            f"save_steps={args.save_steps} is not a multiple of eval_steps={args.eval_steps}; the best weights must be "
            "among the saved ones"
        )
    if args.method == "full" and (args.adapter or args.use_dora or args.use_rslora):
        raise UserError("method=full trains no adapter; leave out adapter, use_dora and use_rslora, or use method=lora")
    if args.method == "qlora":
        loading.check_quantization()
    if args.use_liger_kernel:
        loading.check_liger_kernel()


def identity(args: Args) -> dict[str, object]:
    """What makes this run the run that its checkpoints belong to: all but where things stand and what comes after."""
    values = {name: value for name, value in asdict(args).items() if not isinstance(value, Path)}
    del values["merge_adapter"]
    names = ("base_model", "train_data", "validation_data", "adapter")
    return values | {name: lineage.sha256(path) for name in names if (path := getattr(args, name))}


def read_data(args: Args, tokenizer: "PreTrainedTokenizerBase") -> "tuple[TokenizedChats, TokenizedChats]":
    """Both data sets as token ids; says what was left out or cut, and stops when it was too much or nothing is left."""
    from chat_tokenization import tokenize_chats
    from transformers import AutoConfig

    vocab_size = AutoConfig.from_pretrained(args.base_model).get_text_config().vocab_size
    both = []
    for name in ("train_data", "validation_data"):
        path = getattr(args, name)
        chats = tokenize_chats(
            path, tokenizer, args.max_length, args.assistant_only_loss, args.truncation_mode, vocab_size
        )
        if distribution.is_first_process():
            for reason, count in chats.left_out.items():
                print(f"{name}: {count} of {chats.num_chats} chats left out: {reason} (max_length={args.max_length})")
            if chats.truncated:
                print(f"{name}: {chats.truncated} of {chats.num_chats} chats cut at max_length={args.max_length}")
        reasons = ", ".join(chats.left_out) or "nothing"
        records.check_share(
            chats.left_out.total(), chats.num_chats, args.max_error_fraction, f"chats of {name} ({reasons})"
        )
        both.append(chats)
    train, validation = both
    if not train.rows:
        raise UserError(f"{args.train_data}: no chat to train on; check the file and max_length={args.max_length}")
    if not validation.rows and args.keeps_best:
        raise UserError(f"{args.validation_data}: no chats, but {args.metric_for_best_model} is measured on some")
    return train, validation


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
