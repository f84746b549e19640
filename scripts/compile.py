#!/usr/bin/env python
"""Compile pipelines and presets into the files that `az ml job create -f` and `scripts/run.py -f` take.

A preset gives one job in pipelines/jobs/; a pipeline that is a node of another gives a pipeline component in
pipelines/components/, since a job file can only name the component of a node, not hold it.
"""

import argparse
import difflib
import importlib
import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import localml.needs_venv  # noqa: F401 (before what a Python may lack)

# isort: split
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from localml.errors import RunError
from localml.jobfile import quiet
from localml.sweep_plan import GOAL_TAG

ROOT = Path(__file__).resolve().parent.parent
PIPELINES = ROOT / "pipelines"
SCHEMA = "https://azuremlschemas.azureedge.net/latest/{}.schema.json"


class SweepValues(BaseModel):
    """What a sweep varies and when it ends, in the spelling of Azure ML; `stop_when` is the goal, kept as a tag."""

    model_config = ConfigDict(extra="forbid")

    search_space: dict[str, dict[str, Any]]
    limits: dict[str, int]
    sampling_algorithm: dict[str, Any]
    early_termination: dict[str, Any] | None = None
    stop_when: str | None = None

    def node_values(self) -> dict[str, Any]:
        """The keys of a sweep node."""
        values = self.model_dump(exclude_none=True, exclude={"stop_when"})
        return values | ({"tags": {GOAL_TAG: self.stop_when}} if self.stop_when else {})


class OutputName(BaseModel):
    """Under which name an output is registered as an asset; the version counts up where it is not given."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,29}$")] | None = None


class Preset(BaseModel):
    """Values for one pipeline; `compute` gives the default cluster, and others by the name of a step, as do
    `resources` (nodes), `distribution` (processes on each) and `sweep`. `outputs` names those that are registered."""

    model_config = ConfigDict(extra="forbid")

    pipeline: str
    display_name: str
    description: str
    experiment_name: str
    inputs: dict[str, Any]
    outputs: dict[str, OutputName] = {}
    compute: dict[str, str]
    resources: dict[str, dict[str, Any]] = {}
    distribution: dict[str, dict[str, Any]] = {}
    sweep: dict[str, SweepValues] = {}


def read_preset(path: Path) -> Preset:
    """Read a preset; raises ``RunError`` with the file and the key that is unknown, missing or of a wrong type."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "jobs" in content:
            raise RunError(f"{path}: this is a job; compile its preset, pipelines/presets/{path.name}")
        preset = Preset.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        found = error.errors()
        unknown = [each for each in found if each["type"] == "extra_forbidden" and len(each["loc"]) == 1]
        first = [*unknown, *found][0]  # a section that is misspelt is also one that is missing
        key = ".".join(map(str, first["loc"])) or "the file"
        section, *inner = first["loc"] or ("",)
        model = {"sweep": SweepValues, "outputs": OutputName}.get(section, Preset) if inner else Preset
        known = ", ".join(model.model_fields)
        what = f"unknown key; known are: {known}" if first["type"] == "extra_forbidden" else first["msg"]
        raise RunError(f"{path}: {key}: {what}") from error
    if "default" not in preset.compute:
        raise RunError(f"{path}: compute: needs a default cluster, for example 'default: cpu-cluster'")
    return preset


def preset_file(given: Path) -> Path:
    """The file of a preset that is given by its path or its name alone."""
    if given.is_file():
        return given
    presets = {file.stem: file for file in sorted((PIPELINES / "presets").glob("*.yml"))}
    if given.is_dir():
        raise RunError(f"{given} is a folder; name presets in it, or none for all of pipelines/presets")
    if str(given) not in presets:
        raise RunError(f"{given}: no such preset; there are: {', '.join(presets)}")
    return presets[str(given)]


