"""Where an output came from: hashes of the inputs, the component and its version, the parameters."""

import dataclasses
import functools
import hashlib
import json
import os
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from slmkit.errors import UserError
from slmkit.records import whole_file

NAME = "lineage.json"
ASKED = ("model_sha256", "endpoint")
_LARGE_BYTES = 2**20


def sha256(path: Path) -> str:
    """The hash of a file's bytes; of a folder, that of names and hashes of its readable files, lineage left out."""
    if path.is_file():
        stat = path.stat()
        # Weights are asked for by what answers, what writes rows and what writes lineage, and read once for them all.
        read = _of_bytes_once if stat.st_size >= _LARGE_BYTES else _of_bytes
        return read(path.resolve(), stat.st_size, stat.st_ctime_ns, stat.st_ino)  # no program can set back the ctime
    digest = hashlib.sha256()
    for file in files(path):
        name = os.fsencode(file.relative_to(path).as_posix())  # which need not be UTF-8
        digest.update(b"%b\0%b\n" % (name, sha256(file).encode()))
    return digest.hexdigest()


def model_sha256(model: Path, base_model: Path | None = None) -> str:
    """The hash of the model that is asked; where that is an adapter on a base, one hash for both."""
    return adapted_sha256(sha256(model), sha256(base_model)) if base_model else sha256(model)


def adapted_sha256(adapter_sha256: str, base_model_sha256: str) -> str:
    return hashlib.sha256(f"adapter {adapter_sha256} on {base_model_sha256}\n".encode()).hexdigest()


def _of_bytes(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_of_bytes_once = functools.lru_cache(maxsize=1024)(_of_bytes)


def files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """The readable files below a folder in the order of their paths, one folder in memory at a time.

    What a link leads to counts, as it is read and uploaded like the rest; but for one that leads back up.
    """
    above = (*above, folder.resolve())
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.resolve() not in above:
                yield from files(path, above)
        elif path.name != NAME and path.is_file() and os.access(path, os.R_OK):
            yield path


def read(output: Path) -> dict[str, Any]:
    """The lineage that stands with an output, or an empty dict where there is none that can be read."""
    try:
        found = json.loads(_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def asked(args: Any) -> dict[str, str]:
    """What a step asks, as each of its rows says it: the hash of its model, or the endpoint, without what is secret.

    A file can lose the lineage beside it, as when Azure ML mounts it alone; its rows it keeps.
    """
    if args.model is not None:
        return {"model_sha256": model_sha256(args.model, getattr(args, "base_model", None))}
    url = urllib.parse.urlsplit(args.endpoint.strip())
    return {"endpoint": f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"}


def asked_for_all(rows: Iterable[dict[str, Any]], where: str) -> dict[str, str]:
    """What was asked for all of these rows: nothing where none says it; two models are a ``UserError``.

    So are rows that do not say it beside some that do: nothing would tell whose they are.
    """
    found = {tuple((name, str(row[name])) for name in ASKED if row.get(name)) for row in rows}
    if len(found) > 1:
        some = " and ".join(
            " ".join(f"{name} {value:.40}" for name, value in one) or "rows that name none"
            for one in sorted(found)[-2:]
        )
        raise UserError(f"{where}: answers of several models under one name ({some}); give each a name of its own")
    return dict(found.pop()) if found else {}


def steps_that_asked(entry: dict[str, Any], candidate: str) -> Iterator[dict[str, Any]]:
    """The lineages of the steps that made the answers or scores of a candidate, at or below that of a later step.

    What these steps read is not looked into: a model may be made from answers too.
    """
    name = entry.get("parameters", {}).get("candidate")
    if name is None:
        for made_from in entry.get("inputs", {}).values():
            yield from steps_that_asked(made_from.get("lineage", {}), candidate)
    elif candidate == name or (entry.get("component") == "run_flow" and candidate.startswith(f"{name}.")):
        yield entry


def write(args: Any, spec_path: Path, contents: dict[str, Any] | None = None) -> None:
    """Write the lineage of a finished component beside each output file and into each output folder.

    ``args`` is the component's dataclass. The lineage of an input is carried along under ``inputs.<port>.lineage``
    where it can be seen, so that a model knows the documents that it was made from; what was read on two ways stands
    there once, nearest to the output. ``contents`` says what is worth knowing of the outputs, such as how many chats
    they hold.
    """
    spec = yaml.safe_load(spec_path.read_text(encoding="utf-8"))
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(args)}
    paths = {name: value for name, value in values.items() if isinstance(value, Path)}
    outputs = set(spec["outputs"])
    entry = {
        "component": spec["name"],
        "version": str(spec["version"]),
        "inputs": {name: _input(path, spec) for name, path in paths.items() if name not in outputs},
        "parameters": {name: value for name, value in values.items() if name not in paths and value is not None},
    }
    if contents:
        entry["contents"] = contents
    _leave_out_repeated(entry)
    for name in outputs:
        path = paths.get(name)
        if path is not None and path.exists():
            with whole_file(_path(path)) as partial:
                partial.write_text(json.dumps(entry, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _input(path: Path, spec: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"sha256": sha256(path)}
    earlier = read(path)
    # A monitor reads what it gave the last time, and so on for years: of that the hash is enough.
    chained = spec.get("tags", {}).get("stage") == "monitor" and earlier.get("component") == spec["name"]
    if earlier and not chained:
        entry["lineage"] = earlier
    return entry


def _leave_out_repeated(entry: dict[str, Any]) -> None:
    """Keep the lineage of each file once, or those of steps that share what they read would double with each step."""
    seen, level = set(), [entry]
    while level:
        inputs = [given for step in level for given in step.get("inputs", {}).values() if "lineage" in given]
        level = []
        for given in inputs:
            key = (given.get("sha256"), given["lineage"].get("component"), given["lineage"].get("version"))
            if key[0] and key in seen:
                del given["lineage"]
            else:
                seen.add(key)
                level.append(given["lineage"])


def _path(output: Path) -> Path:
    return output / NAME if output.is_dir() else output.with_name(f"{output.name}.{NAME}")
