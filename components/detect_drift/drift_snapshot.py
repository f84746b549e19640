"""What was seen in one window: the canaries with their answers and scores, the traffic, and who answered."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from slmkit import lineage, records
from slmkit.errors import UserError

MANIFEST, CANARIES, TRAFFIC = "manifest.json", "canaries.jsonl", "traffic.jsonl"


@dataclasses.dataclass(frozen=True)
class Canary:
    """A prediction joined with its item and its score; a missing answer is a failed one with the score 0."""

    id: str
    canary_id: str
    edit: str | None
    repeat: int
    cluster: str
    slices: dict[str, str]
    output: str
    score: float
    failed: bool
    references: list[str] = dataclasses.field(default_factory=list)
    question: str = ""
    prompt_tokens: int = 0  # 0: not known
    deployment: str | None = None


@dataclasses.dataclass(frozen=True)
class Snapshot:
    manifest: dict[str, Any]
    canaries: list[Canary]
    traffic: list[dict]


def write(folder: Path, snapshot: Snapshot) -> str:
    """Write the snapshot as the content of an output folder; returns the id that it has as a baseline."""
    with records.whole_folder(folder) as partial:
        _write_rows(partial / CANARIES, map(dataclasses.asdict, snapshot.canaries))
        _write_rows(partial / TRAFFIC, snapshot.traffic)
        hashes = {name: lineage.sha256(partial / name) for name in (CANARIES, TRAFFIC)}
        text = json.dumps(snapshot.manifest | {"sha256": hashes}, ensure_ascii=False, indent=2) + "\n"
        (partial / MANIFEST).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _write_rows(path: Path, rows: Iterable[dict]) -> None:
    with records.write_records(path) as write_row:
        for row in rows:
            write_row(row)


def read(folder: Path) -> tuple[Snapshot, str]:
    """A snapshot that an earlier run wrote, and its id; one that was cut or changed since is refused."""
    hint = "give the folder that an earlier run of detect_drift wrote as its output snapshot"
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest = json.loads(text)
        hashes = {name: manifest["sha256"][name] for name in (CANARIES, TRAFFIC)}
        for name, sha256 in hashes.items():
            if lineage.sha256(folder / name) != sha256:
                raise UserError(f"{folder / name}: not the file that was written with the manifest; {hint}")
        canaries = [Canary(**row) for row in records.read_records(folder / CANARIES)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: no baseline that can be read ({type(error).__name__}: {error}); {hint}") from None
    traffic = list(records.read_records(folder / TRAFFIC))
    return Snapshot(manifest, canaries, traffic), hashlib.sha256(text).hexdigest()
