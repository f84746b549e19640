"""The next cycle in the Azure ML workspace of this job: a job made of a registered pipeline component."""

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retraining_job import BY_SERVICE, FAILED, REFUSED, Outcome, Wanted, is_uri

from model_registry.azure_service import ENDED, one_line
from slmkit.errors import UserError

IN_WORKSPACE = re.compile(r"(?:azureml:)?(?P<name>(?!azureml:)[\w.-]+)(?::(?P<version>[\w.-]+)|@(?P<label>[\w-]+))")
IN_REGISTRY = re.compile(
    r"azureml://registries/(?P<registry>[\w.-]+)/components/(?P<name>[\w.-]+)"
    r"/(?:versions/(?P<version>[\w.-]+)|labels/(?P<label>[\w-]+))"
)
POLL_SECONDS = 30.0
PATIENCE_SECONDS = 300.0  # without an answer, while waiting
FOR_NOW = (401, 408, 429, 500, 502, 503, 504)


class NoAnswerError(UserError):
    """No sign-in, no network, or no answer from Azure for now."""


@dataclass(frozen=True)
class Place:
    """Where the job runs."""

    compute: str
    experiment_name: str


def start(connect: Callable[..., Any], wanted: Wanted, place: Place, *, dry_run: bool, wait: bool) -> Outcome:
    """``connect`` gives the client of the workspace, or of a registry by its name."""
    client = connect()
    job, started, why = _known(client, wanted), False, "there is a job for this decision already"
    if job is None:
        wanted_job = _job(_component(connect, client, wanted.pipeline), wanted, place)
        if dry_run:
            return Outcome(False, "dry_run: it would be submitted", wanted.name)
        job, started = _submit(client, wanted, wanted_job)
        why = "submitted" if started else why
    if wait and not dry_run:
        job = _ended(client, job)
    endpoint = _endpoint(client, job) if wait and not dry_run else None
    return Outcome(started, why, wanted.name, job.studio_url, _status(job), endpoint)


def _known(client: Any, wanted: Wanted) -> Any:
    """The job of this decision, if an earlier start has made it."""
    from azure.core.exceptions import ResourceNotFoundError

    with _one_line():
        try:
            job = client.jobs.get(wanted.name)
        except ResourceNotFoundError:
            return None
    decision_id = wanted.tags["decision_id"]
    if (job.tags or {}).get("decision_id") != decision_id:
        raise UserError(f"job {wanted.name} is there, but not for the decision {decision_id}; archive it", BY_SERVICE)
    return job


def _component(connect: Callable[..., Any], client: Any, pipeline: str) -> Any:
    from azure.core.exceptions import ResourceNotFoundError

    found = IN_REGISTRY.fullmatch(pipeline) or IN_WORKSPACE.fullmatch(pipeline)
    if not found:
        raise UserError(f"pipeline {pipeline!r:.120}: write azureml:NAME:VERSION or NAME@latest", REFUSED)
    place = connect(found["registry"]) if "registry" in found.groupdict() else client
    with _one_line():
        try:
            component = place.components.get(found["name"], version=found["version"], label=found["label"])
        except ResourceNotFoundError:
            raise UserError(
                f"pipeline {pipeline}: not registered; run az ml component create -f on its file", REFUSED
            ) from None
    if component.type != "pipeline":
        raise UserError(f"pipeline {pipeline}: a {component.type} component; register a pipeline component", REFUSED)
    return component


