"""What this repository has to register: each with its files as they are uploaded, and what it depends on."""

import base64
import dataclasses
import functools
import graphlib
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from localml import snapshot
from localml.errors import RunError
from localml.jobfile import quiet

CONTENT_TAG, FILES_TAG = "content_sha256", "file_hashes"
KINDS = ("environment", "component", "pipeline")
_LONGEST_TAG = 1000  # characters that Azure ML takes as the value of a tag
_SHORT_BYTES = 3  # of a file's hash: only to name what changed, never to decide whether it did
_NODE_KEYS = ("component", "trial")  # a sweep node has a trial


@dataclasses.dataclass(frozen=True)
class Source:
    """An asset as it stands here; ``uses`` are the assets that its spec names, by where it names them."""

    kind: str
    path: Path
    text: bytes
    files: dict[str, bytes]
    uses: dict[str, "Source"]

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        return yaml.safe_load(self.text)

    @property
    def name(self) -> str:
        return self.spec["name"]

    @property
    def version(self) -> str:
        return str(self.spec["version"])

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    @functools.cached_property
    def parts(self) -> dict[str, str]:
        """The hash of all that makes up its content, by file and, for what it depends on, by place."""
        contents = self.files | {self.path.name: self.text}
        contents |= {place: str(used).encode() + contents.get(place, b"") for place, used in self.uses.items()}
        return {part: hashlib.sha256(f"{part}\0".encode() + contents[part]).hexdigest() for part in sorted(contents)}

    @property
    def tags(self) -> dict[str, str]:
        """What a registered version has to tell about its content."""
        tags = {CONTENT_TAG: hashlib.sha256("".join(self.parts.values()).encode()).hexdigest()}
        hashes = "".join(map(_short, self.parts.values()))
        return tags | ({FILES_TAG: hashes} if len(hashes) <= _LONGEST_TAG else {})

    def changed_since(self, tags: dict[str, str]) -> str:
        """In which files this is not what was registered with those tags."""
        if not (hashes := tags.get(FILES_TAG)):
            return "its content"
        size = len(_short("00"))
        before = {hashes[start : start + size] for start in range(0, len(hashes), size)}
        changed = [part for part, sha256 in self.parts.items() if _short(sha256) not in before]
        fewer = len(before) - len(self.parts)
        return ", ".join(changed) or f"{fewer} file{'s' * (fewer != 1)} less"

    def write(self, folder: Path, reference: Callable[["Source"], str]) -> Path:
        """The spec in ``folder``, with its files beside it, its tags, and the registered assets by reference."""
        spec = {key: value for key, value in self.spec.items() if key != "additional_includes"}
        spec |= {"version": self.version, "tags": (spec.get("tags") or {}) | self.tags}
        for name, content in self.files.items():
            target = folder / "files" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if self.kind == "environment":
            if "build" in spec:
                spec["build"] = spec["build"] | {"path": "files"}
            elif isinstance(spec.get("conda_file"), str):
                spec["conda_file"] = f"files/{spec['conda_file']}"
        elif self.kind == "component":
            code = {"code": "files"} if self.files else {}
            spec |= {"task": spec["task"] | code} if "task" in spec else code
        else:
            spec["tags"] = {"stage": "pipeline"} | spec["tags"]
            spec |= {side: self._described(side) for side in ("inputs", "outputs") if side in spec}
        for place, used in self.uses.items():
            spec = _with(spec, place.split("."), reference(used))
        path = folder / "spec.yml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    def _described(self, side: str) -> dict[str, Any]:
        """The ports of a pipeline; one that says nothing about itself is described by the first that it is bound to."""
        described = {}
        for port, value in self.spec[side].items():
            bound = (
                used._described(side).get(inner, {}).get("description")
                for place, used in self.uses.items()
                for inner, binding in (self.spec["jobs"][place.split(".")[1]].get(side) or {}).items()
                if (binding.get("path") if isinstance(binding, dict) else binding) == f"${{{{parent.{side}.{port}}}}}"
            )
            said = value.get("description") or (next(bound, None) if self.kind == "pipeline" else None)
            described[port] = value | ({"description": said} if said else {})
        return described


