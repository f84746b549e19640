"""Fetch a model from the hub, or find one in a folder or an asset, and copy what belongs to it and nothing else."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

from slmkit import lineage
from slmkit.errors import UserError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Pickled weights (.bin, .pt) run code when they are loaded, so they are neither downloaded nor copied.
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
PATTERNS = ("*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*")
# Transformers would load the base model that an adapter's configuration names, in place of this one.
LEFT_OUT = (lineage.NAME, "adapter_config.json")


def patterns(trust_remote_code: bool) -> tuple[str, ...]:
    return (*PATTERNS, "*.py") if trust_remote_code else PATTERNS


def download(model_name: str, revision: str, trust_remote_code: bool) -> Path:
    """Fetch the model from the hub into its cache; the folder is named after the commit."""
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"{model_name!r} (revision {revision!r})"
    by_hand = (
        f"run `hf download {model_name} --revision {revision} --local-dir FOLDER` where there is a network and give "
        "FOLDER as model_folder"
    )
    try:
        # Only the top folder, and no second copy of the weights in the form of their makers.
        return Path(
            snapshot_download(
                model_name,
                revision=revision,
                allow_patterns=["*.safetensors", *patterns(trust_remote_code)],
                ignore_patterns=["*/*", "consolidated*"],
            )
        )
    except HFValidationError:
        raise UserError(
            f"{what} is no Hugging Face id; give owner/name, or 'tiny', or an asset (azureml:...) as model_folder"
        ) from None
    except GatedRepoError:
        raise UserError(f"{what} is gated: accept its terms on the hub and set HF_TOKEN, or {by_hand}") from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise UserError(f"{what} is not on the hub; check model_name and revision") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise OSError(error.errno, error.strerror, constants.HF_HUB_CACHE) from error
        raise UserError(
            f"{what} cannot be fetched from the hub and is not in its cache {constants.HF_HUB_CACHE} "
            f"({type(error).__name__}); {by_hand}, or use model_name=tiny"
        ) from None


def copy_folder(source: Path, target: Path, trust_remote_code: bool) -> None:
    """Copy weights and tokenizer, which a model asset keeps in folders below.

    Azure's registries use MLflow's layout: ``mlflow_model_folder`` with ``model`` and ``components/tokenizer``, or in
    older models with ``data/config``, ``data/model`` and ``data/tokenizer``.
    """
    source = source.resolve()
    model = _model_folder(source)
    tokenizer = model if (model / "tokenizer_config.json").is_file() else _tokenizer_folder(source)
    files = [
        file
        for folder in dict.fromkeys((tokenizer, model))  # of what is in both, the model's is kept
        for pattern in patterns(trust_remote_code)
        for file in sorted(folder.glob(pattern))
        if file.name not in LEFT_OUT and file.is_file()
    ]
    for file in [*files, *_weight_files(model)]:
        _copy(file, target / file.name, _bounds(source))


def _model_folder(source: Path) -> Path:
    if (source / "config.json").is_file():
        return source
    found = _folders_with(source, "config.json")
    folders = [folder for folder in found if any(p.suffix in (".safetensors", *PICKLED) for p in folder.iterdir())]
    if len(folders or found) == 1:
        return (folders or found)[0]
    if folders or found:
        names = ", ".join(str(folder.relative_to(source)) for folder in folders or found)
        raise UserError(f"{source}: more than one model ({names}); give the folder of one")
    if _folders_with(source, "adapter_config.json"):
        raise UserError(f"{source}: an adapter without its base model; give a model that the adapter was merged into")
    raise UserError(f"{source}: no config.json here or in a folder below; give a model in Hugging Face layout")


def _tokenizer_folder(source: Path) -> Path:
    found = _folders_with(source, "tokenizer_config.json")
    folders = [folder for folder in found if folder.name == "tokenizer"] or found
    if len(folders) != 1:
        raise UserError(
            f"{source}: {len(folders) or 'no'} tokenizer_config.json; the model must come with its tokenizer"
        )
    return folders[0]


def _folders_with(source: Path, name: str) -> list[Path]:
    return sorted(Path(folder) for folder, _, names in os.walk(source) if name in names)  # follows no links


def _weight_files(folder: Path) -> list[Path]:
    """The files that Transformers loads: the shards that the index names, or the one without an index."""
    if not (folder / INDEX).is_file():
        if (folder / WEIGHTS).is_file():
            return [folder / WEIGHTS]
        if any(path.suffix in PICKLED for path in folder.iterdir()):
            raise UserError(
                f"{folder}: no safetensors weights; pickled ones (.bin, .pt) are refused because loading them can run "
                "code: choose a version in safetensors, or convert them with save_pretrained where you trust them"
            )
        raise UserError(f"{folder}: no {WEIGHTS}, and no {INDEX} that names its parts; copy the whole model")
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{folder / INDEX}: no weight_map; copy the model again")
    names = sorted(set(map(str, weight_map.values())))
    if outside := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
        raise UserError(f"{folder / INDEX} names {outside[0]!r}, which is no safetensors file of its folder")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"{folder}: {', '.join(missing)} of its index is missing; copy the whole model")
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); copy the model again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object; copy the model again")
    return content


def _bounds(source: Path) -> Path:
    """What no link may lead out of; a snapshot in the hub's cache consists of links to the blobs beside it."""
    cached = source.parent.name == "snapshots" and source.parents[1].name.startswith("models--")
    return source.parents[1] if cached else source


def _copy(file: Path, target: Path, bounds: Path) -> None:
    if not file.resolve().is_relative_to(bounds):
        raise UserError(f"{file} is a link that leads out of the model's folder; put the file itself there (cp -L)")
    try:
        shutil.copyfile(file, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # Python names the file that was read
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
