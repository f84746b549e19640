"""Ways to call a component in tests: as a real process, as Azure ML does, or its functions in this process."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from slmkit import tracking
from tests.chat_endpoint import Endpoint

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = ROOT / "components"
RAW_DATA = ROOT.parent / "shared" / "data" / "raw"

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The same examples each time, so that no change fails by chance; HYPOTHESIS_PROFILE=default looks for new ones.
settings.register_profile("same", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests first, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, "pipelines" not in item.path.parts))


@pytest.fixture(autouse=True)
def tracking_does_not_rest(monkeypatch) -> None:
    """Whatever a test before this one in the same process failed to log."""
    monkeypatch.setattr(tracking, "_resume_at", 0.0)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def raw_data() -> Path:
    """Real public documents that are not part of this repository."""
    if not RAW_DATA.is_dir():
        pytest.skip(f"the real data for development is not at {RAW_DATA}")
    return RAW_DATA


@pytest.fixture(scope="session")
def load_main() -> Callable[[str], ModuleType]:
    """Import a component's main.py in this process, under a name of its own."""

    def load(component: str) -> ModuleType:
        name = f"{component}_main"
        if name not in sys.modules:
            folder = COMPONENTS / component
            if str(folder) not in sys.path:
                sys.path.append(str(folder))
            spec = importlib.util.spec_from_file_location(name, folder / "main.py")
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        return sys.modules[name]

    return load


@pytest.fixture(scope="session")
def run_component() -> Callable[..., subprocess.CompletedProcess]:
    """Run ``python main.py --flag value ...`` of a component as a process; ``env`` adds environment variables."""

    def run(component: str, *, env: dict[str, str] | None = None, timeout: float = 300, **flags: object):
        command = [sys.executable, str(COMPONENTS / component / "main.py")]
        for name, value in flags.items():
            command += [f"--{name}", str(value)]
        base = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AZUREML_"))}
        path = os.pathsep.join([str(COMPONENTS / "_shared")])
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            env={**base, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **(env or {})},
        )

    return run


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    """Start endpoints on loopback that answer with what is given, or with what a function of the request says."""
    with contextlib.ExitStack() as stack:

        def start(reply: object) -> Endpoint:
            endpoint = Endpoint(reply if callable(reply) else lambda number, body: reply)
            stack.callback(endpoint.close)
            return endpoint

        yield start


@pytest.fixture(scope="session")
def small_model(load_main, tmp_path_factory) -> Path:
    """The tiny model after a few steps of training: as good as a long one wherever its answers do not matter."""
    load_main("import_model")
    import tiny_model

    folder = tmp_path_factory.mktemp("small_model")
    model, tokenizer = tiny_model.make(seed=1, num_steps=4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