def _job(component: Any, wanted: Wanted, place: Place) -> Any:
    """The inputs are held against those of the component: Azure ML drops what it does not know."""
    from azure.ai.ml import Input
    from azure.ai.ml.entities import PipelineJob, PipelineJobSettings

    ports = component.inputs
    if unknown := sorted(wanted.inputs.keys() - ports.keys()):
        raise UserError(f"pipeline {component.name} has no input {unknown[0]!r}; it has: {', '.join(ports)}", REFUSED)
    needed = {name for name, port in ports.items() if not port.optional and port.default is None}
    if absent := sorted(needed - wanted.inputs.keys()):
        raise UserError(f"pipeline {component.name} needs the input {absent[0]!r}; give it in pipeline_inputs", REFUSED)
    inputs = {}
    for name, value in wanted.inputs.items():
        is_data = isinstance(value, dict)
        if is_data != (ports[name].type not in ("string", "integer", "number", "boolean")):
            raise UserError(f"pipeline {component.name}: the input {name!r} is of type {ports[name].type}", REFUSED)
        if is_data and not is_uri(value["path"]) and not value["path"].startswith("azureml:"):
            raise UserError(f"{name}: {value['path']!r:.120} is not in Azure; give a URI or azureml:NAME:N", REFUSED)
        inputs[name] = Input(type=ports[name].type, path=value["path"]) if is_data else value
    return PipelineJob(
        component=component.id,
        name=wanted.name,
        display_name=f"Retraining with {component.name}",
        experiment_name=place.experiment_name,
        inputs=inputs,
        tags=wanted.tags,
        settings=PipelineJobSettings(default_compute=place.compute.removeprefix("azureml:")),
    )


def _submit(client: Any, wanted: Wanted, job: Any) -> tuple[Any, bool]:
    """The job, and whether it is ours: of two that submit at once, the service takes one."""
    from azure.core.exceptions import HttpResponseError

    with _one_line():
        try:
            return client.jobs.create_or_update(job), True
        except HttpResponseError as error:
            if error.status_code != 409 and "already exist" not in str(error):
                raise
    return _known(client, wanted), False


def _ended(client: Any, job: Any) -> Any:
    """The job once it has ended. It goes on without us, so an answer that is lost is asked for again."""
    lost = None
    while _status(job) not in ENDED:
        now = time.monotonic()
        try:
            with _one_line():
                job = client.jobs.get(job.name)
        except NoAnswerError as error:
            if lost is None:
                print(f"{job.name}: {error}; trying again", file=sys.stderr)
                lost = now
            if now - lost > PATIENCE_SECONDS:
                raise UserError(
                    f"{error}; {job.name} goes on: see {job.studio_url}, or start this step again to wait for it",
                    BY_SERVICE,
                ) from None
        else:
            lost = None
        if _status(job) not in ENDED:
            time.sleep(POLL_SECONDS)
    if _status(job) != "Completed":
        raise UserError(f"{job.name} ended as {_status(job)}; see {job.studio_url}", FAILED)
    return job


def _status(job: Any) -> str | None:
    return job.status and str(getattr(job.status, "value", job.status))  # it may be a member of an enum


def _endpoint(client: Any, job: Any) -> bytes | None:
    """The one file of the output of that name."""
    if "endpoint" not in (job.outputs or {}):
        return None
    with tempfile.TemporaryDirectory() as folder:
        with _one_line():
            client.jobs.download(job.name, download_path=Path(folder), output_name="endpoint")
        files = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != "lineage.json"]
        return files[0].read_bytes() if len(files) == 1 else None


@contextmanager
def _one_line() -> Iterator[None]:
    """Azure's errors for the log."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError

    try:
        yield
    except (AzureError, MlException) as error:
        status = getattr(error, "status_code", None)
        advice = "; give the identity of the job the role AzureML Data Scientist" if status in (401, 403) else ""
        kind = NoAnswerError if _is_for_now(error) else UserError
        raise kind(f"Azure ML: {one_line(getattr(error, 'message', None) or error)}{advice}", BY_SERVICE) from None


def _is_for_now(error: Exception) -> bool:
    from azure.core import exceptions

    no_answer = exceptions.ServiceRequestError | exceptions.ServiceResponseError
    status = getattr(error, "status_code", None)
    is_cut_off = isinstance(error, exceptions.DecodeError) or (
        type(error) is exceptions.HttpResponseError and status is None
    )
    is_no_sign_in = isinstance(error, exceptions.ClientAuthenticationError)  # also of a credential without a token
    return isinstance(error, no_answer) or is_cut_off or is_no_sign_in or status in FOR_NOW
