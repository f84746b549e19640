"""How clearly a model prefers the better answers of held-out pairs, before, during and after training."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from trl.trainer.dpo_trainer import DataCollatorForPreference

from slmkit import records

REFERENCE = "reference_log_probs.pt"
Pair = dict[str, list[int]]


class PreferenceMargin(TrainerCallback):
    """Adds four figures to each evaluation, exact whatever the batches and the number of processes, as TRL's are not.

    ``eval_preference_margin``: the mean log-probability of a token of the chosen answer less that of the rejected one,
    on average over the pairs; ``eval_preference_accuracy``: the share of the pairs where it is positive. They need no
    reference, so they are known before training, too, and mean the same for every algorithm.

    With ``beta``, ``eval_reward_margin``: beta times the log-probability that the chosen answer has gained since before
    training, less that of the rejected one; ``eval_reward_accuracy``: the share of the pairs where it is positive.
    """

    def __init__(self, pairs: list[Pair], beta: float | None) -> None:
        self.trainer: Trainer | None = None
        self._pairs, self._beta = pairs, beta
        self._lengths = torch.tensor([[len(pair[f"{name}_ids"]) for name in ("chosen", "rejected")] for pair in pairs])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._pairs:
            return
        # Beside the checkpoints, because a run that goes on from one has no model as it was before training.
        kept = Path(args.output_dir) / REFERENCE
        if state.global_step == 0:
            self._before = self._log_probs()
            if state.is_world_process_zero:
                with records.whole_file(kept) as partial:
                    torch.save(self._before, partial)
            self.trainer.log(self._preference(self._before))
        else:
            self._before = torch.load(kept)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        now = self._log_probs()
        found = self._preference(now)
        if self._beta:
            gains = now - self._before
            found |= _mean_and_share("eval_reward", self._beta * (gains[:, 0] - gains[:, 1]))
        self.trainer.log(found)
        metrics |= found

    def _preference(self, log_probs: torch.Tensor) -> dict[str, float]:
        per_token = log_probs / self._lengths
        return _mean_and_share("eval_preference", per_token[:, 0] - per_token[:, 1])

    def _log_probs(self) -> torch.Tensor:
        """Of the chosen and the rejected answer of each pair, in their order."""
        trainer = self.trainer
        loader = DataLoader(
            self._pairs,
            batch_size=trainer.args.per_device_eval_batch_size,
            collate_fn=DataCollatorForPreference(pad_token_id=trainer.processing_class.pad_token_id),
        )
        # As it is wrapped for training: the weights may be partitioned among the processes.
        model = trainer.model_wrapped
        was_training = model.training
        model.eval()
        found = []
        with torch.no_grad(), trainer.compute_loss_context_manager():
            for batch in trainer.accelerator.prepare_data_loader(loader):
                labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
                log_probs = model(**batch, labels=labels, use_cache=False, fused_lm_head=True).log_probs.double().sum(1)
                found.append(trainer.accelerator.gather_for_metrics(torch.stack(log_probs.chunk(2), dim=1)).cpu())
        model.train(was_training)
        return torch.cat(found)


def _mean_and_share(name: str, margins: torch.Tensor) -> dict[str, float]:
    return {f"{name}_margin": margins.mean().item(), f"{name}_accuracy": (margins > 0).double().mean().item()}
