"""The loss on positions that have a label and on no others, with no more logits at a time than fit a cache."""

import functools
import types
from typing import Any

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import maybe_gather_lm_head_ctx

IGNORED = -100
_CHUNK_LOGITS = 2**22  # 16 MiB in float32: measured, larger ones leave the caches of a CPU


class LinearCrossEntropy(torch.autograd.Function):
    """Sum of ``-log softmax(hidden @ weight.T + bias)[label]``, and which labels are the most likely token.

    Takes hidden [positions, width], weight [vocabulary, width], bias [vocabulary] or None, labels [positions]. The
    gradient is computed with the loss, chunk by chunk, so that [positions, vocabulary] never exists and nothing is
    computed twice; a frozen weight costs no gradient. After Cut Your Losses (Wijmans et al. 2024, arXiv 2411.09009)
    and Liger Kernel (Hsu et al. 2024, arXiv 2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        grad_hidden, grad_weight, grad_bias = (
            torch.zeros_like(tensor) if needed else None
            for tensor, needed in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
        )
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        right = torch.empty(len(labels), dtype=torch.bool, device=hidden.device)
        num_rows = max(1, _CHUNK_LOGITS // len(weight))
        for start in range(0, len(labels), num_rows):
            rows = slice(start, start + num_rows)
            wanted = labels[rows, None]
            logits = torch.nn.functional.linear(hidden[rows], weight, bias).float()
            right[rows] = logits.argmax(-1, keepdim=True).eq(wanted).squeeze(-1)
            log_normalizer = logits.logsumexp(-1, keepdim=True)
            total += (log_normalizer - logits.gather(-1, wanted)).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            gradient = logits.sub_(log_normalizer).exp_()  # softmax minus the label: the gradient of the logits
            gradient = gradient.scatter_add_(-1, wanted, gradient.new_full(wanted.shape, -1)).to(weight.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, weight, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight.addmm_(gradient.T, hidden[rows])
            if grad_bias is not None:
                grad_bias.add_(gradient.sum(0))
        ctx.gradients = grad_hidden, grad_weight, grad_bias
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # scaled in place, so good for one backward pass
        return *(None if gradient is None else gradient.mul_(scale) for gradient in gradients), None


def add_label_loss(model: PreTrainedModel) -> None:
    """Let ``model(..., label_loss=True)`` return the loss alone, as a dict of ``loss`` (a sum) and ``right``.

    It is computed within ``forward``, because what wraps a model to distribute it gathers weights and gradients there.
    """
    other_forward = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: PreTrainedModel, *args: Any, label_loss: bool = False, **kwargs: Any) -> Any:
        if not label_loss:
            return other_forward(*args, **kwargs)
        labels = kwargs.pop("labels")[:, 1:]
        counted = labels != IGNORED
        hidden = self.base_model(*args, **kwargs, use_cache=False).last_hidden_state[:, :-1]
        head = self.get_output_embeddings()
        weight, bias = head.weight, head.bias
        if hasattr(weight, "full_tensor"):  # sharded by FSDP2
            weight, bias = weight.full_tensor(), bias if bias is None else bias.full_tensor()
        with maybe_gather_lm_head_ctx(weight, bias):  # partitioned by ZeRO-3
            loss, right = LinearCrossEntropy.apply(hidden[counted], weight, bias, labels[counted])
        return {"loss": loss, "right": right}

    model.forward = types.MethodType(forward, model)
