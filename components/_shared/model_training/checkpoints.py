"""Which checkpoint a killed training goes on from: the last one that is complete and belongs to the same run."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from slmkit import records
from slmkit.errors import UserError

_IDENTITY = "run.json"
_MARKER = "complete.json"


def prepare(folder: Path, identity: dict[str, Any]) -> Path | None:
    """Return the last complete checkpoint of the run that ``identity`` describes, and remove everything that is not.

    Weights of another base model, other data or other parameters must never be continued, so the identity of a run
    stands beside its checkpoints. Every process finds the same one; only the first removes what is of no use.
    """
    first = os.environ.get("RANK", "0") == "0"
    # 8 and 8.0 are one number, whether it came from a command line or not.
    identity = {name: float(value) if type(value) is int else value for name, value in identity.items()}
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / _IDENTITY
    same_run = kept.is_file() and kept.read_text(encoding="utf-8") == _text(identity)
    if first and not same_run:
        for path in _checkpoints(folder):
            print(f"{path.name} belongs to another run and is removed", file=sys.stderr)
            shutil.rmtree(path)
        kept.write_text(_text(identity), encoding="utf-8")
    for path in _checkpoints(folder) if same_run else ():
        reason = damage(path)
        if not reason:
            return path
        if first:
            print(f"{path.name} is not used: {reason}", file=sys.stderr)
            shutil.rmtree(path)
    return None


def mark_complete(checkpoint: Path, world_size: int, gradient_accumulation_steps: int) -> None:
    """Say that every process has written its part, as the last thing that is written."""
    files = {
        path.relative_to(checkpoint).as_posix(): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != _MARKER
    }
    content = {
        "world_size": world_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "file_bytes": files,
    }
    with records.whole_file(checkpoint / _MARKER) as partial:
        partial.write_text(_text(content), encoding="utf-8")


def damage(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be continued; None when it can."""
    from safetensors import SafetensorError, safe_open

    try:
        marker = json.loads((checkpoint / _MARKER).read_text(encoding="utf-8"))
        for name, num_bytes in marker["file_bytes"].items():
            file = checkpoint / name
            if file.stat().st_size != num_bytes:
                return f"{name} is damaged"
            if file.suffix == ".safetensors":
                with safe_open(file, framework="numpy"):
                    pass
            elif file.suffix in (".pt", ".pth", ".bin"):
                with zipfile.ZipFile(file) as archive:
                    if archive.testzip():
                        return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"it was not written to its end ({Path(error.filename).name} is missing)"
    except (OSError, ValueError, KeyError, SafetensorError, zipfile.BadZipFile) as error:
        return f"incomplete or damaged ({error})"
    return None


def gradient_accumulation_steps(checkpoint: Path | None, asked: int, world_size: int) -> int:
    """The accumulation that keeps the batch of an optimizer step as it was before the number of processes changed.

    Raises ``UserError`` where the number of processes does not divide it.
    """
    if checkpoint is None:
        return asked
    before = json.loads((checkpoint / _MARKER).read_text(encoding="utf-8"))
    rows = before["world_size"] * before["gradient_accumulation_steps"]
    if rows % world_size:
        raise UserError(
            f"{checkpoint.name} was written by {before['world_size']} processes with gradient_accumulation_steps="
            f"{before['gradient_accumulation_steps']}: {rows} batches an optimizer step, which {world_size} processes "
            "cannot share; go on with a number of processes that divides it, or start anew with other checkpoints"
        )
    return rows // world_size


def needs_conversion(checkpoint: Path | None, world_size: int) -> bool:
    """Whether DeepSpeed wrote the checkpoint with another number of processes, which it loads in one form only."""
    if checkpoint is None or not (checkpoint / "latest").is_file():
        return False
    return json.loads((checkpoint / _MARKER).read_text(encoding="utf-8"))["world_size"] != world_size


def convert(checkpoint: Path) -> None:
    """Add DeepSpeed's universal form to a checkpoint (Lian et al. 2024, arXiv 2406.18820), as one process."""
    tag = (checkpoint / "latest").read_text(encoding="utf-8").strip()
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--input_folder", str(checkpoint / tag), "--output_folder", str(checkpoint / f"{tag}_universal")]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise UserError(
            f"{checkpoint.name} cannot be read by another number of processes than wrote it ({reason[0]}); go on with "
            f"{json.loads((checkpoint / _MARKER).read_text(encoding='utf-8'))['world_size']}"
        )


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: -int(path.name.rpartition("-")[2]))


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
