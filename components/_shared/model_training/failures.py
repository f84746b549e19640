"""What stops a training, as one line: out of memory, no space for a checkpoint, a loss that is no number."""

import contextlib
import errno
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_training import memory_estimate
from slmkit.errors import UserError

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "no executable batch size")
_NO_SPACE = ("failed writing file", "no space left", "file too large")


@contextlib.contextmanager
def explained(
    base_model: Path, checkpoints: Path, *, batch_size: int, accumulation: int, max_length: int, method: str
) -> Iterator[None]:
    """Turn the errors of torch into a line that says what is kept and which settings would help."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # torch, safetensors and the system each have a class of their own for it
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
            helps = "; ".join(_helps(base_model, batch_size, accumulation, max_length, method))
            raise UserError(f"out of memory; what helps, in this order: {helps}; {_kept(checkpoints)}") from error
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or any(words in text for words in _NO_SPACE):
            raise UserError(
                f"{checkpoints}: no space left for a checkpoint; free some or raise save_steps; {_kept(checkpoints)}"
            ) from error
        raise


def _helps(base_model: Path, batch_size: int, accumulation: int, max_length: int, method: str) -> Iterator[str]:
    """Settings that need less memory, the batch of an optimizer step as it is, with what each needs by estimate."""
    from transformers import AutoConfig

    shape = memory_estimate.shape_of(AutoConfig.from_pretrained(base_model))

    def needs(**changes: Any) -> str:
        settings = {"method": method, "max_length": max_length, "per_device_train_batch_size": batch_size}
        settings |= {"gradient_checkpointing": False, **changes}
        return f"about {memory_estimate.estimate(shape, **settings).total / 1e9:.2g} GB"

    if batch_size > 1:
        half = batch_size // 2
        more = math.ceil(accumulation * batch_size / half)
        what = f"per_device_train_batch_size={half} with gradient_accumulation_steps={more}"
        yield f"{what} ({needs(per_device_train_batch_size=half)} instead of {needs()})"
    else:
        half = max(8, max_length // 2)
        yield f"max_length={half} ({needs(max_length=half)} instead of {needs()})"
    yield f"gradient_checkpointing=true ({needs(gradient_checkpointing=True)})"
    if smaller := {"full": "lora", "lora": "qlora"}.get(method):
        yield f"method={smaller} ({needs(method=smaller)})"
    yield "deepspeed=zero3 on several GPUs"


def not_a_number(what: str, value: float, step: int, checkpoints: Path) -> UserError:
    """The error for a loss or gradient that is no finite number; raised before it reaches the weights."""
    return UserError(
        f"{what} is {value} at step {step}, so the training stops; {_kept(checkpoints)}; lower learning_rate or "
        "max_grad_norm, raise warmup_steps, or look at the data"
    )


def _kept(checkpoints: Path) -> str:
    steps = [int(path.parent.name.rpartition("-")[2]) for path in checkpoints.glob("checkpoint-*/complete.json")]
    return f"checkpoint-{max(steps)} is kept" if steps else "no checkpoint was written yet"
