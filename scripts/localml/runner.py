"""Runs the steps of a job side by side as their inputs become ready, and reuses those that are already done."""

import os
import shutil
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from localml import command, process, sweep
from localml.execution import Execution, StepError
from localml.graph import Data, Graph, Step
from localml.store import Finished

__all__ = ["Runner", "StepError", "link_outputs", "summary_texts"]


class Runner:
    """The steps of one job, those that are finished, and what they share."""

    def __init__(self, graph: Graph, execution: Execution) -> None:
        self.graph, self.execution = graph, execution
        self.progress = execution.progress
        self.finished: dict[str, Finished] = {}
        self.reused: set[str] = set()

    def run(self) -> None:
        """Run all steps; raises ``StepError`` when those that were under way have ended too."""
        waiting = dict(self.graph.steps)
        failure: BaseException | None = None
        with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as pool:
            futures = {}
            try:
                while waiting or futures:
                    if failure is None:
                        for name in [n for n, step in waiting.items() if step.needs <= self.finished.keys()]:
                            futures[pool.submit(self._run_step, waiting.pop(name))] = name
                    if not futures:
                        break
                    done, _ = wait(futures, return_when=FIRST_COMPLETED)
                    for future in done:
                        name = futures.pop(future)
                        if future.exception() is None:
                            self.finished[name] = future.result()
                        else:
                            self.progress.set(name, "failed")
                            failure = failure or future.exception()
            except KeyboardInterrupt:
                self.execution.stop()
                raise
            finally:
                self.execution.hashes.save()
        for name in waiting:
            self.progress.set(name, "not run")
        if failure is not None:
            raise failure

    def check(self) -> None:
        """Find what is missing before the first step starts: data, code, a command that names an absent port."""
        for step in self.graph.steps.values():
            for port, binding in step.inputs.items():
                if isinstance(binding, Data):
                    self.execution.assets.resolve(f"{step.name}.inputs.{port}", binding.path)
            self.execution.snapshot(step)
            nowhere = {port: Path(port) for port in step.component.outputs}
            given = [*step.inputs, *(step.sweep.trials[0] if step.sweep else ())]
            command.render(step.name, step.component.command, dict.fromkeys(given, ""), nowhere)

    def notes(self) -> list[str]:
        """What a person should know before the steps start."""
        cores, notes = process.num_cores(), []
        for name, step in self.graph.steps.items():
            notes += [f"{name}: {note}" for note in (step.sweep.notes if step.sweep else [])]
            if step.num_processes > cores:
                notes.append(
                    f"{name}: its {step.num_processes} processes all run on this machine, which has {cores} cores; "
                    f"for fewer --set jobs.{name}.distribution.process_count_per_instance=1 "
                    f"jobs.{name}.resources.instance_count=1"
                )
        return notes

    def known(self, step: Step) -> Finished | None:
        """The finished step that would be reused, if its inputs are known."""
        if not step.needs <= self.finished.keys() or not self.execution.is_reusable(step):
            return None
        return self.execution.store.find(self.execution.key(step, self.finished))

    def _run_step(self, step: Step) -> Finished:
        if step.sweep:
            finished, reused = sweep.run(self.execution, step, self.finished)
        else:
            finished, reused = self.execution.run(step, self.finished)
        if reused:
            if self.execution.tracker:
                self.execution.tracker.reuse_step(step.name, {"localml.step": finished.folder.name})
            self.reused.add(step.name)
            self.progress.set(step.name, "reused", finished.seconds)
        return finished


def link_outputs(runner: Runner, folder: Path) -> dict[str, Path]:
    """Lay the outputs of a job under ``jobs/<name>`` by step and port, as links to where they are stored."""
    for name, finished in runner.finished.items():
        target = folder / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for port in finished.hashes:
            (target / port).symlink_to(finished.output(port))
        for file in (finished.log, finished.folder / sweep.TRIALS_FILE):
            if file.exists():
                (target / file.name).symlink_to(file)
    return {
        name: folder / out.step / out.port for name, out in runner.graph.outputs.items() if out.step in runner.finished
    }


def summary_texts(runner: Runner) -> list[str]:
    """What sweeps and the steps that are tagged ``prints_summary`` have printed, in the order of the graph.

    Of steps of one stage that read each other, the last one has the last word.
    """
    steps = {name: step for name, step in runner.graph.steps.items() if step.sweep or _tag(step, "prints_summary")}
    read_on = {(need, _tag(step, "stage")) for step in steps.values() for need in step.needs}
    texts = []
    for name, finished in runner.finished.items():
        last = name in steps and (steps[name].sweep or (name, _tag(steps[name], "stage")) not in read_on)
        if last and finished.log.exists():
            texts.append(finished.log.read_text(encoding="utf-8", errors="replace").rstrip())
    return texts


def _tag(step: Step, name: str) -> str | None:
    return (step.component.tags or {}).get(name)