def compile_preset(path: Path) -> dict[Path, str]:
    """The files that a preset compiles to: its job, and the pipeline components among its nodes."""
    quiet()
    preset = read_preset(path)
    components: dict[Path, str] = {}
    job = _build(path, preset)
    content = _plain(job._to_dict(), components)
    defaults = _with_booleans(content["inputs"], job.component._to_dict()["inputs"])
    given = {name: preset.inputs.get(name, default) for name, default in defaults.items()}
    absent = job.component.inputs.keys() - given.keys()
    if required := sorted(name for name in absent if not job.component.inputs[name].optional):
        raise RunError(f"{path}: inputs: {', '.join(required)}: required by the pipeline and not given")
    _unbind(content["jobs"], absent)
    content |= {"$schema": SCHEMA.format("pipelineJob"), "type": "pipeline", "display_name": preset.display_name}
    content |= {"description": " ".join(preset.description.split()), "experiment_name": preset.experiment_name}
    content |= {"inputs": given, "settings": {"default_compute": f"azureml:{preset.compute['default']}"}}
    for port, asset in preset.outputs.items():
        if port not in content["outputs"]:
            known = ", ".join(content["outputs"])
            raise RunError(f"{path}: outputs: the pipeline has no output {port!r}; known: {known}")
        content["outputs"][port] |= asset.model_dump(exclude_none=True)
    for step, cluster in preset.compute.items():
        if step != "default":
            _step(path, content, "compute", step)["compute"] = f"azureml:{cluster}"
    for step, resources in preset.resources.items():
        _step(path, content, "resources", step)["resources"] = resources
    for step, distribution in preset.distribution.items():
        if (node := _step(path, content, "distribution", step))["type"] == "sweep":
            raise RunError(f"{path}: distribution: {step} is a sweep: its processes stand in the trial's component.yml")
        node["distribution"] = distribution
    for step, values in preset.sweep.items():
        if (node := _step(path, content, "sweep", step))["type"] != "sweep":
            raise RunError(f"{path}: sweep: {step} is a {node['type']} step; the pipeline decides what is a sweep")
        node.update(values.node_values())
    for step, node in content["jobs"].items():
        if node["type"] == "sweep" and step not in preset.sweep:
            raise RunError(f"{path}: sweep: {step} needs a search_space, limits and a sampling_algorithm")
    source = f"pipelines/{preset.pipeline}.py and pipelines/presets/{path.name}"
    return {PIPELINES / "jobs" / path.name: _text(source, content), **components}


def _text(source: str, content: dict[str, Any]) -> str:
    order = ["$schema", "type", "name", "version", "display_name", "description", "experiment_name", "settings"]
    ordered = {key: content[key] for key in [*order, "inputs", "outputs", "jobs"] if key in content}
    body = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=110)
    return f"# Compiled from {source} by scripts/compile.py; edit those.\n{body}"


def _build(path: Path, preset: Preset) -> Any:
    """Call the pipeline function with the preset's inputs."""
    from azure.ai.ml import Input
    from azure.ai.ml.exceptions import MlException

    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    if not (PIPELINES / f"{preset.pipeline}.py").is_file():
        raise RunError(f"{path}: pipeline: there is no pipelines/{preset.pipeline}.py")
    try:
        function = getattr(importlib.import_module(f"pipelines.{preset.pipeline}"), preset.pipeline)
    except (MlException, AttributeError) as error:
        raise RunError(f"pipelines/{preset.pipeline}.py: {' '.join(str(error).split())}") from error
    known = inspect.signature(function).parameters
    if unknown := [name for name in preset.inputs if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, 1)
        what = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known)}"
        raise RunError(f"{path}: inputs: the pipeline has no input {unknown[0]!r}; {what}")
    try:
        given = {name: Input(**value) if isinstance(value, dict) else value for name, value in preset.inputs.items()}
        return function(**given)
    except ValidationError as error:  # of the lists of candidates and benchmarks
        raise RunError(f"{path}: inputs: {error.title}: {_complaint(error)}") from error
    except (MlException, TypeError) as error:
        raise RunError(f"{path}: inputs: {' '.join(str(error).split())}") from error


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
    return f"{key}: {what}" if key else f"{what} (found {first['input']})"


