"""Which checkpoint a killed training goes on from: the last one that is complete and belongs to the same run."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

_IDENTITY = "run.json"


def prepare(folder: Path, identity: dict[str, Any]) -> Path | None:
    """Return the last complete checkpoint of the run that ``identity`` describes, and remove everything that is not.

    Weights of another base model, other data or other parameters must never be continued, so the identity of a run
    stands beside its checkpoints.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / _IDENTITY
    if not kept.is_file() or kept.read_text(encoding="utf-8") != _text(identity):
        for path in _checkpoints(folder):
            print(f"{path.name} belongs to another run and is removed", file=sys.stderr)
            shutil.rmtree(path)
        kept.write_text(_text(identity), encoding="utf-8")
    for path in _checkpoints(folder):
        if reason := damage(path):
            print(f"{path.name} is not used: {reason}", file=sys.stderr)
            shutil.rmtree(path)
        else:
            return path
    return None


def damage(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be continued; None when it can. The Trainer writes its state file last."""
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        weights = list(checkpoint.glob("*.safetensors"))
        if not weights:
            return "it holds no weights"
        for file in weights:
            with safe_open(file, framework="numpy"):
                pass
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            with zipfile.ZipFile(checkpoint / name) as archive:
                if archive.testzip():
                    return f"{name} is damaged"
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
        return f"incomplete or damaged ({error})"
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: -int(path.name.rpartition("-")[2]))


def _text(identity: dict[str, Any]) -> str:
    return json.dumps(identity, indent=2, sort_keys=True) + "\n"
