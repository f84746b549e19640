"""What a person sees of a run: a line per step with its state and time, live on a terminal, plain in a log."""

import dataclasses
import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▶", "cyan"),
    "finished": ("✔", "green"),
    "reused": ("↺", "blue"),
    "failed": ("✘", "bold red"),
    "terminated": ("■", "yellow"),
    "canceled": ("■", "yellow"),
    "not run": ("-", "dim"),
}
_ENDED = ("finished", "failed", "terminated", "canceled")


@dataclasses.dataclass
class _Line:
    state: str = "waiting"
    started: float = 0.0
    seconds: float = 0.0


class Progress:
    """Shows the states of steps; with ``stream`` also every line that they print. ``on_state`` is told as well."""

    def __init__(
        self, steps: list[str], *, stream: bool, on_state: Callable[[str, str, float], None] | None = None
    ) -> None:
        self._lines = {name: _Line() for name in steps}
        self._console = Console(highlight=False, soft_wrap=True)
        self._stream, self._on_state = stream, on_state
        self._lock = threading.Lock()
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=8, transient=True)
        self._is_live = self._console.is_terminal and not stream

    def __enter__(self) -> "Progress":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_live:
            self._live.stop()
            self._console.print(self._table())

    def set(self, step: str, state: str, seconds: float | None = None) -> None:
        """Move a step to another state; ``seconds`` is the time of its work where that is known."""
        with self._lock:
            line = self._lines.setdefault(step, _Line())  # a trial of a sweep comes as it starts
            now = time.monotonic()
            line.seconds = seconds if seconds is not None else (now - line.started if line.started else 0.0)
            line.state, line.started = state, now if state == "running" else line.started
            if self._on_state:
                self._on_state(step, state, line.seconds)
            if not self._is_live:
                mark, _ = _MARKS[state]
                elapsed = f"  {line.seconds:.1f} s" if state in _ENDED else ""
                print(f"{mark} {step:<36} {state}{elapsed}", flush=True)

    def line(self, step: str, text: str) -> None:
        """A line that a step has printed."""
        if self._stream:
            with self._lock:
                print(f"[{step}] {text}", flush=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for name, line in list(self._lines.items()):
            mark, style = _MARKS[line.state]
            seconds = now - line.started if line.state == "running" else line.seconds
            elapsed = f"{seconds:7.1f} s" if line.state in ("running", *_ENDED) else ""
            table.add_row(Text(f"{mark} {name}", style), Text(line.state, style), Text(elapsed, "dim"))
        return table
