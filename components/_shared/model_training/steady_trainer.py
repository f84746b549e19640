"""What every trainer here does beside TRL's: it stops at a loss that is no number, and leaves whole checkpoints."""

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback, TrainingArguments

from model_training import adapters, checkpoints, distribution, failures
from model_training.model_flops import model_flops
from model_training.training_log import TrainingLog

NUM_KEPT_CHECKPOINTS = 2


def join(config: TrainingArguments, checkpoint: Path | None) -> None:
    """Meet the other processes, and make ``checkpoint`` one that this number of them can read.

    Before the model is loaded: ZeRO-3 partitions it among them while that happens.
    """
    _ = config.device
    if config.deepspeed:
        import deepspeed

        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    if checkpoint and checkpoints.needs_conversion(checkpoint, config.world_size):
        if distribution.is_first_process():
            checkpoints.convert(checkpoint)
        PartialState().wait_for_everyone()


class MarkComplete(TrainerCallback):
    """Marks a checkpoint when the last process has written its part of it."""

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            checkpoints.mark_complete(folder, args.world_size, args.gradient_accumulation_steps)


class SteadyTrainer:
    """Stands before one of TRL's trainers among the bases of a class."""

    def __init__(self, *, training_log: TrainingLog, callbacks: list[TrainerCallback] | None = None, **kwargs: Any):
        super().__init__(callbacks=[training_log, *(callbacks or ()), MarkComplete()], **kwargs)
        self.training_log = training_log
        training_log.flops = model_flops(self.accelerator.unwrap_model(self.model))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self._check_finite("the loss", loss.item())
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Called between backward pass and optimizer step, so that nothing bad reaches the weights."""
        grad_norm = super()._get_grad_norm(model, grad_norm)
        if grad_norm is not None:
            self._check_finite("the norm of the gradient", float(grad_norm))
        return grad_norm

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise failures.not_a_number(what, value, self.state.global_step + 1, Path(self.args.output_dir))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Report and lineage take its place; it would name folders of this machine."""

    def save_whole(self, model: Path, base_model: Path, *, adapter: bool, merge: bool = True) -> None:
        """Gather what was trained from every process; the first one writes ``model``."""
        trained = Path(self.args.output_dir) / "trained"
        self.save_model(str(trained))
        self.accelerator.wait_for_everyone()
        if distribution.is_first_process():
            adapters.save(trained, model, base_model, self.processing_class, adapter=adapter, merge=merge)
            shutil.rmtree(trained)
        distribution.leave()
