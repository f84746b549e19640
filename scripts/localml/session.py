"""One run of a pipeline job from beginning to end; `run_pipeline` is the way in for a pipeline built by the DSL."""

import dataclasses
import datetime
import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from localml import graph
from localml.assets import Assets
from localml.data_assets import DataAssets
from localml.environments import Environments
from localml.errors import RunError
from localml.execution import Execution
from localml.progress import Progress
from localml.runner import Runner, link_outputs
from localml.tracking import Tracker


@dataclasses.dataclass(frozen=True)
class Options:
    """How a job runs here. ``root`` holds all runs; ``environment`` is ``current`` or ``isolated``."""

    experiment: str
    folder: Path  # what relative paths in the job are relative to
    root: Path = Path(".local")
    name: str | None = None
    environment: str = "current"
    assets: Path | None = None
    force_rerun: bool = False
    stream: bool = False
    on_state: Callable[[str, str, float], None] | None = None  # told of each step's name, state and seconds

    @property
    def job_name(self) -> str:
        """The given name, or one made from the time."""
        return self.name or f"{self.experiment}-{datetime.datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished job: its outputs by name, where all outputs of all steps lie, and where MLflow keeps its runs."""

    name: str
    folder: Path
    outputs: dict[str, Path]
    tracking_uri: str
    runner: Runner
    seconds: float


def run_pipeline(job: Any, **options: Any) -> Outcome:
    """Run a pipeline job that the azure-ai-ml DSL has built; relative paths in it are relative to this folder.

    ``options`` are those of ``Options``. Raises ``RunError`` for what is refused and ``StepError`` for a failed step.
    """
    return run(lambda: job, Options(**{"experiment": job.display_name, "folder": Path.cwd(), **options}))


def run(load: Callable[[], Any], options: Options) -> Outcome:
    """Load a job while MLflow loads beside, run it, and leave its runs closed whatever happens."""
    name, root = options.job_name, options.root.resolve()
    folder = root / "jobs" / name
    if folder.exists():
        raise RunError(f"--name {name}: there is a job of this name already, see {folder}; take another")
    root.mkdir(parents=True, exist_ok=True)
    with Tracker(root, experiment=options.experiment, job_name=name) as tracker:
        runner = make_runner(job := load(), options, name, tracker)
        started, status = time.monotonic(), "FAILED"
        tracker.open()
        for note in runner.notes():
            print(f"note: {note}", flush=True)
        try:
            with runner.progress:
                runner.run()
            for line in register_outputs(job, runner, root, name):
                print(line, flush=True)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            outputs = link_outputs(runner, folder)
            record(folder, status, outputs)
            tracker.close(status)
    return Outcome(name, folder, outputs, tracker.uri, runner, time.monotonic() - started)


def record(folder: Path, status: str, outputs: dict[str, Path]) -> None:
    """``job.json``: how the job ended and where its outputs lie, for who has only the name of the job."""
    if folder.is_dir():  # a job of which no step finished has none
        where = {port: path.relative_to(folder).as_posix() for port, path in outputs.items()}
        content = {"name": folder.name, "status": status, "outputs": where}
        partial = folder / "job.json.partial"
        partial.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / "job.json")


def register_outputs(job: Any, runner: Runner, root: Path, job_name: str) -> Iterator[str]:
    """The outputs of a finished job that have a name become data assets; says what each can be called from now on."""
    for port, output in job.outputs.items():
        if output.name:
            source = runner.graph.outputs[port]
            made = runner.finished[source.step]
            path, sha256 = made.output(source.port), made.hashes[source.port]
            version = DataAssets(root).register(output.name, output.version, path, sha256, job_name)
            yield f"output {port} is azureml:{output.name}:{version}"


def make_runner(job: Any, options: Options, name: str, tracker: Tracker | None) -> Runner:
    """Everything that can be refused is refused here, before a run is opened or a step started."""
    root = options.root.resolve()
    steps = graph.build(job)
    for port, output in job.outputs.items():
        if output.name and port not in steps.outputs:
            raise RunError(f"outputs.{port}: no step gives it, so it cannot be registered as {output.name!r}")
    execution = Execution(
        name,
        root,
        Assets(options.folder, options.assets or root / "assets.yml", root),
        Environments(root, options.environment),
        tracker,
        Progress(list(steps.steps), stream=options.stream, on_state=options.on_state),
        force_rerun=options.force_rerun or bool(getattr(job.settings, "force_rerun", False)),
    )
    runner = Runner(steps, execution)
    runner.check()
    return runner
