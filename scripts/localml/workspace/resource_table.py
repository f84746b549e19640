"""Who answers which kind of resource, beside assets and jobs."""

from collections.abc import Callable
from typing import Any

from localml.workspace.arm import Place
from localml.workspace.blobs import Blobs
from localml.workspace.computes_api import Computes
from localml.workspace.data_access_api import Connections, Datastores
from localml.workspace.endpoints_api import OnlineEndpoints
from localml.workspace.registries_api import Registries
from localml.workspace.resource_store import ResourceStore
from localml.workspace.schedules_api import Schedules
from localml.workspace.settings import Settings

# method, place, query and body of a call to its answer and status; None leaves the call to the others.
Handler = Callable[[str, Place, dict[str, str], Any], tuple[Any, int] | None]


def handlers(store: ResourceStore, blobs: Blobs, known: Settings, endpoints: OnlineEndpoints) -> dict[str, Handler]:
    """By the first segment after the workspace or registry; "" is the workspace or registry itself."""
    registries = Registries(store, blobs, known)
    named = (Computes(store), Connections(store), Datastores(store, blobs), Schedules(store))
    return {
        "": registries.registry,
        "tempdatarefs": registries.upload,
        "datarefs": registries.upload,
        "onlineEndpoints": endpoints.answer,
        **{resources.kind: resources.answer for resources in named},
    }
