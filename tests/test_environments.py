"""Every environment is pinned exactly, and one package has one version everywhere."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SHARED = sorted(p for p in (ROOT / "components" / "_shared").iterdir() if (p / "__init__.py").is_file())
CONDA_FILES = sorted((ROOT / "environments").glob("*/conda.yml"))
# Not installed on every laptop: privacy holds gigabytes of language models that only one choice of one input needs, and
# llm-compressor of gptq takes no Transformers as late as that of all others.
NOT_IN_THE_LOCK = {"privacy", "gptq"}
OTHER_VERSIONS = {("gptq", "transformers")}
GPU_ONLY = {"bitsandbytes", "liger-kernel"}
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[a-z,]+\])?==(?P<version>[^=\s]+)")
# What is imported is not always called what is installed.
PACKAGES = {
    "yaml": "pyyaml",
    "azure.ai.ml": "azure-ai-ml",
    "azure.core": "azure-core",
    "azure.identity": "azure-identity",
    "azure.keyvault.keys": "azure-keyvault-keys",
    "azure.mgmt.monitor": "azure-mgmt-monitor",
    "bs4": "beautifulsoup4",
    "sklearn": "scikit-learn",
}


def pins_of(conda_file: Path) -> dict[str, str]:
    content = yaml.safe_load(conda_file.read_text(encoding="utf-8"))
    pip = next(entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict))
    pins = {}
    for line in pip:
        match = PIN.fullmatch(line)
        assert match, f"{conda_file}: {line} is not pinned exactly"
        pins[normalized(match["name"])] = match["version"]
    return pins


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    lines = (ROOT / "scripts" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    matches = [PIN.fullmatch(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    assert all(matches)
    return {normalized(match["name"]): match["version"].split("+")[0] for match in matches}


def test_there_are_environments():
    assert {p.parent.name for p in CONDA_FILES} >= {"data", "train", "evaluate", "release"}


@pytest.mark.parametrize("conda_file", CONDA_FILES, ids=lambda p: p.parent.name)
def test_exact_pins_and_dated_image(conda_file):
    content = yaml.safe_load(conda_file.read_text(encoding="utf-8"))
    for entry in content["dependencies"]:
        if isinstance(entry, str):
            assert re.fullmatch(r"[a-z]+=[\d.]+", entry), entry
    assert pins_of(conda_file)
    environment = yaml.safe_load((conda_file.parent / "environment.yml").read_text(encoding="utf-8"))
    assert re.search(r":\d{8}\.v\d+$", environment["image"]), "an image tag that moves is not a pin"


@pytest.mark.parametrize("conda_file", CONDA_FILES, ids=lambda p: p.parent.name)
def test_one_version_everywhere(conda_file):
    """The environments agree with each other because each agrees with what is installed locally."""
    lock = locked()
    for name, version in pins_of(conda_file).items():
        if name in GPU_ONLY or (conda_file.parent.name in NOT_IN_THE_LOCK and name not in lock):
            continue
        if (conda_file.parent.name, name) in OTHER_VERSIONS:
            continue
        assert lock.get(name) == version, f"{conda_file.parent.name}: {name}=={version}, locally {lock.get(name)}"


@pytest.mark.parametrize("conda_file", CONDA_FILES, ids=lambda p: p.parent.name)
def test_components_import_only_what_their_environment_pins(conda_file):
    shared = {folder.name for folder in SHARED}
    for spec in (ROOT / "components").glob("*/component.yml"):
        text = spec.read_text(encoding="utf-8")
        if f"environments/{conda_file.parent.name}/" not in text:
            continue
        # A folder with two specs has modules for either environment.
        specs = "".join(path.read_text(encoding="utf-8") for path in spec.parent.glob("*.yml"))
        named = set(re.findall(r"environments/(\w+)/environment\.yml", specs))
        pins = {name for file in CONDA_FILES if file.parent.name in named for name in pins_of(file)}
        # slmkit serves every environment, and imports what a function needs within it.
        includes = yaml.safe_load(text)["additional_includes"]
        included = [f for f in SHARED if f.name != "slmkit" and f"../_shared/{f.name}" in includes]
        files = [file for folder in (spec.parent, *included) for file in folder.glob("*.py")]
        files += [spec.parent / include for include in includes if include.endswith(".py")]
        own = {file.stem for file in files}
        for file in files:
            for module in imports_of(file):
                top = module.split(".")[0]
                if top in own | shared or top in sys.stdlib_module_names:
                    continue
                package = next((pkg for name, pkg in PACKAGES.items() if module.startswith(name)), top)
                assert normalized(package) in pins, f"{file.resolve().relative_to(ROOT)} imports {module}"


def imports_of(file: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module)
    return modules
