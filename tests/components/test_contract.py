"""Every component keeps the contract: spec, dataclass, command line, snapshot and environment agree."""

import dataclasses
import re
import subprocess
import sys
import types
import typing
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = sorted(p.parent for p in (ROOT / "components").glob("*/component.yml"))
SHARED = sorted(p.parent.name for p in (ROOT / "components" / "_shared").glob("*/__init__.py"))
# The same work in another environment or by the parallel engine: gptq.yml, parallel.yml and the like.
SECOND_SPECS = sorted(
    path
    for folder in COMPONENTS
    for path in folder.glob("*.yml")
    if path.name != "component.yml" and re.search(r"^type: (command|parallel)$", path.read_text("utf-8"), re.M)
)
PORT_WORDS = {
    *(
        "raw_data",
        "documents",
        "chats",
        "personas",
        "train_data",
        "validation_data",
        "test_data",
        "base_model",
        "model",
    ),
    *("eval_items", "predictions", "scores", "preferences", "comparison", "decision", "report", "manifest", "endpoint"),
}
PYTHON_TYPES = {"string": str, "integer": int, "number": float, "boolean": bool}

each_component = pytest.mark.parametrize("folder", COMPONENTS, ids=lambda p: p.name)


def spec_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "component.yml").read_text(encoding="utf-8"))


def args_of(load_main, folder: Path) -> dict[str, tuple[type, bool, object]]:
    """Name -> (type without None, may be None, default) of the component's dataclass."""
    args_type = load_main(folder.name).Args
    hints = typing.get_type_hints(args_type)
    fields = {}
    for field in dataclasses.fields(args_type):
        hint = hints[field.name]
        parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = [part for part in parts if part is not types.NoneType]
        assert len(kinds) == 1, field.name
        fields[field.name] = (kinds[0], len(parts) > 1, field.default)
    return fields


def test_there_are_components():
    assert len(COMPONENTS) >= 10


@each_component
def test_names_and_descriptions(folder):
    spec = spec_of(folder)
    assert spec["name"] == folder.name
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", folder.name)
    assert spec["type"] == "command"
    assert re.fullmatch(r"\d+\.\d+\.\d+", str(spec["version"]))
    assert spec["display_name"].strip()
    assert len(spec["description"]) > 20
    assert spec["tags"]["stage"] in ("data", "train", "evaluate", "release", "monitor")
    assert isinstance(spec["is_deterministic"], bool)
    for name, port in {**spec["inputs"], **spec["outputs"]}.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert len(port.get("description", "")) >= 10, f"{name} needs a description"


@each_component
def test_ports_speak_the_common_words(folder):
    """A data port ends in one of the agreed words, so that one word means one thing everywhere."""
    spec = spec_of(folder)
    for name, port in {**spec["inputs"], **spec["outputs"]}.items():
        if port["type"] not in PYTHON_TYPES:
            known = any(name == word or name.endswith(f"_{word}") for word in PORT_WORDS)
            assert known or name in EXTRA_PORTS.get(folder.name, ()), f"{name} is not a word of the design"


