#!/usr/bin/env python
"""Submit a pipeline job to an Azure ML workspace; the flags are those of `az ml job create`.

A name stands for one job: the same job submitted again is the one that is there, another one is refused. Waiting needs
no connection that lasts: interrupted, `submit.py --wait --name NAME` goes on.
"""

import argparse
import contextlib
import datetime
import gc
import io
import json
import re
import sys
import tempfile
import time
import traceback
import webbrowser
from pathlib import Path
from typing import Any

import localml.needs_venv  # noqa: F401 (before what a Python may lack)

# isort: split
import workspace_client
from localml import jobfile
from localml.errors import RunError
from localml.graph import component_of
from workspace_client import RefusedError, UnreachableError, in_one_line, silent

ENDED = ("Completed", "Failed", "Canceled", "NotResponding")
PATIENCE_SECONDS = 300  # without an answer, while waiting
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="submit.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="exit codes: 0 done, 1 the job failed or was canceled, 2 refused, 3 no sign-in or no network",
    )
    parser.add_argument("--file", "-f", type=Path, help="pipeline job YAML, for example pipelines/jobs/demo.yml")
    parser.add_argument(
        "--set", action="append", nargs="+", default=[], metavar="KEY=VALUE", help="update a value of the file"
    )
    parser.add_argument("--name", "-n", type=jobfile.job_name, help="name of the job; made up when not given")
    workspace_client.add_flags(parser)
    parser.add_argument("--wait", action="store_true", help="wait for its end; without --file for that of job --name")
    parser.add_argument("--stream", "-s", action="store_true", help="wait, and show what the job prints")
    parser.add_argument("--web", action="store_true", help="open the job in Studio")
    parser.add_argument("--download", nargs="+", default=[], metavar="OUTPUT", help="wait, then bring these outputs")
    parser.add_argument("--download-path", type=Path, default=Path(), help="where to, each in a folder of its name")
    parser.add_argument("--dry-run", action="store_true", help="check the file and show what would be sent")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)
    args.wait = bool(args.wait or args.stream or args.download)
    if args.file is None and (args.set or args.dry_run):
        parser.error("--set and --dry-run need --file, the job that they are about")
    if args.file is None and not (args.name and (args.wait or args.web)):
        parser.error("give --file, the job to submit, or --name with --wait, the one to wait for")
    return args


def main(argv: list[str] | None = None) -> int:
    """Submit the job, wait for it if asked to, and return the exit code."""
    args = _arguments(argv)
    try:
        return run(args)
    except (RunError, RefusedError, UnreachableError) as error:
        _report(args, error)
        return 3 if isinstance(error, UnreachableError) else 2
    except KeyboardInterrupt:
        print("submit.py: interrupted; a job that was submitted goes on", file=sys.stderr)
        return 130
    except Exception as error:  # whatever it is: one line
        _report(args, f"{type(error).__name__}: {error} (--debug shows the traceback)")
        return 2


