"""Who answers which kind of resource, beside the assets, jobs, computes and datastores of every workspace."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from localml.workspace.arm import Place
from localml.workspace.blobs import Blobs
from localml.workspace.registries_api import Registries
from localml.workspace.resource_store import ResourceStore
from localml.workspace.settings import Settings

# method, place, query and body of a call to its answer and status; None leaves the call to the others.
Handler = Callable[[str, Place, dict[str, str], Any], tuple[Any, int] | None]


def handlers(store: ResourceStore, blobs: Blobs, known: Settings, root: Path) -> dict[str, Handler]:
    """By the first segment after the workspace or registry; "" is the workspace or registry itself."""
    registries = Registries(store, blobs, known)
    return {"": registries.registry, "tempdatarefs": registries.upload, "datarefs": registries.upload}
