"""The ledger of what was spent on a data set: written before noised votes are used, and no run is ever dropped."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gaussian_accounting

from slmkit import records
from slmkit.errors import UserError


@dataclass
class Run:
    id: str
    sigma: float
    num_rounds: int
    rounds_spent: int = 0
    finished: bool = False


@dataclass
class Ledger:
    """Runs over one data set; ``unit`` is whose presence is protected: one record or one person."""

    dataset: str
    unit: str
    delta: float
    runs: list[Run] = field(default_factory=list)

    def mu(self, *, planned: bool = False) -> float:
        """Of what was spent; with ``planned`` also of what the runs may still spend."""
        spent = (
            (
                max(run.rounds_spent, run.num_rounds if planned else 0) if not run.finished else run.rounds_spent,
                run.sigma,
            )
            for run in self.runs
        )
        return gaussian_accounting.mu_of(list(spent))

    def epsilon(self, **which: bool) -> float:
        return gaussian_accounting.epsilon_of(self.mu(**which), self.delta)

    def as_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "unit": self.unit,
            "neighbors": f"data sets that differ by the presence of {self.unit}",
            "mechanism": "Gaussian noise, rounded, on a histogram of one vote each; L2 sensitivity 1",
            "epsilon": self.epsilon(),
            "delta": self.delta,
            "mu": self.mu(),
            "runs": [asdict(run) for run in self.runs],
        }

    def write(self, path: Path) -> None:
        """On the disk when this returns."""
        with records.whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
            json.dump(self.as_dict(), file, ensure_ascii=False, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())

    def spend(self, run: Run, path: Path, max_total_epsilon: float | None) -> None:
        """Record one more round of ``run``, or refuse it."""
        run.rounds_spent += 1
        if max_total_epsilon is not None and self.epsilon() > max_total_epsilon:
            run.rounds_spent -= 1
            raise UserError(
                f"one more round would bring {self.dataset!r} above max_total_epsilon={max_total_epsilon:g} (now "
                f"{self.epsilon():.4g}): a round was lost when the step was killed, and what it spent is spent"
            )
        self.write(path)


def read(path: Path) -> Ledger:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        runs = [Run(**run) for run in found["runs"]]
        ledger = Ledger(str(found["dataset"]), str(found["unit"]), float(found["delta"]), runs)
        if not all(_sound(run) for run in runs):
            raise ValueError("a run without a positive sigma and its rounds")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a ledger of synthesize_private_texts: {error}") from None
    return ledger


def _sound(run: Run) -> bool:
    counts = run.rounds_spent, run.num_rounds
    return (
        isinstance(run.sigma, int | float)
        and 0 < run.sigma < float("inf")
        and all(isinstance(count, int) and count >= 0 for count in counts)
    )


def opened(dataset: str, unit: str, delta: float, *earlier: Path | None) -> Ledger:
    """A ledger with the runs of the earlier ones; the state of a run that stands in two is the later one."""
    runs: dict[str, Run] = {}
    for path in earlier:
        if path is None or not path.exists():
            continue
        found = read(path)
        if (found.dataset, found.unit) != (dataset, unit):
            raise UserError(
                f"{path}: the ledger is of {found.unit} of {found.dataset!r}, not of {unit} of {dataset!r}; budgets of "
                "different data sets or units do not compose"
            )
        for run in found.runs:
            if run.id not in runs or run.rounds_spent >= runs[run.id].rounds_spent:
                runs[run.id] = run
    return Ledger(dataset, unit, delta, list(runs.values()))