@pytest.mark.parametrize("path", SECOND_SPECS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_second_spec_speaks_as_the_first(path):
    from azure.ai.ml import load_component

    first, spec = spec_of(path.parent), yaml.safe_load(path.read_text("utf-8"))
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", spec["name"]) and spec["name"] != first["name"]
    assert (spec["version"], spec["tags"]["stage"]) == (first["version"], first["tags"]["stage"])
    assert len(spec["description"]) > 20 and spec["is_deterministic"] == first["is_deterministic"]
    text, ports = path.read_text("utf-8"), spec["inputs"] | spec["outputs"]
    for name, port in ports.items():
        assert len(port.get("description", "")) >= 10, f"{name} needs a description"
        assert not (port.get("optional") and "default" in port), f"{name}: a defaulted input is not optional"
        value = f"${{{{{'inputs' if name in spec['inputs'] else 'outputs'}.{name}}}}}"
        flag = f"$[[--{name} {value}]]" if port.get("optional") else f"--{name} {value}"
        is_handed_out = spec.get("input_data") == value  # by the parallel engine, in mini-batches
        assert is_handed_out or flag in map(str.strip, text.splitlines()), name
    result = load_component(path)._validate()
    assert result.passed, result.error_messages


EXTRA_PORTS = {
    "collect_documents": ("quarantine",),
    "prepare_dataset": ("guarded_data", "signatures", "tokenizer"),
    "redact_pii": ("records", "redacted_records"),
    "generate_personas": ("scenario",),
    "synthesize_chats": ("taxonomy",),
    "synthesize_private_texts": ("previous_ledger", "public_topics", "ledger"),
    "audit_privacy": ("real_data", "synthetic_data", "held_out_data", "approved_data", "canaries", "ledger", "policy"),
    "batch_score": ("records",),
    "combine_records": (*(f"records_{i}" for i in range(1, 9)), "combined_records"),
    "import_model": ("model_folder",),
    "finetune_model": ("checkpoints", "adapter"),
    "align_model": ("checkpoints",),
    "score_answers": ("patterns",),
    "retrieve_context": ("context_prompt",),
    "run_flow": ("flow", "node_results"),
    "judge_answers": ("rubric", "judgments"),
    "collect_traffic": ("traffic", "records", "window", "earlier_window", "period", "exclude_items", "quarantine"),
    "combine_adapters": tuple(f"{word}_{i}" for word in ("adapter", "decision") for i in range(1, 9)),
    "prepare_canaries": ("canary_items",),
    "simulate_traffic": ("after", "period"),
    "detect_drift": (
        "canary_items",
        "traffic",
        "window",
        "baseline",
        "policy",
        "drift",
        "snapshot",
        *("history", "earlier_history"),
    ),
    "trigger_retraining": ("fresh_data", "receipt"),
    "track_benchmarks": ("earlier_history", "history"),
    "gate_promotion": ("policy", "privacy_decision"),
    "register_model": ("model_card",),
}


@each_component
def test_defaults_and_optional_ports(folder):
    for name, port in spec_of(folder)["inputs"].items():
        assert not (port.get("optional") and "default" in port), f"{name}: a defaulted input is not optional"
        assert port.get("default") not in ("", -1), f"{name}: no sentinel values"
        if port["type"] == "boolean" and "default" in port:
            assert isinstance(port["default"], bool)
        for word in ("count", "n_"):
            assert not name.startswith(word), f"{name}: counts are num_*"
        assert not re.search(r"_(ratio|share|percent|pct|secs?|mins?|ms|mb)$", name) or name == "warmup_ratio", name


@each_component
def test_dataclass_mirrors_the_spec(folder, load_main):
    spec = spec_of(folder)
    fields = args_of(load_main, folder)
    assert load_main(folder.name).Args.__dataclass_params__.frozen
    assert list(fields) and set(fields) == {*spec["inputs"], *spec["outputs"]}
    for name, port in {**spec["inputs"], **spec["outputs"]}.items():
        kind, may_be_none, default = fields[name]
        assert kind is PYTHON_TYPES.get(port["type"], Path), name
        assert may_be_none == bool(port.get("optional")), name
        if "default" in port:
            assert default == port["default"], name
        elif port.get("optional"):
            assert default is None, name
        else:
            assert default is dataclasses.MISSING, name


@each_component
def test_command_is_one_flag_per_port(folder):
    spec = spec_of(folder)
    expected = ["python main.py"]
    for name, port in spec["inputs"].items():
        flag = f"--{name} ${{{{inputs.{name}}}}}"
        expected.append(f"$[[{flag}]]" if port.get("optional") else flag)
    expected += [f"--{name} ${{{{outputs.{name}}}}}" for name in spec["outputs"]]
    assert spec["command"].split() == " ".join(expected).split()
    text = (folder / "component.yml").read_text(encoding="utf-8")
    lines = [line.strip() for line in text[text.index("command:") :].splitlines()]
    assert all(line in lines for line in expected), "one flag a line"


@each_component
def test_snapshot_and_environment(folder):
    spec = spec_of(folder)
    assert spec["code"] == "."
    assert spec["additional_includes"][0] == "../_shared/slmkit"
    imported = {
        package
        for package in SHARED
        if any(re.search(rf"^\s*(from|import) {package}\b", p.read_text("utf-8"), re.M) for p in folder.glob("*.py"))
    }
    included = set(spec["additional_includes"])
    from_elsewhere = {path for path in included if not path.startswith("../_shared/")}
    assert included - from_elsewhere == {f"../_shared/{package}" for package in imported}
    assert all((folder / path).is_file() for path in from_elsewhere), "a module of another component, by its name"
    environment = re.fullmatch(r"file:\.\./\.\./environments/(\w+)/environment\.yml", spec["environment"])
    assert environment, spec["environment"]
    assert (ROOT / "environments" / environment[1] / "environment.yml").is_file()


@each_component
def test_azure_ai_ml_accepts_the_spec(folder):
    from azure.ai.ml import load_component

    result = load_component(folder / "component.yml")._validate()
    assert result.passed, result.error_messages


@each_component
def test_source_keeps_the_house_rules(folder):
    source = (folder / "main.py").read_text(encoding="utf-8")
    assert "parse_known_args" not in source
    assert "cli.parse(Args," in source
    assert source.startswith('"""')
    for file in folder.glob("*.py"):
        assert file.name not in ("utils.py", "common.py", "helpers.py")
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file.name


def test_module_names_are_unique():
    modules = [p.name for folder in COMPONENTS for p in folder.glob("*.py") if p.name != "main.py"]
    assert len(modules) == len(set(modules))


@each_component
def test_what_calls_a_model_service_is_not_deterministic(folder):
    """A component that talks to an endpoint may not be reused, and one with a side effect says so in a tag."""
    source = "".join(p.read_text(encoding="utf-8") for p in folder.glob("*.py"))
    spec = spec_of(folder)
    if "chat_client" in source or "create_model_version" in source:
        assert spec["is_deterministic"] is False
    if "create_model_version" in source:
        assert spec["tags"]["side_effect"]


@each_component
def test_help_is_quick_and_complete(folder):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(folder / "main.py"), "--help"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "components" / "_shared"), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr[-500:]
    for name in args_of_spec(folder):
        assert f"--{name}" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    heavy = {"torch", "transformers", "evaluate", "mlflow", "scipy", "pandas", "datasets", "azure.ai.ml", "markitdown"}
    assert not imported & heavy


def args_of_spec(folder: Path) -> list[str]:
    spec = spec_of(folder)
    return [*spec["inputs"], *spec["outputs"]]


@each_component
def test_bad_arguments_exit_2_with_one_line(folder, run_component):
    done = run_component(folder.name, nonsense="1")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert folder.name in done.stderr
