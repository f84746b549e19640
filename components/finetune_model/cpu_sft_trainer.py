"""SFTTrainer for a CPU: the language model head runs on the positions that have a label, and on no others."""

from typing import Any

import torch
from trl import SFTTrainer

# Models that scale or cap their logits keep TRL's own way, which knows each of them.
_SCALED = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


class CpuSFTTrainer(SFTTrainer):
    """The same loss as SFTTrainer's. TRL 1.16 skips unlabeled positions on a GPU only; with assistant-only loss they
    are most of a chat, and scoring them against the vocabulary takes most of the time of a small model."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        causal = self.accelerator.unwrap_model(model)
        if hasattr(causal, "get_base_model"):  # adapters: the layers within are already replaced
            causal = causal.get_base_model()
        config = causal.config.get_text_config()
        scaled = any(getattr(config, name, None) is not None for name in _SCALED)
        if scaled or return_outputs or self.aux_loss_enabled:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

        labels = inputs.pop("labels")[:, 1:]
        counted = labels != -100
        hidden = causal.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1]
        logits = causal.get_output_embeddings()(hidden[counted])
        total = torch.nn.functional.cross_entropy(logits.float(), labels[counted], reduction="sum")
        num_items = counted.sum() if num_items_in_batch is None else num_items_in_batch
        return total / torch.as_tensor(num_items).clamp(min=1)
