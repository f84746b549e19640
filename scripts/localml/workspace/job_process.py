"""The process of one job of a local workspace: its files from the blobs, the run, its outputs back to the blobs.

Started by ``jobs`` as ``python -m localml.workspace.job_process ROOT JOB``; what it finds it writes to the store.
"""

import os
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import psutil
from azure.core.exceptions import ServiceRequestError

from localml import jobfile
from localml.errors import RunError
from localml.runner import StepError
from localml.session import Options, Outcome, run
from localml.workspace import job_logs, registered_models, settings, tracking_server
from localml.workspace.arm import envelope, now
from localml.workspace.blobs import ARTIFACTS_CONTAINER, DEFAULT_CONTAINER, Blobs
from localml.workspace.job_files import JobFiles
from localml.workspace.jobs import close
from localml.workspace.resource_store import ResourceStore
from localml.workspace.workspace_api import SCOPE

_STATES = {"running": "Running", "finished": "Completed", "reused": "Completed", "failed": "Failed"}
_STATES |= {"terminated": "Canceled", "canceled": "Canceled", "not run": "NotStarted"}
_MODEL_TYPES = ("custom_model", "mlflow_model", "triton_model")


def main(root: Path, name: str) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    store = ResourceStore(settings.database(root))
    if not _take(store, name):
        return 0
    known = settings.read(root)
    blobs = Blobs(known.blob_port, known.blob_key, settings.authority(root))
    end: tuple[str, ...] = ("Completed",)
    try:
        _run(store, blobs, root, name)
    except KeyboardInterrupt:
        end = ("Canceled",)
    except (RunError, StepError) as failure:
        end = ("Failed", " ".join(str(failure).split()))
        print(f"error: {end[1]}", flush=True)
        if isinstance(failure, StepError):
            print(failure.details(), flush=True)
    except Exception as failure:
        if isinstance(failure, ServiceRequestError) and not settings.is_served(root):
            print("the workspace is down; its next start goes on with what is finished", flush=True)
            return 1
        traceback.print_exc()
        end = ("Failed", f"{type(failure).__name__}: {failure}", "ServiceError")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is over
    try:
        job_logs.upload(store, blobs, root, name, ARTIFACTS_CONTAINER, f"ExperimentRun/dcid.{name}")
        registered_models.publish(root, store, blobs)
    except Exception:  # neither makes another job of it
        traceback.print_exc()
    close(store, name, *end)
    return 0 if end[0] == "Completed" else 1


def _take(store: ResourceStore, name: str) -> bool:
    """Whether the job is for this process: one that was canceled meanwhile is for nobody."""
    mine = {"pid": os.getpid(), "created": psutil.Process().create_time()}
    with store.transaction():
        job = store.get("jobs", name)
        if job is None or job["properties"]["status"] != "NotStarted":
            return False
        store.change("jobs", name, {"status": "Preparing"})
        store.change("runs", name, {"process": mine, "started": now()})
    return True


def _enter(store: ResourceStore, name: str, status: str) -> None:
    """The next status, unless somebody wants the job to end."""
    with store.transaction():
        if store.get("jobs", name)["properties"]["status"] == "CancelRequested":
            raise KeyboardInterrupt
        store.change("jobs", name, {"status": status})


def _run(store: ResourceStore, blobs: Blobs, root: Path, name: str) -> None:
    jobfile.quiet()
    with tracking_server.running(root) as url:
        submitted = store.get("submissions", name)
        folder = root / "workspace" / "jobs" / name
        files = JobFiles(store, blobs, folder, root)
        path = files.write(store.get("jobs", name) | {"properties": submitted})
        if (folder / "attempted").exists():
            shutil.rmtree(root / "jobs" / name, ignore_errors=True)  # links to what an attempt finished that was killed
        (folder / "attempted").touch()

        os.environ["LOCALML_TRACKING_SERVER"] = url.result()

        def on_state(step: str, state: str, seconds: float) -> None:
            with store.transaction():
                before = store.get("steps", name, step) or {"name": step, "started": now()}
                known = {"status": _STATES[state], "reused": state == "reused", "seconds": seconds, "at": now()}
                store.put("steps", name, step, before | known)

        _enter(store, name, "Running")
        experiment = submitted.get("experimentName") or "Default"
        options = Options(experiment=experiment, folder=folder, root=root, name=name, on_state=on_state, stream=True)
        outcome = run(lambda: jobfile.load(path), options)
        _enter(store, name, "Finalizing")
        _keep_outputs(store, blobs, name, outcome)


def _keep_outputs(store: ResourceStore, blobs: Blobs, name: str, outcome: Outcome) -> None:
    """Each output at the place that Azure ML gives it by default; those with a name become assets."""
    places: dict[str, str] = {}
    for port, path in outcome.outputs.items():
        source = path.resolve()
        below = f"azureml/{name}/{port}"
        place = f"{below}/{source.name}" if source.is_file() else f"{below}/"
        blobs.upload(source, DEFAULT_CONTAINER, place)
        places[port] = f"azureml://datastores/workspaceblobstore/paths/{place}"
    store.change("runs", name, {"output_uris": places})
    for port, output in (store.get("submissions", name).get("outputs") or {}).items():
        if output.get("assetName") and port in places:
            version = _register(store, output, f"azureml:/{SCOPE}/{places[port].removeprefix('azureml://')}", name)
            print(f"output {port} is azureml:{output['assetName']}:{version} of the workspace", flush=True)


def _register(store: ResourceStore, output: dict[str, Any], uri: str, job: str) -> str:
    """The version of the asset that an output of a job becomes; once, however often the job is taken up."""
    is_model = output["jobOutputType"] in _MODEL_TYPES
    kind, key = ("models", "modelUri") if is_model else ("data", "dataUri")
    type_: dict[str, Any] = {"modelType" if is_model else "dataType": output["jobOutputType"]}
    if is_model:
        type_["flavors"] = {}
    with store.transaction():
        versions = store.versions(kind, output["assetName"])
        for version, known in versions:
            if known["properties"][key] == uri:
                return version
        numbers = [int(version) for version, _ in versions if version.isdecimal()]
        version = output.get("assetVersion") or str(max(numbers, default=0) + 1)
        place = f"{SCOPE}/{kind}/{output['assetName']}/versions/{version}"
        properties = {key: uri, **type_, "tags": {}, "properties": {}, "isArchived": False, "jobName": job}
        made = envelope(place, kind, properties | {"description": output.get("description")})
        if not store.add(kind, output["assetName"], version, made):
            raise RunError(f"{kind} {output['assetName']}:{version} is there already; a version never changes")
    return version


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
