"""Logs a training to the open MLflow run, by rank 0 alone: losses, speed, utilization and memory."""

import resource
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from slmkit import tracking

if TYPE_CHECKING:
    from model_training.model_flops import ModelFlops

_KEPT = ("loss", "learning_rate", "grad_norm")


class TrainingLog(TrainerCallback):
    """Sends what the Trainer logs under this project's names, and ``perf/*`` from the work that it counts.

    ``count`` is called with each batch of token ids, labels and document lengths; evaluation and checkpoints are not
    in the time that speed is taken over.
    """

    def __init__(self, peak_flops: float) -> None:
        self.flops: ModelFlops | None = None
        self._peak = peak_flops
        self._work = [0.0, 0.0, 0.0]  # tokens, labels, pairs of tokens that attend
        self._seconds = 0.0
        self._total = [0.0, 0.0]  # tokens of all processes, seconds
        self._started = 0.0

    def count(self, num_tokens: int, num_labels: int, document_lengths: list[int]) -> None:
        """Add one batch of this process."""
        pairs = sum(length * (length + 1) / 2 for length in document_lengths)
        for i, amount in enumerate((num_tokens, num_labels, pairs)):
            self._work[i] += amount

    @property
    def tokens_per_second(self) -> float:
        """Over the whole training, all processes together."""
        return self._total[0] / self._total[1] if self._total[1] else 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seconds += time.perf_counter() - self._started

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        metrics = {
            f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}": value
            for name, value in logs.items()
            if name in _KEPT or (name.startswith("eval_") and "runtime" not in name and "_per_second" not in name)
        }
        metrics.pop("eval/epoch", None)
        if "loss" in logs:
            metrics |= self._speed(args)
        if metrics:
            tracking.log_metrics(metrics, step=state.global_step)

    def _speed(self, args: Any) -> dict[str, float]:
        """What was done since the last time, by all processes; every process calls it at the same step."""
        import torch
        from accelerate.utils import reduce

        if not self._seconds or not self._work[0]:
            return {}
        work = reduce(torch.tensor(self._work, dtype=torch.float64, device=args.device), "sum").tolist()
        found = {"perf/tokens_per_second": work[0] / self._seconds, "perf/max_memory_bytes": max_memory_bytes()}
        if self.flops:
            per_second = self.flops.of(*work) / self._seconds
            found["perf/model_flops_utilization"] = per_second / (self._peak * args.world_size)
        self._total = [self._total[0] + work[0], self._total[1] + self._seconds]
        self._work, self._seconds = [0.0, 0.0, 0.0], 0.0
        return found


def max_memory_bytes() -> float:
    """The most that this process has held: of the GPU's memory where there is one, else resident."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
