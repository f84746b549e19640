"""Align a fine-tuned model with preference pairs: TRL's trainers under a typed layer that goes on after a kill."""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_training import checkpoints, distribution, failures, loading, training_report
from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from preference_data import TokenizedPairs
    from transformers import PreTrainedTokenizerBase

SPEC = Path(__file__).with_name("component.yml")
# The losses that each algorithm has in TRL, its default first.
LOSS_TYPES = {
    "dpo": (
        *("sigmoid", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
        *("apo_zero", "apo_down", "discopop", "sigmoid_norm"),
    ),
    "kto": ("kto", "apo_zero_unpaired"),
    "orpo": (),
    "simpo": (),
}
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")


@dataclass(frozen=True)
class Args:
    base_model: Path
    train_preferences: Path
    validation_preferences: Path
    model: Path
    checkpoints: Path
    report: Path
    method: str = "lora"
    lora_r: int = 16
    lora_alpha: int = 32
    target_modules: str | None = None
    algorithm: str = "dpo"
    loss_type: str | None = None
    label_smoothing: float = 0
    beta: float | None = None
    learning_rate: float = 5e-5
    num_train_epochs: float = 1
    per_device_train_batch_size: int = 4
    gradient_accumulation_steps: int = 1
    max_length: int = 1024
    precompute_ref_log_probs: bool = True
    warmup_steps: float = 0.1
    lr_scheduler_type: str = "cosine"
    max_grad_norm: float = 1
    bf16: bool | None = None
    gradient_checkpointing: bool | None = None
    deepspeed: str = "none"
    eval_steps: int = 50
    save_steps: int = 50
    max_error_fraction: float = 0.1
    seed: int = 42


def run(args: Args) -> dict[str, float]:
    check(args)
    # Threads that spin while they wait are slower than none as soon as another step runs beside this one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")

    import preference_trainers

    tokenizer = loading.load_tokenizer(args.base_model)
    train, validation = read_pairs(args, tokenizer)
    checkpoint = checkpoints.prepare(args.checkpoints, identity(args))
    with failures.explained(
        args.base_model,
        args.checkpoints,
        batch_size=args.per_device_train_batch_size,
        accumulation=args.gradient_accumulation_steps,
        max_length=args.max_length,
        method=args.method,
    ):
        trainer = preference_trainers.make_trainer(args, tokenizer, train.rows, validation.rows, checkpoint)
        if checkpoint and distribution.is_first_process():
            print(f"goes on from {checkpoint.name}", flush=True)
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        evaluation = trainer.evaluate() if validation.rows else {}
        trainer.save_whole(args.model, args.base_model, adapter=args.method != "full")

    before = next((row for row in trainer.state.log_history if "eval_preference_margin" in row), {})
    metrics = {
        "train/loss": training_report.last_loss(trainer.state.log_history, result.training_loss),
        "train/num_pairs": len(train.rows),
        "train/num_left_out": train.left_out.total() + validation.left_out.total(),
        "train/num_steps": trainer.state.global_step,
        "perf/tokens_per_second": trainer.training_log.tokens_per_second,
        **{f"eval/{name[5:]}_before": before[name] for name in preference_trainers.MEASURED if name in before},
        **{f"eval/{name[5:]}": evaluation[name] for name in preference_trainers.MEASURED if name in evaluation},
    }
    if distribution.is_first_process():
        shutil.rmtree(args.checkpoints / "pairs", ignore_errors=True)
        tracking.log_metrics(metrics, step=trainer.state.global_step)
        settings = {name: value for name, value in asdict(args).items() if not isinstance(value, Path)}
        training_report.write(args.report, f"Alignment: {args.algorithm}", trainer.state.log_history, metrics, settings)
        tracking.log_artifact(args.report)
        lineage.write(args, SPEC)
        summary = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        print(f"{args.algorithm}, {args.method}, on {len(train.rows)} pairs: {summary}")
        if evaluation:
            then, now = before["eval_preference_accuracy"], evaluation["eval_preference_accuracy"]
            print(f"prefers the better answer in {now:.0%} of {len(validation.rows)} held-out pairs, {then:.0%} before")
    return metrics


def check(args: Args) -> None:
    """Refuse what cannot work before anything is read."""
    if args.loss_type and args.loss_type not in LOSS_TYPES[args.algorithm]:
        known = ", ".join(LOSS_TYPES[args.algorithm]) or "none, leave it out"
        raise UserError(f"loss_type={args.loss_type} is no loss of algorithm={args.algorithm}; it has: {known}")
    if args.label_smoothing and args.loss_type not in SMOOTHED:
        raise UserError(
            f"label_smoothing is only used by loss_type={', '.join(SMOOTHED)}; set one of these, or leave it out"
        )
    if args.loss_type == "exo_pair" and not args.label_smoothing:
        raise UserError("loss_type=exo_pair needs label_smoothing above 0; its authors recommend 0.001")
    if args.algorithm == "kto" and args.per_device_train_batch_size < 2:
        raise UserError("algorithm=kto compares the answers of a batch; set per_device_train_batch_size to 2 or more")
    if args.method == "qlora":
        loading.check_quantization()


def identity(args: Args) -> dict[str, object]:
    """What makes this run the run that its checkpoints belong to: everything but where things stand."""
    values = {name: value for name, value in asdict(args).items() if not isinstance(value, Path)}
    names = ("base_model", "train_preferences", "validation_preferences")
    return values | {name: lineage.sha256(getattr(args, name)) for name in names}


def read_pairs(args: Args, tokenizer: "PreTrainedTokenizerBase") -> "tuple[TokenizedPairs, TokenizedPairs]":
    """Both data sets as token ids; says what was left out, and stops when it was too much or nothing is left."""
    from preference_data import tokenize_pairs
    from transformers import AutoConfig

    vocab_size = AutoConfig.from_pretrained(args.base_model).get_text_config().vocab_size
    both = []
    for name in ("train_preferences", "validation_preferences"):
        pairs = tokenize_pairs(getattr(args, name), tokenizer, args.max_length, vocab_size)
        reasons = ", ".join(f"{reason} {count}" for reason, count in pairs.left_out.items())
        if reasons and distribution.is_first_process():
            print(f"{name}: {pairs.left_out.total()} of {pairs.num_pairs} pairs left out: {reasons}")
        records.check_share(
            pairs.left_out.total(), pairs.num_pairs, args.max_error_fraction, f"pairs of {name} ({reasons})"
        )
        both.append(pairs)
    if not both[0].rows:
        raise UserError(
            f"{args.train_preferences}: no pair to train on; check the file and max_length={args.max_length}"
        )
    return both[0], both[1]


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