def _unbind(jobs: dict[str, Any], absent: set[str]) -> None:
    """Leave out what is bound to an optional input that the job does not have: Azure ML has nothing to put there."""
    bindings = {f"${{{{parent.inputs.{name}}}}}" for name in absent}
    for node in jobs.values():
        node["inputs"] = {port: value for port, value in node["inputs"].items() if str(value) not in bindings}


def _plain(value: Any, components: dict[Path, str]) -> Any:
    """The same job with `component: <file>` for every node and bindings as text; new files go to `components`."""
    if isinstance(value, list):
        return [_plain(item, components) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"path"} and str(value["path"]).startswith("${{"):
        return value["path"]
    plain = {key: _plain(item, components) for key, item in value.items()}
    held = "trial" if value.get("type") == "sweep" else "component"
    if isinstance(component := value.get(held), dict):
        plain["inputs"] = _with_booleans(plain["inputs"], component["inputs"])
        if component["type"] == "pipeline":
            name = component["name"]
            content = {"$schema": SCHEMA.format("pipelineComponent"), "version": "0.1.0", **plain["component"]}
            content["inputs"] = {port: _typed(spec) for port, spec in content["inputs"].items()}
            components[PIPELINES / "components" / f"{name}.yml"] = _text(f"pipelines/{name}.py", content)
            plain["component"] = f"../components/{name}.yml"
        else:
            folder = Path(component["code"]).resolve().relative_to(ROOT)
            plain[held] = f"../../{folder.as_posix()}/{_spec_of(folder, component['name'])}"
    return plain


def _spec_of(folder: Path, name: str) -> str:
    """The file with the component of this name: a folder may hold a second one, with an environment of its own."""
    specs = {file.name: yaml.safe_load(file.read_text(encoding="utf-8")) for file in (ROOT / folder).glob("*.yml")}
    return next(file for file, spec in specs.items() if spec.get("name") == name)


def _with_booleans(inputs: dict[str, Any], ports: dict[str, Any]) -> dict[str, Any]:
    """The same inputs with true and false as such: azure-ai-ml writes them as 1 and 0, and sends a file's 0 as that."""
    booleans = {port for port, spec in ports.items() if spec["type"] == "boolean"}
    return {
        port: bool(value) if port in booleans and isinstance(value, int) else value for port, value in inputs.items()
    }


def _typed(spec: dict[str, Any]) -> dict[str, Any]:
    """A port of a pipeline component with its numbers as numbers, which azure-ai-ml writes as text.

    One that is required says so: else azure-ai-ml 1.35 sends it as optional where its last reader can do without, and
    then refuses what it has sent.
    """
    parse = {"integer": int, "number": float, "boolean": lambda text: text == "True"}.get(spec["type"], str)
    typed = {key: parse(value) if key in ("default", "min", "max") else value for key, value in spec.items()}
    return typed if "default" in spec else typed | {"optional": spec.get("optional", False)}


def _step(path: Path, content: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    if name not in content["jobs"]:
        raise RunError(f"{path}: {key}: there is no step {name!r}; known: {', '.join(content['jobs'])}")
    return content["jobs"][name]


def main(argv: list[str] | None = None) -> int:
    """Write every job, or with --check say which ones are stale."""
    parser = argparse.ArgumentParser(prog="compile.py", description=__doc__)
    parser.add_argument("presets", nargs="*", type=Path, help="presets to compile, by file or name (default: all)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when a job is not what would be written"
    )
    args = parser.parse_args(argv)
    stale = []
    try:
        presets = [preset_file(given) for given in args.presets]
        for preset in presets or sorted((PIPELINES / "presets").glob("*.yml")):
            for target, text in compile_preset(preset).items():
                if target.is_file() and target.read_text(encoding="utf-8") == text:
                    continue
                stale.append(target)
                if not args.check:
                    target.parent.mkdir(exist_ok=True)
                    target.write_text(text, encoding="utf-8")
                print(f"{'stale' if args.check else 'written'}: {target.relative_to(ROOT)}")
    except (RunError, OSError) as error:
        print(f"compile.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
