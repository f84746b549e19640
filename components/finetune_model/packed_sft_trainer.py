"""SFTTrainer over flat rows of whole documents: exact attention and loss, evaluation weighted by tokens."""

from typing import Any

import torch
from label_loss import IGNORED, add_label_loss
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from model_training.steady_trainer import SteadyTrainer
from slmkit.errors import UserError

# Models that scale or cap their logits keep TRL's own way, which knows each of them.
_SCALED = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
CHECKED_TOKENS = 64


class PackedSFTTrainer(SteadyTrainer, SFTTrainer):
    """The same loss as SFTTrainer's, where the time of a small model or a CPU goes less to padding and logits.

    On a GPU, TRL 1.16's own kernel computes the loss on labels alone; elsewhere it scores every position, so
    ``label_loss`` takes its place. ``eval_loss`` is the mean over all labels of the validation data, whatever the
    batches, ``eval_mean_token_accuracy`` the share of them that is the most likely token, and ``eval_exact_match`` the
    share of the answers of which every token is: those that greedy decoding would give back word for word.
    """

    def __init__(self, **kwargs: Any) -> None:
        pad = kwargs["processing_class"].pad_token_id
        super().__init__(data_collator=DataCollatorForLanguageModeling(pad, padding_free=True), **kwargs)
        self._documents_checked = False
        causal = self.accelerator.unwrap_model(self.model)
        causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
        config = causal.config.get_text_config()
        scaled = any(getattr(config, name, None) is not None for name in _SCALED)
        self._label_loss = not (torch.cuda.is_available() or scaled or self.aux_loss_enabled)
        if self._label_loss:
            add_label_loss(causal)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        lengths = inputs["cu_seq_lens_q"].diff().tolist()
        num_labels = int((inputs["labels"] != IGNORED).sum())
        if model.training:
            self.training_log.count(inputs["input_ids"].numel(), num_labels, lengths)
        if not self._label_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        total = model(**inputs, label_loss=True)["loss"]
        num_items = num_labels if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(num_items, device=total.device).clamp(min=1)
        # As in Trainer: the number counts the labels of every process, and gradients are averaged over processes.
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return loss

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self._documents_checked:
            self._check_documents_apart(model)
            self._documents_checked = True
        return super().training_step(model, inputs, *args, **kwargs)

    def _check_documents_apart(self, model: torch.nn.Module) -> None:
        """Stop where this very model lets one document of a row see another: then its logits change with them.

        Any two pieces of text serve as documents; the same ones in each process, as ZeRO-3 gathers weights together.
        """
        ids = self.train_dataset[0]["input_ids"][:CHECKED_TOKENS]
        rows = [{"input_ids": ids[: len(ids) // 2]}, {"input_ids": ids[len(ids) // 2 :]}]
        model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            packed, *alone = (
                model(**self._without_labels(group), use_cache=False)["logits"][0].float()
                for group in (rows, rows[:1], rows[1:])
            )
        model.train()
        alone = torch.cat(alone)
        change = ((packed - alone).norm(dim=-1) / alone.norm(dim=-1)).max().item()
        if change > (5e-2 if self.args.bf16 else 1e-3):
            raise UserError(
                f"{type(self.accelerator.unwrap_model(model)).__name__} lets the chats of a row see each other (logits "
                f"change by {change:.1%}); set packing=false and per_device_train_batch_size=1"
            )

    def _without_labels(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        batch = self._prepare_inputs(self.data_collator(rows))
        return {name: value for name, value in batch.items() if name != "labels"}

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._sums = torch.zeros(5, dtype=torch.float64)  # loss, labels, right labels, answers, right answers
        output = super().evaluation_loop(*args, **kwargs)
        loss, labels, right, answers, right_answers = self._sums.tolist()
        output.metrics.update(
            eval_loss=loss / max(labels, 1),
            eval_mean_token_accuracy=right / max(labels, 1),
            eval_exact_match=right_answers / max(answers, 1),
        )
        return output

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, None, None]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            total, right = self._loss_and_right(model, inputs)
        answers = _answers_right(inputs["labels"][0, 1:] != IGNORED, right)
        sums = [total.item(), len(right), int(right.sum()), len(answers), int(answers.sum())]
        # One row a process, so that the rows that fill up the last batch are not counted twice.
        row = torch.tensor([sums], dtype=torch.float64, device=total.device)
        self._sums += self.accelerator.gather_for_metrics(row).sum(0).cpu()
        return total / max(len(right), 1), None, None

    def _loss_and_right(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the loss, and for each label whether it is the most likely token."""
        if self._label_loss:
            found = model(**inputs, label_loss=True)
            return found["loss"], found["right"]
        found = model(**inputs, fused_lm_head=True)
        return -found.log_probs.sum(), found.is_top1[found.label_mask]


def _answers_right(counted: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """For each run of labels, which is one turn of the assistant, whether every token of it is right."""
    position = counted.nonzero().flatten()
    answer = (position.diff(prepend=position.new_tensor([-2])) != 1).cumsum(0) - 1
    return torch.bincount(answer, weights=(~right).double()) == 0
