"""A model version before and after it is registered."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ALIASES = CANDIDATE, CHAMPION = "candidate", "champion"


@dataclass(frozen=True)
class ModelVersion:
    """What is registered; ``tags['model_sha256']`` is how an earlier registration of the same content is known."""

    name: str
    path: Path
    description: str
    tags: Mapping[str, str]
    model_type: str = "custom_model"  # or mlflow_model


@dataclass(frozen=True)
class Registered:
    name: str
    version: str
    uri: str  # by which a job or a deployment names it
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    is_new: bool = False
