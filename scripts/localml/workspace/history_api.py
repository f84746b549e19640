"""The run history of a local workspace: what `jobs.stream`, `jobs.download` and the list of child jobs ask for."""

import re
from pathlib import Path
from typing import Any

from localml.workspace.arm import invalid, not_found
from localml.workspace.job_logs import EXECUTION_LOG, STEP_LOG, execution_log, step_log
from localml.workspace.jobs import ENDED, Jobs
from localml.workspace.resource_store import ResourceStore
from localml.workspace.studio import Studio

# /history/v1.0/<scope>/[experiments/E/]runs/R/...; the scope is that of the workspace
_PATH = re.compile(r"/(?P<service>history|data|modelregistry)/v1\.0/subscriptions/.*?/workspaces/[^/]+/(?P<tail>.*)")
_RUN = re.compile(r"(?:experiments/[^/]+/|experimentids/[^/]+/)?runs/(?P<run>[^/]+)(?:/(?P<what>\w+))?")


class History:
    def __init__(self, store: ResourceStore, jobs: Jobs, root: Path, url: str, studio: Studio) -> None:
        self._store, self._jobs, self._root, self._url, self._studio = store, jobs, root, url, studio

    def answer(self, method: str, path: str, body: Any) -> Any | None:
        """The answer, or None where the path is not one of run history."""
        found = _PATH.fullmatch(path)
        if not found:
            return None
        tail = found["tail"]
        if found["service"] != "history":
            return _resolved(found["service"], tail, body)
        if tail == "rundata":
            run = self._run((body or {}).get("runId", ""))
            return {"runMetadata": run, "runDefinition": {}, "jobSpecification": None}
        if not (of_run := _RUN.fullmatch(tail)):
            return None
        name, what = of_run["run"], of_run["what"]
        if what == "details":
            return self._details(name)
        if what == "children":
            return {"value": [self._step(name, step) for step in self._jobs.steps(name)]}
        if what is None and method == "PATCH":
            return self._change(name, body or {})
        return self._run(name) if what is None else None

    def _run(self, name: str) -> dict[str, Any]:
        """A job, or one of its steps, which is called JOB_STEP here."""
        if self._store.get("jobs", name) is None and (found := self._jobs.step(name)):
            return self._step(*found)
        properties, known = self._jobs.get(name)["properties"], self._jobs.run_of(name)
        outputs = {
            port: {"assetId": uri, "type": _asset_type(properties["outputs"][port]["jobOutputType"])}
            for port, uri in known.get("output_uris", {}).items()
        }
        return {
            "runId": name,
            "rootRunId": name,
            "experimentId": properties.get("experimentName"),
            "displayName": properties.get("displayName"),
            "description": properties.get("description"),
            "status": properties["status"],
            "runType": "azureml.PipelineRun",
            "tags": properties.get("tags") or {},
            "properties": properties.get("properties") or {},
            "outputs": outputs,
            **_times(known.get("started"), known.get("ended")),
        }

    @staticmethod
    def _step(job: str, step: dict[str, Any]) -> dict[str, Any]:
        ended = step["at"] if step["status"] in ENDED else None
        return {
            "runId": f"{job}_{step['name']}",
            "parentRunId": job,
            "rootRunId": job,
            "displayName": step["name"],
            "status": step["status"],
            "runType": "azureml.StepRun",
            "tags": {},
            "properties": {"azureml.isreused": "true"} if step["reused"] else {},
            **_times(step["started"], ended),
        }

    def _details(self, name: str) -> dict[str, Any]:
        run = self._run(name)
        details = {key: run[key] for key in ("runId", "status", "tags", "properties")}
        details |= {"logFiles": {}, "warnings": [], **_times(run.get("startTimeUtc"), run.get("endTimeUtc"))}
        is_step = "parentRunId" in run
        details["logFiles"] = {STEP_LOG if is_step else EXECUTION_LOG: self._log_url(name)}
        if not is_step and (error := self._jobs.run_of(name).get("error")):
            details["error"] = {"error": error}
        return details

    def _change(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Tags and the other little things that may change of a run."""
        fields = {"displayName": "displayName", "description": "description", "hidden": "isArchived"}
        changes = {ours: body[theirs] for theirs, ours in fields.items() if body.get(theirs) is not None}
        if body.get("tags"):
            changes["tags"] = (self._jobs.get(name)["properties"].get("tags") or {}) | body["tags"]
        if changes:
            self._store.change("jobs", name, changes)
        return self._run(name)

    def _log_url(self, run: str) -> str:
        """Where a log is read without a sign-in, as a blob with a signature is on Azure."""
        return f"{self._url}/logs/{run}?sig={self._studio.signature(run)}"

    def log(self, run: str, signature: str) -> str:
        self._studio.check(run, signature)
        if self._store.get("jobs", run):
            return execution_log(self._root, run)
        if (found := self._jobs.step(run)) is None:
            raise not_found(f"Run {run}")
        return step_log(self._root, found[0], found[1]["name"])


def _resolved(service: str, tail: str, body: Any) -> Any | None:
    """Where the data behind assets lie: our asset ids are their addresses already."""
    if not tail.endswith("/batchGetResolvedUris"):
        return None
    wanted = (body or {}).get("values")
    if not isinstance(wanted, list):
        raise invalid("values: expected a list of asset ids.")
    key = "uri" if service == "data" else "path"
    return {"values": {asset: {key: asset, "type": "UriFolder"} for asset in wanted}}


def _asset_type(output_type: str) -> str:
    """A model goes as a folder: azure-ai-ml 1.35 has a bug by which it cannot ask where a model lies."""
    return "uri_folder" if output_type.endswith("_model") else output_type


def _times(started: str | None, ended: str | None) -> dict[str, str]:
    times = {"createdUtc": started, "startTimeUtc": started, "endTimeUtc": ended}
    return {name: time for name, time in times.items() if time}
