"""Runs a sweep node: its trials side by side, those that fall behind ended early, the best one's outputs its own."""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from localml import early_termination, process
from localml.execution import Execution, StepEndedError, StepError
from localml.graph import Step
from localml.store import Finished
from localml.sweep_plan import Plan

TRIALS_FILE = "trials.json"
_POLL_SECONDS = 0.5


@dataclasses.dataclass
class Trial:
    """One run of the trial's component. ``state`` is waiting, running, finished, reused, failed, terminated by the
    policy, or canceled; ``values`` are those of the primary metric in the order in which they were logged."""

    number: int
    parameters: dict[str, Any]
    state: str = "waiting"
    values: list[float] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    run_id: str = ""
    step: str = ""
    reason: str = ""

    @property
    def metric(self) -> float:
        """The last value, which is the one of the model that the trial gives."""
        return self.values[-1] if self.values else math.nan


def run(execution: Execution, step: Step, finished: dict[str, Finished]) -> tuple[Finished, bool]:
    """The best trial's outputs as those of the sweep, and whether they were there already."""
    key = execution.key(step, finished)
    reusable = execution.is_reusable(step)
    if reusable and (found := execution.store.find(key)):
        return found, True
    with execution.store.working(key, keep_partial=not execution.force_rerun) as (work, _):
        if reusable and (found := execution.store.find(key)):  # finished by the run that we waited for
            return found, True
        execution.progress.set(step.name, "running")
        run_id = execution.tracker.start_step(step.name, {"localml.step": key})
        status = "KILLED"
        try:
            sweep = _Sweep(execution, step, finished, work, run_id)
            result = sweep.run(key if reusable else execution.own_key(step, key))
            status = "FINISHED"
        except StepError:
            status = "FAILED"
            raise
        finally:
            execution.tracker.end_step(run_id, status)
        execution.progress.set(step.name, "finished", result.seconds)
        return result, False