def read(root: Path) -> list[Source]:
    """All that the repository has, what depends on others after them.

    Raises ``RunError`` with the file for a spec that cannot be read or names something that is not here.
    """
    quiet()
    specs = {path.resolve(): spec for path, spec in _specs(root)}
    for path, spec in specs.items():
        for key in ("name", "version"):
            if not spec.get(key):
                raise RunError(f"{path}: {key}: missing; what is registered has a name and a version")
    made: dict[Path, Source] = {}
    try:
        order = list(graphlib.TopologicalSorter({path: _used(path, specs).values() for path in specs}).static_order())
    except graphlib.CycleError as error:
        raise RunError(f"pipelines that hold each other: {' -> '.join(str(path) for path in error.args[1])}") from None
    for path in order:
        uses = {place: made[used] for place, used in _used(path, specs).items()}
        kind = _kind(specs[path])
        place = path.relative_to(root.resolve())
        made[path] = Source(kind, place, path.read_bytes(), _files(kind, path, specs[path]), uses)
    seen: dict[tuple[bool, str], Source] = {}
    for source in made.values():  # components and pipeline components have their names in common
        if (other := seen.setdefault((source.kind == "environment", source.name), source)) is not source:
            raise RunError(f"{source.path}: name: {source.name} is that of {other.path} too")
    # pipelines stay in the order in which they depend on each other
    return sorted(
        made.values(), key=lambda each: (KINDS.index(each.kind), each.name if each.kind != "pipeline" else "")
    )


def chosen(sources: list[Source], names: Iterable[str]) -> list[Source]:
    """Those with one of the names and all that they depend on; all where no name is given."""
    if not (wanted := set(names)):
        return sources
    if unknown := sorted(wanted - {source.name for source in sources}):
        raise RunError(f"--only: there is nothing called {', '.join(unknown)} in environments, components or pipelines")
    kept = []
    for source in reversed(sources):  # a dependency comes before what depends on it
        if source.name in wanted:
            wanted |= {used.name for used in source.uses.values()}
            kept.append(source)
    return kept[::-1]


def _specs(root: Path) -> Iterable[tuple[Path, dict[str, Any]]]:
    for pattern in ("environments/*/environment.yml", "components/*/*.yml", "pipelines/components/*.yml"):
        for path in sorted(root.glob(pattern)):
            try:
                spec = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise RunError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
            schema = str(spec.get("$schema")) if isinstance(spec, dict) else ""
            if schema.endswith(("Component.schema.json", "/environment.schema.json")):
                yield path, spec


def _kind(spec: dict[str, Any]) -> str:
    if spec["$schema"].endswith("/environment.schema.json"):
        return "environment"
    return "pipeline" if spec.get("type") == "pipeline" else "component"


def _used(path: Path, specs: dict[Path, dict[str, Any]]) -> dict[str, Path]:
    """The specs that a spec names by a path; those of assets that are registered already stay as they are."""
    spec = specs[path]
    named: dict[str, Any] = {"environment": spec.get("environment")}
    if isinstance(spec.get("task"), dict):
        named["task.environment"] = spec["task"].get("environment")
    for node, content in (spec.get("jobs") or {}).items():
        named |= {f"jobs.{node}.{key}": content[key] for key in _NODE_KEYS if key in content}
    found = {}
    for place, value in named.items():
        if value is None or (isinstance(value, str) and value.startswith("azureml:")):
            continue
        target = (path.parent / value.removeprefix("file:")).resolve() if isinstance(value, str) else None
        if target not in specs:
            raise RunError(f"{path}: {place}: {value} is not a file of this repository that is registered")
        found[place] = target
    return found


def _files(kind: str, path: Path, spec: dict[str, Any]) -> dict[str, bytes]:
    """What is uploaded with a spec."""
    if kind == "pipeline":
        return {}
    if kind == "environment":
        files = (file for file in sorted(path.parent.rglob("*")) if file.is_file())
        return {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in files}
    from azure.ai.ml import load_component
    from azure.ai.ml.exceptions import MlException
    from marshmallow.exceptions import ValidationError

    try:
        taken = snapshot.take(load_component(path)).files
    except (MlException, ValidationError) as error:
        raise RunError(f"{path}: refused by azure-ai-ml; scripts/lint.py {path} says why") from error
    if "task" not in spec:
        return taken
    # A parallel component takes no additional_includes, so that its code is the folder of all components. It needs its
    # own one and what is shared, and is not to be another one whenever some component changes.
    own = Path(spec["task"]["entry_script"]).parts[0]
    return {name: content for name, content in taken.items() if Path(name).parts[0] in (own, "_shared")}


def _short(sha256: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(sha256.ljust(2 * _SHORT_BYTES, "0"))[:_SHORT_BYTES]).decode()


def _with(spec: dict[str, Any], place: list[str], value: str) -> dict[str, Any]:
    """The spec with another value at a place."""
    key, *inner = place
    return spec | {key: _with(spec[key], inner, value) if inner else value}
