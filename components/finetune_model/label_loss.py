"""The loss on positions that have a label and on no others, with no more logits at a time than fit a cache."""

import functools
import types
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import maybe_gather_lm_head_ctx

IGNORED = -100
# At a time, measured: more logits leave the caches of a CPU, fewer rows read the weights of the head too often.
_CHUNK_LOGITS, _MIN_ROWS = 2**22, 64


class LinearCrossEntropy(torch.autograd.Function):
    """The sum of ``-log softmax(hidden @ weight.T + bias)[label]``.

    Takes hidden [positions, width], weight [vocabulary, width], bias [vocabulary] or None, labels [positions]. The
    gradient is computed with the loss, chunk by chunk, so that [positions, vocabulary] never exists and nothing is
    computed twice; a frozen weight costs no gradient. After Cut Your Losses (Wijmans et al. 2024, arXiv 2411.09009)
    and Liger Kernel (Hsu et al. 2024, arXiv 2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
    ) -> torch.Tensor:
        grad_hidden, grad_weight, grad_bias = (
            torch.zeros_like(tensor) if needed else None
            for tensor, needed in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
        )
        total = hidden.new_zeros((), dtype=torch.float32)
        for rows, wanted, logits, log_normalizer in _chunks(hidden, weight, bias, labels):
            total += (log_normalizer - logits.gather(-1, wanted)).sum()
            gradient = logits.sub_(log_normalizer).exp_()  # softmax minus the label: the gradient of the logits
            gradient = gradient.scatter_add_(-1, wanted, gradient.new_full(wanted.shape, -1)).to(weight.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, weight, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight.addmm_(gradient.T, hidden[rows])
            if grad_bias is not None:
                grad_bias.add_(gradient.sum(0))
        ctx.gradients = grad_hidden, grad_weight, grad_bias
        return total

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # scaled in place, so good for one backward pass
        return *(None if gradient is None else gradient.mul_(scale) for gradient in gradients), None


def score_labels(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same sum without a gradient, and for each label whether it is the most likely token."""
    total, right = hidden.new_zeros((), dtype=torch.float32), torch.empty_like(labels, dtype=torch.bool)
    for rows, wanted, logits, log_normalizer in _chunks(hidden, weight, bias, labels):
        total += (log_normalizer - logits.gather(-1, wanted)).sum()
        right[rows] = logits.argmax(-1, keepdim=True).eq(wanted).squeeze(-1)
    return total, right


def _chunks(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Rows, their labels, logits and log normalizers, as many rows at a time as _CHUNK_LOGITS allows."""
    num_rows = max(_MIN_ROWS, _CHUNK_LOGITS // len(weight))
    for start in range(0, len(labels), num_rows):
        rows = slice(start, start + num_rows)
        logits = torch.nn.functional.linear(hidden[rows], weight, bias).float()
        yield rows, labels[rows, None], logits, logits.logsumexp(-1, keepdim=True)


def add_label_loss(model: PreTrainedModel) -> None:
    """Let ``model(..., label_loss=True)`` return ``loss`` alone, a sum, and without gradients also what is ``right``.

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
            inputs = hidden[counted], weight, bias, labels[counted]
            if torch.is_grad_enabled():
                return {"loss": LinearCrossEntropy.apply(*inputs)}
            return dict(zip(("loss", "right"), score_labels(*inputs), strict=True))

    model.forward = types.MethodType(forward, model)
