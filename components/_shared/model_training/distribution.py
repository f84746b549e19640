"""How the processes of a training share its work: plain data parallel, DeepSpeed's ZeRO stages, or FSDP2."""

import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

_CONFIGS = Path(__file__).with_name("deepspeed")


def world_size() -> int:
    """The number of processes, as Azure ML and torchrun say it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process is the one that writes and logs."""
    return os.environ.get("RANK", "0") == "0"


def trainer_arguments(deepspeed: str, fsdp: bool, *, universal: bool = False) -> dict[str, Any]:
    """What ``TrainingArguments`` needs to have the work shared in this way.

    ``universal`` is for going on from a checkpoint of another number of processes.
    """
    if deepspeed != "none" and fsdp:
        raise UserError(f"deepspeed={deepspeed} and fsdp=true exclude each other; choose one")
    if deepspeed == "none":
        # accelerate would import it, which takes two seconds, only to see that it is not in use.
        sys.modules.setdefault("deepspeed", None)
    else:
        # Its kernels are compiled at first use, which takes minutes and a compiler; torch's AdamW needs none of them,
        # nor does training on CPUs need the one that it would compile for inference.
        os.environ.setdefault("DS_SKIP_CUDA_CHECK", "1")
        from deepspeed import ops

        ops.__compatible_ops__ = {}
        if "RANK" not in os.environ:  # DeepSpeed would look for MPI
            os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                os.environ["MASTER_PORT"] = str(probe.getsockname()[1])
        config = json.loads((_CONFIGS / f"{deepspeed}.json").read_text(encoding="utf-8"))
        return {"deepspeed": config | ({"checkpoint": {"load_universal": True}} if universal else {})}
    if fsdp:
        if world_size() == 1:
            raise UserError("fsdp=true shares weights among processes, and there is one; start more, or leave it out")
        return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}}
    return {"ddp_find_unused_parameters": False} if world_size() > 1 else {}


def leave() -> None:
    """Part from the other processes: a thread of gloo's that outlives the interpreter ends the process by a signal."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check(fsdp: bool, accelerator: "Accelerator") -> None:
    """Raises ``UserError`` where accelerate has quietly left out what was asked for."""
    if fsdp and not accelerator.is_fsdp2:
        raise UserError("fsdp=true needs GPUs, accelerate leaves it out on CPUs; use deepspeed=zero3, or neither")
