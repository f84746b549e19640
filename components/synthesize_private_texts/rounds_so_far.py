"""The rounds of a run that was killed: candidates and noised votes, which are public, so that none is paid twice."""

import json
import os
import secrets
from pathlib import Path


class RoundsSoFar:
    """``run_id`` is that of the killed run where its parameters were the same, and otherwise a new one."""

    def __init__(self, path: Path, parameters: str):
        self._path = path
        lines = _lines(path)
        if lines and lines[0].get("parameters") == parameters:
            self.run_id, self.rounds = lines[0]["run_id"], lines[1:]
        else:
            self.run_id, self.rounds = secrets.token_hex(8), []
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self._append({"run_id": self.run_id, "parameters": parameters})

    def add(self, candidates: list[tuple[str, str]], votes: list[int]) -> None:
        self.rounds.append({"candidates": candidates, "votes": votes})
        self._append(self.rounds[-1])

    def forget(self) -> None:
        self._path.unlink()

    def _append(self, line: dict) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _lines(path: Path) -> list[dict]:
    """The whole lines; a kill may have cut the last, whose round is then lost and was paid for."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.split("\n")[:-1]]  # splitlines() breaks within a JSON string
