"""Bring a base model into the pipeline: from the hub, from a folder or model asset, or the built-in tiny model."""

import json
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
TINY = "tiny"
# Pickled weights (.bin, .pt) run code when they are loaded, so they are neither downloaded nor copied.
PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True)
class Args:
    base_model: Path
    model_name: str = TINY
    model_folder: Path | None = None
    revision: str = "main"
    trust_remote_code: bool = False
    seed: int = 42


def run(args: Args) -> dict[str, float]:
    # A step's log shows lines, not bars.
    os.environ.setdefault("TQDM_DISABLE", "1")
    started = time.perf_counter()
    with records.whole_folder(args.base_model) as folder:
        if args.model_folder:
            source = str(args.model_folder)
            copy_folder(args.model_folder, folder, args.trust_remote_code)
        elif args.model_name == TINY:
            source = "tiny, trained on the spot"
            make_tiny(args.seed, folder)
        else:
            source = f"{args.model_name} at {download(args, folder)}"
        check_weights(folder, source)
        num_parameters = check_model(folder, source, args.trust_remote_code)
        num_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    tracking.log_params({"source": source, "trust_remote_code": args.trust_remote_code})
    metrics = {
        "model/num_parameters": num_parameters,
        "model/size_bytes": num_bytes,
        "perf/import_seconds": time.perf_counter() - started,
    }
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    print(f"{source}: {num_parameters:,} parameters, {num_bytes / 2**20:.1f} MiB")
    if args.trust_remote_code:
        print("trust_remote_code is on: Python code that came with the model was run")
    return metrics


def make_tiny(seed: int, folder: Path) -> None:
    # Two threads that spin while they wait for each other are slower than one as soon as another step runs beside.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import tiny_model

    model, tokenizer = tiny_model.make(seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def patterns(trust_remote_code: bool) -> tuple[str, ...]:
    return (*PATTERNS, "*.py") if trust_remote_code else PATTERNS


def download(args: Args, folder: Path) -> str:
    """Fetch the model from the hub; returns the commit."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"{args.model_name!r} (revision {args.revision!r})"
    try:
        cached = snapshot_download(
            args.model_name, revision=args.revision, allow_patterns=patterns(args.trust_remote_code)
        )
    except HFValidationError:
        raise UserError(f"{what} is no Hugging Face id; give owner/name, or 'tiny'") from None
    except GatedRepoError:
        raise UserError(
            f"{what} is gated: accept its terms on the hub and log in, or pass its folder as model_folder"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise UserError(f"{what} is not on the hub; check model_name and revision") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise UserError(
            f"{what} cannot be fetched from the hub and is not in its local cache ({type(error).__name__}); connect to "
            "the network, or pass the folder of the model as model_folder, or use model_name=tiny"
        ) from None
    copy_folder(Path(cached), folder, args.trust_remote_code)
    return Path(cached).name


def copy_folder(source: Path, target: Path, trust_remote_code: bool) -> None:
    """Copy weights and tokenizer; a model asset keeps them in folders below (``model``, ``data/model``, ...)."""
    weights = only_folder_with(source, "config.json", "give one model in Hugging Face layout")
    tokenizer = weights
    if not (weights / "tokenizer_config.json").is_file():
        tokenizer = only_folder_with(source, "tokenizer_config.json", "the model must come with its tokenizer")
    for folder in dict.fromkeys((tokenizer, weights)):
        for pattern in patterns(trust_remote_code):
            for file in sorted(folder.glob(pattern)):
                if file.name != lineage.NAME:
                    shutil.copyfile(file, target / file.name)


def only_folder_with(source: Path, name: str, advice: str) -> Path:
    if (source / name).is_file():
        return source
    found = sorted({path.parent for path in source.rglob(name)}) if source.is_dir() else []
    if len(found) != 1:
        raise UserError(f"{source}: {len(found) or 'no'} folder{'s' * (len(found) != 1)} with {name}; {advice}")
    return found[0]


def check_weights(folder: Path, source: str) -> None:
    """Every safetensors file is whole, and every shard that the index names is there."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{source}: no safetensors weights; pickled .bin or .pt files are refused because they can run code, "
            "convert them with save_pretrained(safe_serialization=True)"
        )
    index = folder / "model.safetensors.index.json"
    named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
    if missing := named - {file.name for file in files}:
        raise UserError(f"{source}: {', '.join(sorted(missing))} of its index is missing; copy the whole model")
    for file in files:
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{source}: {file.name} is damaged or cut short ({error}); copy the model again") from None


def check_model(folder: Path, source: str, trust_remote_code: bool) -> int:
    """Configuration and tokenizer load, and there is a chat template. Returns the number of parameters."""
    import transformers
    from safetensors import safe_open

    try:
        transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        line = " ".join(str(error).split())[:300]
        raise UserError(f"{source}: Transformers {transformers.__version__} cannot read the model ({line})") from None
    if not tokenizer.chat_template:
        raise UserError(f"{source}: the tokenizer has no chat template; choose the instruction-tuned variant")
    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as weights:
            count += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
