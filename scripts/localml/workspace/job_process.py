"""The process of one job of a local workspace: its files from the blobs, the run, its outputs back to the blobs.

Started by ``jobs`` as ``python -m localml.workspace.job_process ROOT JOB``; what it finds it writes to the store.
"""

import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from localml import jobfile
from localml.errors import RunError
from localml.runner import StepError
from localml.session import Options, Outcome, run
from localml.workspace import settings
from localml.workspace.arm import now
from localml.workspace.blobs import DEFAULT_CONTAINER, Blobs
from localml.workspace.job_files import JobFiles
from localml.workspace.resource_store import ResourceStore

_STATES = {"running": "Running", "finished": "Completed", "reused": "Completed", "failed": "Failed"}
_STATES |= {"terminated": "Canceled", "canceled": "Canceled", "not run": "NotStarted"}


def main(root: Path, name: str) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    store = ResourceStore(settings.database(root))
    known = settings.read(root)
    blobs = Blobs(known.blob_port, known.blob_key, settings.ca_bundle(root))
    error: dict[str, str] | None = None
    status = "Completed"
    try:
        outcome = _run(store, blobs, root, name)
        _upload(store, blobs, name, outcome)
    except KeyboardInterrupt:
        status = "Canceled"
    except (RunError, StepError) as failure:
        status, error = "Failed", {"code": "UserError", "message": " ".join(str(failure).split())}
        print(f"error: {error['message']}", flush=True)
        if isinstance(failure, StepError):
            print(failure.details(), flush=True)
    except Exception as failure:
        traceback.print_exc()
        status, error = "Failed", {"code": "ServiceError", "message": f"{type(failure).__name__}: {failure}"}
    store.change("jobs", name, {"status": status, "ended": now(), **({"error": error} if error else {})})
    return 0 if status == "Completed" else 1


def _run(store: ResourceStore, blobs: Blobs, root: Path, name: str) -> Outcome:
    jobfile.quiet()
    resource = store.get("jobs", name)
    submitted = resource["properties"]["submitted"]
    folder = root / "workspace" / "jobs" / name
    path = JobFiles(store, blobs, folder, root / "workspace" / "snapshots").write(resource | {"properties": submitted})

    def on_state(step: str, state: str, seconds: float) -> None:
        before = store.get("steps", name, step) or {"name": step, "started": now()}
        store.put("steps", name, step, before | {"status": _STATES[state], "reused": state == "reused", "at": now()})

    store.change("jobs", name, {"status": "Running"})
    experiment = submitted.get("experimentName") or "Default"
    options = Options(experiment=experiment, folder=folder, root=root, name=name, on_state=on_state)
    return run(lambda: jobfile.load(path), options)


def _upload(store: ResourceStore, blobs: Blobs, name: str, outcome: Outcome) -> None:
    """Each output at the place that Azure ML gives it by default."""
    store.change("jobs", name, {"status": "Finalizing"})
    places: dict[str, Any] = {}
    for port, path in outcome.outputs.items():
        source = path.resolve()
        below = f"azureml/{name}/{port}"
        place = f"{below}/{source.name}" if source.is_file() else f"{below}/"
        blobs.upload(source, DEFAULT_CONTAINER, place)
        places[port] = f"azureml://datastores/workspaceblobstore/paths/{place}"
    store.change("jobs", name, {"output_uris": places})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
