"""Time lines of a history: the verdicts as a grid of windows, and each effect as a line with its band and alarms."""

from dataclasses import dataclass, field
from typing import Any

import drift_figures
from drift_history import Figure, Line
from drift_policy import SIGNALS, changed
from report_charts import Scale, round_steps, spread

MAX_WINDOWS = 40
MAX_CHARTS = 6  # of a signal
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 170, 46, 350, 22, 138  # of a chart and of the plot in it


def grid(lines: list[Line]) -> dict[str, Any]:
    """Windows as columns, the newest last; verdicts of each signal, and above them what was decided."""
    lines = lines[-MAX_WINDOWS:]
    return {
        "windows": [window_name(line) for line in lines],
        "actions": [line.action for line in lines],
        "marks": marks(lines),
        "rows": {
            name: [line.signals[name].verdict if name in line.signals and line.look else "baseline" for line in lines]
            for name in SIGNALS
        },
    }


def window_name(line: Line) -> str:
    return line.window or line.created_at[:10]


def marks(lines: list[Line]) -> dict[int, str]:
    """By position, what changed before that window: who answers, or what it is compared with."""
    found = {}
    for position, line in enumerate(lines):
        before = lines[position - 1] if position else None
        if before and changed(before.served, line.served):
            found[position] = f"rollout of {line.deployment}" if line.deployment else "rollout"
        elif line.look == 0 or (before and before.baseline_id != line.baseline_id and before.look):
            found[position] = "new baseline"
    return found


@dataclass
class Chart:
    """A chart of one effect in pixels of its own view box."""

    title: str
    rows: list[tuple[float, str]]
    marks: list[tuple[float, str]]
    names: list[tuple[float, str, str]]
    bands: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    baselines: list[str] = field(default_factory=list)
    points: list[dict] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    top: int = TOP
    bottom: int = BOTTOM
    left: int = LEFT
    right: int = RIGHT


def charts(lines: list[Line], signal: str) -> list[Chart]:
    """A chart of each effect that has values in two windows or more; those of the last window first."""
    lines = lines[-MAX_WINDOWS:]
    findings = [line.signals.get(signal) for line in lines]
    names = dict.fromkeys(name for finding in reversed(findings) if finding for name in finding.headline)
    series = {name: [finding.headline.get(name) if finding else None for finding in findings] for name in names}
    long_enough = [name for name, figures in series.items() if sum(has_value(figure) for figure in figures) > 1]
    return [chart(name, series[name], lines) for name in long_enough[:MAX_CHARTS]]


def has_value(figure: Figure | None) -> bool:
    return figure is not None and figure.value is not None


def chart(headline: str, figures: list[Figure | None], lines: list[Line]) -> Chart:
    """``headline`` is the name of an effect, and after a space of its slice."""
    name, _, slice = headline.partition(" ")
    known = [figure for figure in figures if has_value(figure)]
    ends = [
        end for figure in known for end in (figure.value, figure.low, figure.high, figure.baseline) if end is not None
    ]
    ys = spread(ends, 0.08)
    if drift_figures.SHARE.search(name):
        ys = Scale(max(ys.low, -0.02), min(ys.high, 1.02))
    step = (RIGHT - LEFT - 16) / max(1, len(lines) - 1)
    xs = [round(LEFT + 8 + step * position, 1) for position in range(len(lines))]

    def y(number: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * ys.part(number), 1)

    drawn = Chart(
        title=drift_figures.title(name) + (f", {drift_figures.slice_title(slice)}" if slice else ""),
        rows=[(y(number), drift_figures.tick(number, name)) for number in round_steps(ys.low, ys.high)],
        marks=[(xs[position], said) for position, said in marks(lines).items()],
        names=ends_of_axis(xs, [window_name(line) for line in lines]),
    )
    for run in runs(figures, lines):
        at = [(xs[i], figures[i]) for i in run]
        drawn.lines.append(" ".join(f"{x},{y(figure.value)}" for x, figure in at))
        banded = [(x, figure) for x, figure in at if figure.low is not None and figure.high is not None]
        if len(banded) == len(at) > 1:
            upper = [f"{x},{y(figure.high)}" for x, figure in banded]
            lower = [f"{x},{y(figure.low)}" for x, figure in reversed(banded)]
            drawn.bands.append(" ".join(upper + lower))
        based = [(x, figure.baseline) for x, figure in at if figure.baseline is not None]
        if based:
            reach = 8 if len(based) == 1 else 0
            ends_at = [(based[0][0] - reach, based[0][1]), *based[1:], (based[-1][0] + reach, based[-1][1])]
            drawn.baselines.append(" ".join(f"{x},{y(number)}" for x, number in ends_at))
    drawn.points = [
        {
            "x": x,
            "y": y(figure.value),
            "low": None if figure.low is None else y(figure.low),
            "high": None if figure.high is None else y(figure.high),
            "drift": figure.drift,
            "said": f"{window_name(line)}: {drift_figures.value(figure.value, name)}" + ", drift" * figure.drift,
        }
        for x, figure, line in zip(xs, figures, lines, strict=True)
        if has_value(figure)
    ]
    return drawn


def runs(figures: list[Figure | None], lines: list[Line]) -> list[list[int]]:
    """Positions that a line connects: windows in a row with a value, of one baseline."""
    found: list[list[int]] = []
    for position, figure in enumerate(figures):
        if not has_value(figure):
            continue
        last = found[-1][-1] if found else None
        if last == position - 1 and lines[last].baseline_id == lines[position].baseline_id:
            found[-1].append(position)
        else:
            found.append([position])
    return found


def ends_of_axis(xs: list[float], names: list[str]) -> list[tuple[float, str, str]]:
    if len(names) == 1:
        return [(xs[0], "start", names[0])]
    return [(xs[0], "start", names[0]), (xs[-1], "end", names[-1])]