class _Sweep:
    """The trials of one sweep, those under way, and what ended it before they had all run."""

    def __init__(
        self, execution: Execution, step: Step, finished: dict[str, Finished], work: Path, run_id: str
    ) -> None:
        self._execution, self._tracker = execution, execution.tracker
        self._step, self._plan, self._finished = step, step.sweep, finished
        self._work, self._run_id = work, run_id
        self._results: dict[int, Finished] = {}
        self._failures: dict[int, StepError] = {}
        self._closed = ""
        self._trials = [
            Trial(number, {name: literal.value for name, literal in given.items()})
            for number, given in enumerate(self._plan.trials)
        ]
        for known in _read(work / TRIALS_FILE):
            if known.state == "terminated":  # what finished is in the store; the rest is tried again
                self._trials[known.number] = known

    def run(self, key: str) -> Finished:
        started = time.monotonic()
        self._search(deadline=started + (self._plan.timeout or math.inf))
        best = self._best()
        text = table(self._step.name, self._plan, self._trials, best, self._closed)
        (self._work / "std_log.txt").write_text(f"{text}\n", encoding="utf-8")
        outputs = self._work / "outputs"
        shutil.rmtree(outputs, ignore_errors=True)
        outputs.mkdir()
        result = self._results[best.number]
        for port in result.hashes:
            (outputs / port).symlink_to(result.output(port))
        self._tracker.log(self._run_id, best.parameters, {self._plan.metric: best.metric})
        self._tracker.log_artifact(self._run_id, self._work / TRIALS_FILE)
        if "timeout" in self._closed:  # a second start goes on with the trials that are missing
            key = self._execution.own_key(self._step, key)
        facts = {"step": self._step.name, "job": self._execution.job_name, "run_id": self._run_id}
        return self._execution.store.commit(
            key, self._work, result.hashes, time.monotonic() - started, {**facts, "best_trial": best.number}
        )

    def _search(self, deadline: float) -> None:
        cores = max(1, process.num_cores() // self._step.num_processes)
        waiting = [trial for trial in self._trials if trial.state == "waiting"]
        width = min(self._plan.max_concurrent or cores, cores, max(1, len(waiting)))
        # Alone, a trial takes what a step takes; side by side, each takes its share.
        threads = process.num_cores() // (width * self._step.num_processes) if width > 1 else None
        running: dict[Future, tuple[Trial, float]] = {}
        with ThreadPoolExecutor(max_workers=width) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < width and not self._closed:
                        trial = waiting.pop(0)
                        trial.state = "running"
                        running[pool.submit(self._run_trial, trial, threads)] = trial, time.monotonic()
                    if not running:
                        break
                    done, _ = wait(running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                    for future in done:
                        trial, began = running.pop(future)
                        self._take(trial, future, time.monotonic() - began)
                    if not self._closed and time.monotonic() > deadline:
                        self._closed = f"the timeout of {self._plan.timeout} s"
                    self._watch(running.values())
            except BaseException:
                for trial, _ in running.values():
                    self._execution.end(self._name(trial))
                raise
        for trial in waiting:
            trial.state = "not run"
        _write(self._work / TRIALS_FILE, self._plan, self._trials)

    def _name(self, trial: Trial) -> str:
        return f"{self._step.name}.trial_{trial.number}"

    def _run_trial(self, trial: Trial, threads: int | None) -> tuple[Finished, bool]:
        inputs = {**self._step.inputs, **self._plan.trials[trial.number]}
        step = dataclasses.replace(self._step, name=self._name(trial), inputs=inputs, sweep=None)

        def attempt() -> tuple[Finished, bool]:
            return self._execution.run(step, self._finished, parent=self._run_id, threads=threads)

        result, reused = attempt()
        if reused and not self._values(result.run_id):  # its run is gone from MLflow
            shutil.rmtree(result.folder)
            result, reused = attempt()
        return result, reused

    def _values(self, run_id: str) -> list[float]:
        return self._tracker.metric_history(run_id, self._plan.metric) if run_id else []

    def _take(self, trial: Trial, future: Future, seconds: float) -> None:
        """Note how a trial has ended; raises what is no matter of this trial alone."""
        name = self._name(trial)
        trial.seconds, trial.run_id = round(seconds, 3), self._execution.run_ids.get(name, "")
        try:
            result, reused = future.result()
            trial.state, trial.step = "reused" if reused else "finished", result.folder.name
            trial.seconds, trial.run_id = round(result.seconds, 3), result.run_id
            self._results[trial.number], trial.reason = result, ""
        except StepEndedError:
            pass  # state and reason were set by whoever ended it
        except StepError as error:
            if self._execution.stopping.is_set():
                raise KeyboardInterrupt from error
            trial.state, trial.reason = "failed", error.reason
            self._failures[trial.number] = error
        trial.values = self._values(trial.run_id)
        if trial.number in self._results and not trial.values:
            logged = ", ".join(self._tracker.metric_names(trial.run_id)) or "nothing"
            reason = f"trial {trial.number} logged no metric {self._plan.metric!r}, the primary_metric; it logged: "
            raise StepError(self._step.name, reason + logged, self._results[trial.number].log, None)
        if trial.state == "reused":
            tags, metrics = {"localml.step": trial.step}, {self._plan.metric: trial.metric}
            self._tracker.reuse_step(name, tags, self._run_id, trial.parameters, metrics)
        elif trial.run_id:
            self._tracker.log(trial.run_id, trial.parameters, {})
        if trial.number in self._results and self._plan.meets_target(trial.metric) and not self._closed:
            self._closed = f"trial {trial.number} meets the goal {self._plan.target:g}"
        if trial.state != "finished":  # which the execution has shown
            self._execution.progress.set(name, trial.state, trial.seconds)
        _write(self._work / TRIALS_FILE, self._plan, self._trials)

    def _watch(self, running: Iterable[tuple[Trial, float]]) -> None:
        """End the trials that need not go on."""
        ends: list[tuple[Trial, str, str]] = []
        limit = self._plan.trial_timeout
        for trial, began in running:
            if self._closed:
                ends.append((trial, "canceled", self._closed))
            elif limit and time.monotonic() - began > limit:
                ends.append((trial, "canceled", f"the trial_timeout of {limit} s"))
            elif self._plan.policy:
                trial.values = self._values(self._execution.run_ids.get(self._name(trial), ""))
                others = [other.values for other in self._trials if other is not trial and other.values]
                if reason := early_termination.reason(self._plan.policy, self._plan.minimize, trial.values, others):
                    ends.append((trial, "terminated", reason))
        for trial, state, reason in ends:
            if trial.state == "running":
                trial.state, trial.reason = state, reason
                self._execution.end(self._name(trial))

    def _best(self) -> Trial:
        best = None
        for number in sorted(self._results):
            trial = self._trials[number]
            if not math.isnan(trial.metric) and (best is None or self._plan.is_better(trial.metric, best.metric)):
                best = trial
        if best:
            return best
        log, repeat = self._work / TRIALS_FILE, None
        if self._results:
            reason = f"no trial has a number as its {self._plan.metric}"
        elif self._failures:
            number, error = min(self._failures.items())
            reason = f"{len(self._failures)} of {len(self._trials)} trials failed and none finished; trial {number}: "
            reason, log, repeat = reason + error.reason, error.log, error.repeat
        else:
            reason = f"no trial finished before {self._closed or 'it was ended'}"
        raise StepError(self._step.name, reason, log, repeat)


def table(name: str, plan: Plan, trials: list[Trial], best: Trial, closed: str) -> str:
    """The trials for a person to read."""
    goal = f"{'lowest' if plan.minimize else 'highest'} {plan.metric}"
    head = ["", "trial", *plan.trials[0], plan.metric, "state", "seconds"]
    rows = [
        [
            "*" if trial is best else "",
            str(trial.number),
            *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in trial.parameters.values()),
            f"{trial.metric:.4f}" if trial.values else "-",
            trial.state,
            f"{trial.seconds:.1f}",
        ]
        for trial in trials
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    lines = [f"Sweep {name}: trial {best.number} has the {goal}, {best.metric:.4f}", *lines]
    lines += [f"trial {trial.number} {trial.state}: {trial.reason}" for trial in trials if trial.reason]
    return "\n".join(line.rstrip() for line in [*lines, *([f"ended by: {closed}"] if closed else [])])


def _write(path: Path, plan: Plan, trials: list[Trial]) -> None:
    """Keep the state of the trials; a value that is not a number is null, as JSON has it."""
    rows = [dataclasses.asdict(trial) for trial in trials]
    for row in rows:
        row["values"] = [value if math.isfinite(value) else None for value in row["values"]]
    content = {"primary_metric": plan.metric, "goal": "minimize" if plan.minimize else "maximize", "trials": rows}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    partial.replace(path)


def _read(path: Path) -> list[Trial]:
    try:
        trials = [Trial(**row) for row in json.loads(path.read_text(encoding="utf-8"))["trials"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    for trial in trials:
        trial.values = [math.nan if value is None else value for value in trial.values]
    return trials
