"""Rows that are done, kept in a file beside an output, from which a killed step goes on."""

import json
from pathlib import Path
from typing import Any

from slmkit.answer_cache import cache_key

_NAME = "{}.so_far.jsonl"


class ResumeLog:
    """``with ResumeLog(args.predictions, [what the rows depend on]) as log: ... log.add(id, row)``.

    ``log.done`` holds the rows of an earlier start with the same ``depends_on`` by their ids; of another one, none.
    Each row is a line, written at once; a line that a kill cut off is dropped. ``log.forget()`` removes the file, once
    the output stands.
    """

    def __init__(self, output: Path, depends_on: Any) -> None:
        self._path = output.with_name(_NAME.format(output.name))
        self._key = cache_key(depends_on)
        self.done: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> "ResumeLog":
        whole = self._read()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if whole is None:
            self._path.write_text(json.dumps({"depends_on": self._key}) + "\n", encoding="utf-8")
        else:
            with self._path.open("r+b") as file:
                file.truncate(whole)
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> int | None:
        """Fill ``done``; the number of bytes in whole lines, or None where nothing can be taken over."""
        if not self._path.is_file():
            return None
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            head, *lines = map(json.loads, whole.splitlines())
            if head["depends_on"] != self._key:
                return None
            self.done = {line["id"]: line["row"] for line in lines}
        except (ValueError, KeyError, TypeError):
            return None
        return len(whole)

    def add(self, id: str, row: dict[str, Any]) -> None:
        self._file.write(json.dumps({"id": id, "row": row}) + "\n")  # ASCII, which holds half an emoji too
        self._file.flush()

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)
