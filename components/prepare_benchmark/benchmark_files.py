"""The rows of a benchmark's files (CSV, TSV, JSON, JSONL, Parquet) or of a hub dataset, each with its place."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from slmkit import lineage, records
from slmkit.errors import UserError
from slmkit.records import Refused

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".jsonl.gz", ".parquet")
MAX_CELL = 1 << 24  # characters
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Row(NamedTuple):
    """What stands in one row, and where: a file below the folder or a split of a dataset, and a line from 1."""

    values: dict[str, Any]
    source: str
    line: int


def find_files(folder: Path, pattern: str) -> list[Path]:
    """The readable kinds of files that match a glob below the folder, in the order of their paths."""
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise UserError(f"{pattern!r} leads out of raw_data; give a pattern below it, such as 'data/*-test.csv'")
    try:
        found = sorted(folder.glob(pattern))
    except (ValueError, IndexError) as error:  # the latter for "."
        raise UserError(f"{pattern!r} is no file pattern: {error}; give one such as '**/*.csv'") from None
    files = [path for path in found if path.is_file() and _is_data(path.relative_to(folder))]
    if not files:
        there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        raise UserError(
            f"{folder}: no {', '.join(SUFFIXES)} file matches {pattern!r}; the folder holds "
            f"{', '.join(there[:5]) or 'no file'}{' ...' * (len(there) > 5)}"
        )
    return files


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.name.endswith(SUFFIXES) and not hidden and not path.name.endswith(lineage.NAME)


def read_files(folder: Path, files: Sequence[Path], header: Sequence[str] | None) -> Iterator[Row | Refused]:
    """The rows of all files; ``header`` names the columns of a CSV file that has no header of its own."""
    for file in files:
        name = file.relative_to(folder).as_posix()
        if file.name.endswith((".csv", ".tsv")):
            yield from _read_csv(file, name, header)
        elif file.suffix == ".json" and _text(file).lstrip().startswith("["):
            yield from _read_array(_text(file), name)
        else:
            refused: list[Refused] = []
            for values, _, line in records.read_located(file, refused.append):
                yield from _named(refused, name)
                yield Row(values, name, line)
            yield from _named(refused, name)


def _named(refused: list[Refused], name: str) -> Iterator[Refused]:
    while refused:
        yield Refused(name, (first := refused.pop(0)).line, first.reason, first.text)


def _text(file: Path) -> str:
    content = file.read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _read_csv(file: Path, name: str, header: Sequence[str] | None) -> Iterator[Row | Refused]:
    """A cell may hold line breaks and quotes; the line of a row is where it begins."""
    csv.field_size_limit(MAX_CELL)
    lines = io.StringIO(_text(file), newline="")
    rows = csv.reader(lines, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
    line = 1
    try:
        for cells in rows:
            if header is None or (line == 1 and _is_header(cells)):
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header):
                    raise UserError(f"{name}:{line}: two columns have the same name in {', '.join(header)}")
            elif len(cells) != len(header) and cells:
                yield Refused(name, line, f"{len(cells)} cells where {len(header)} belong", ",".join(cells)[:200])
            elif cells:
                yield Row(dict(zip(header, cells, strict=True)), name, line)
            line = rows.line_num + 1
    except csv.Error as error:  # such as a quote that is never closed, which would swallow all that follows
        raise UserError(f"{name}:{line}: not CSV from here on: {error}; correct the row") from None


def _is_header(cells: Sequence[str]) -> bool:
    """Whether a file of a benchmark that has no header was given one after all."""
    return {"question", "answer"} <= {cell.strip().casefold() for cell in cells}


def _read_array(text: str, name: str) -> Iterator[Row | Refused]:
    """The objects of one JSON array."""
    decoder, blank = json.JSONDecoder(), re.compile(r"[\s,]*")
    at, line, counted = text.index("[") + 1, 1, 0
    while True:
        at = blank.match(text, at).end()
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            return
        try:
            values, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            said = f"{getattr(error, 'msg', error)} (line {getattr(error, 'lineno', line)})"
            raise UserError(f"{name}:{line}: not JSON from here on: {said}; correct the file") from None
        if isinstance(values, dict):
            yield Row(values, name, line)
        else:
            yield Refused(name, line, f"not a JSON object but a {type(values).__name__}", str(values)[:200])


def read_dataset(name: str, revision: str | None, config: str | None, split: str) -> Iterator[Row]:
    """The rows of a dataset by its id or folder; ``config`` may be a pattern, such as ``*`` for all subjects."""
    import datasets

    if not Path(name).is_dir() and not _COMMIT.fullmatch(revision or ""):  # a branch moves
        raise UserError(
            f"dataset_revision of {name!r} must be a commit (40 digits, under Files and versions on its page), so that "
            "later runs ask the same questions"
        )
    what = f"dataset {name!r}, split {split!r}"
    try:
        configs = [config]
        if config and set(config) & set("*?["):
            known = datasets.get_dataset_config_names(name, revision=revision)
            configs = [one for one in known if fnmatch(one, config)]
            if not configs:
                raise UserError(f"{what}: no configuration matches {config!r}; there are {', '.join(known)}")
        loaded = [(one, datasets.load_dataset(name, one, split=split, revision=revision)) for one in configs]
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"{what} cannot be read: {said[:300]}; check name, dataset_config and split, or give the files as raw_data"
        ) from None
    for one, rows in loaded:
        source = f"{name}/{one}[{split}]" if one else f"{name}[{split}]"
        for line, values in enumerate(rows, start=1):
            yield Row(values, source, line)