def _report(args: argparse.Namespace, error: object) -> None:
    if args.debug:
        traceback.print_exc()
    print(f"submit.py: error: {' '.join(str(error).split())}", file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    job = jobfile.load(args.file, [setting for group in args.set for setting in group]) if args.file else None
    if job:
        job.name = args.name or job.name
        jobfile.check_bindings(job)
        _check_downloads(args, job)
    if args.dry_run:
        print(plan(args.file, job))
        return 0
    client = workspace_client.connect(args)
    job = submit(client, job) if job else _get(client, args.name)
    _check_downloads(args, job)
    print(f"{job.name}: {job.studio_url}", flush=True)
    if args.web:
        webbrowser.open(job.studio_url)
    if not args.wait:
        return 0
    if args.stream:
        _stream(client, job.name)
    job = wait(args, client, job.name)
    if job.status != "Completed":
        print(f"submit.py: error: job {job.name}: {_word(job.status)}{_reason(client, job)}", file=sys.stderr)
        return 1
    for output in args.download:
        print(f"{output}: {download(client, job.name, output, args.download_path)}")
    return 0


def submit(client: Any, job: Any) -> Any:
    """The job as the workspace has it."""
    from azure.ai.ml.entities._job.job_name_generator import generate_job_name

    job.name = job.name or generate_job_name()  # here, so that it is known where the answer is lost
    try:
        with in_one_line(str(job._source_path)), silent():
            made = client.jobs.create_or_update(job)
    except UnreachableError as error:
        raise UnreachableError(f"{error}; submit it again with --name {job.name}: it will be there once") from error
    print(f"submitted to workspace {client.workspace_name}")
    return made


def wait(args: argparse.Namespace, client: Any, name: str) -> Any:
    """The job once it has ended. An answer that is lost is asked for again, by a new client with a new sign-in."""
    status, began, lost = None, time.monotonic(), None
    while True:
        now = time.monotonic()
        try:
            client = client or workspace_client.connect(args)
            job = _get(client, name)
        except UnreachableError as error:
            if lost is None:
                print(f"submit.py: {error}; trying again", file=sys.stderr)
            client, lost = None, lost or now
            if now - lost > PATIENCE_SECONDS:
                raise UnreachableError(f"{error}; to go on: submit.py --wait --name {name}") from error
        else:
            lost = None
            if job.status != status:
                status = job.status
                print(f"{datetime.datetime.now():%H:%M:%S} {_word(status)}", flush=True)
            if status in ENDED:
                return job
        time.sleep(min(LONGEST_PAUSE_SECONDS, max(SHORTEST_PAUSE_SECONDS, (now - began) / 20)))


def download(client: Any, name: str, output: str, to: Path) -> Path:
    """An output of a job that has ended, whole or not at all."""
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to, prefix=".download-") as folder, in_one_line(f"output {output}"), silent():
        client.jobs.download(name, output_name=output, download_path=folder)
        found = Path(folder) / "named-outputs" / output
        if not found.is_dir():
            raise RefusedError(f"job {name}: there is nothing at its output {output}")
        return found.rename(to / output)


def plan(file: Path, job: Any) -> str:
    """What would be sent, a line each."""
    lines = [f"{file}: valid; {len(job.jobs)} steps", f"  name    {job.name or 'made up when it is submitted'}"]
    lines += [f"  input   {name} = {_shown(port)}" for name, port in job.inputs.items()]
    for name, node in job.jobs.items():
        where = getattr(node, "compute", None) or job.settings.default_compute
        component = component_of(node)
        lines.append(f"  step    {name}: {getattr(component, 'display_name', component)} on {where}")
    for name, port in job.outputs.items():
        asset = f", registered as {port.name}" if getattr(port, "name", None) else ""
        lines.append(f"  output  {name}: {port.type}{asset}")
    return "\n".join(lines)


def _shown(port: Any) -> str:
    """A value, an asset, or a local path that is uploaded."""
    given = getattr(port, "_data", port)
    path = getattr(given, "path", None)
    if path is None:
        return str(given)
    return str(path) if re.match(r"azureml:|[a-z]+://", str(path)) else f"{path} (uploaded)"


def _word(status: Any) -> str:
    """As Studio shows it; azure-ai-ml's enumeration prints by another name."""
    return str(getattr(status, "value", status))


def _get(client: Any, name: str) -> Any:
    with in_one_line(f"job {name}"):
        return client.jobs.get(name)


def _stream(client: Any, name: str) -> None:
    """What the job prints; how it ended says ``wait``, which also goes on where the connection was lost."""
    from azure.ai.ml.exceptions import JobException

    try:
        with in_one_line(f"job {name}"), contextlib.suppress(JobException):
            client.jobs.stream(name)
    except UnreachableError as error:
        print(f"submit.py: {error}; waiting without the logs", file=sys.stderr)


def _reason(client: Any, job: Any) -> str:
    """Why a job failed: azure-ai-ml says it only at the end of a stream."""
    from azure.ai.ml.exceptions import JobException

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            client.jobs.stream(job.name)
    except JobException as error:
        text = str(error)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            details, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
            text = details["error"]["message"]
        return f": {' '.join(text.split())}"
    except Exception as error:  # the status is known; more is a courtesy
        return f" (no reason: {type(error).__name__}; see {job.studio_url})"
    return ""


def _check_downloads(args: argparse.Namespace, job: Any) -> None:
    """Before hours are waited for them."""
    for output in args.download:
        if output not in job.outputs:
            raise RefusedError(f"--download {output}: the job has no such output; it has: {', '.join(job.outputs)}")
        if (args.download_path / output).exists():
            raise RefusedError(f"--download {output}: {args.download_path / output} exists; give --download-path")


if __name__ == "__main__":
    exit_code = main()
    gc.freeze()  # azure-ai-ml leaves so many objects behind that collecting them at exit takes a second
    sys.exit(exit_code)
