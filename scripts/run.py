#!/usr/bin/env python
"""Run an Azure ML pipeline job on this machine; the flags are those of `az ml job create`."""

import argparse
import gc
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import localml.needs_venv  # noqa: F401 (before what a Python may lack)

# isort: split
from localml import jobfile
from localml.errors import RunError
from localml.runner import Runner, StepError, summary_texts
from localml.session import Options, Outcome, make_runner, run


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--file", "-f", type=Path, required=True, help="pipeline job YAML, for example pipelines/jobs/demo.yml"
    )
    parser.add_argument(
        "--set", action="append", nargs="+", default=[], metavar="KEY=VALUE", help="update a value of the file"
    )
    parser.add_argument(
        "--name", "-n", type=jobfile.job_name, help="name of the job; made from the time when not given"
    )
    parser.add_argument("--stream", "-s", action="store_true", help="show what the steps print")
    parser.add_argument("--dry-run", action="store_true", help="check the file and show the plan; run nothing")
    parser.add_argument(
        "--env",
        choices=["current", "isolated"],
        default="current",
        help="run steps in this interpreter, or each in a venv made from its environment's pins",
    )
    parser.add_argument("--force-rerun", action="store_true", help="reuse nothing")
    parser.add_argument("--root", type=Path, default=Path(".local"), help="where runs are kept (default .local)")
    parser.add_argument(
        "--assets", type=Path, help="YAML file of 'azureml:...: local path' lines (default ROOT/assets.yml)"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks, of the steps too")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the job and return the exit code: 0 done, 1 failed, 2 refused before anything ran, 130 interrupted."""
    args = _arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop is a stop, whoever asks for it
    if args.debug:
        os.environ["SLMKIT_DEBUG"] = "1"
    try:
        return _run(args)
    except StepError as error:
        _report(args, error)
        print(error.details(), end="", file=sys.stderr)
        print("  what finished is kept: the same command goes on from there", file=sys.stderr)
        return 1
    except RunError as error:
        _report(args, error)
        return 2
    except OSError as error:
        _report(args, f"{error.strerror or error}: {error.filename or args.root}; what finished is kept")
        return 1
    except Exception as error:  # whatever it is: one line, and what finished is kept
        _report(args, f"{type(error).__name__}: {error} (--debug shows the traceback)")
        return 1
    except KeyboardInterrupt:
        print("run.py: interrupted; what finished is kept: the same command goes on from there", file=sys.stderr)
        return 130


def _report(args: argparse.Namespace, error: object) -> None:
    if args.debug:
        traceback.print_exc()
    print(f"run.py: error: {' '.join(str(error).split())}", file=sys.stderr)


def _run(args: argparse.Namespace) -> int:
    options = Options(
        experiment=args.file.stem,
        folder=args.file.resolve().parent,
        root=args.root,
        name=args.name,
        environment=args.env,
        assets=args.assets,
        force_rerun=args.force_rerun,
        stream=args.stream,
    )

    def load() -> Any:
        return jobfile.load(args.file, [setting for group in args.set for setting in group])

    if args.dry_run:
        return _show_plan(args.file, make_runner(load(), options, options.job_name, tracker=None))
    _show_summary(run(load, options))
    return 0


def _show_plan(file: Path, runner: Runner) -> int:
    """The steps in the order in which they would run, with what each reads and gives."""
    print(f"{file}: valid; {len(runner.graph.steps)} steps")
    for note in runner.notes():
        print(f"  note: {note}")
    for name, step in runner.graph.steps.items():
        if found := runner.known(step):
            runner.finished[name] = found
        state = "reuse" if name in runner.finished else "run"
        after = f" after {', '.join(sorted(step.needs))}" if step.needs else ""
        processes = f", {step.num_processes} processes" if step.num_processes > 1 else ""
        print(f"  {state:<6}{name} ({step.component_name}{processes}){after}")
        for port, binding in step.inputs.items():
            print(f"          {port} = {binding}")
        for number, trial in enumerate(step.sweep.trials if step.sweep else ()):
            print(f"          trial {number}: {', '.join(f'{port} = {value}' for port, value in trial.items())}")
    return 0


def _show_summary(outcome: Outcome) -> None:
    runner, here = outcome.runner, Path.cwd()

    def shown(path: Path) -> Path:
        return path.relative_to(here) if path.is_relative_to(here) else path

    for text in summary_texts(runner):
        print(f"\n{text}")
    ran = len(runner.finished) - len(runner.reused)
    print(f"\n{outcome.name}: {ran} steps run, {len(runner.reused)} reused, {outcome.seconds:.1f} s")
    for port, path in outcome.outputs.items():
        report = path / "report.html"
        print(f"  {port:<16} {shown(report if report.is_file() else path)}")
    print(f"  {'all outputs':<16} {shown(outcome.folder)}")
    mlflow = [str(Path(sys.executable).parent / "mlflow"), "ui", "--backend-store-uri", outcome.tracking_uri]
    print(f"  {'MLflow':<16} {shlex.join(mlflow)}")


if __name__ == "__main__":
    exit_code = main()
    gc.freeze()  # azure-ai-ml leaves so many objects behind that collecting them at exit takes a second
    sys.exit(exit_code)
