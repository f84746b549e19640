"""register.py against a workspace: what Studio's designer shows, what is left alone, refused, and taken up again."""

import contextlib
import io
import itertools
from pathlib import Path

import pytest
import yaml

import register
from localml.workspace.blobs import Blobs
from localml.workspace.settings import ca_bundle, read
from registration import sources
from registration.destination import Destination
from tests.test_register_plan import ALL, FILES, edit

ROOT = Path(__file__).resolve().parent.parent.parent
VALUES = ("type", "description", "enum", "min", "max", "default", "optional")


def run(*flags: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = register.main(list(flags))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def client(workspace):
    return workspace.client()


NUMBER = itertools.count()


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A small repository in place of this one, with names of its own, since all tests share one workspace."""
    number = next(NUMBER)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        for given in ALL:
            text = text.replace(f"\nname: {given}\n", f"\nname: {given}_{number}\n")
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(register, "ROOT", tmp_path)
    return tmp_path


def name_of(repository: Path, spec: str) -> str:
    return next(source.name for source in sources.read(repository) if source.path == Path(spec))


def ports(spec: dict, side: str) -> dict[str, dict]:
    return {port: {key: _plain(value[key]) for key in VALUES if key in value} for port, value in spec[side].items()}


def _plain(value: object) -> object:
    """Numbers and booleans are sent as text by azure-ai-ml."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    text = " ".join(str(value).split()).lower()
    with contextlib.suppress(ValueError):
        return float(text)
    return text


@pytest.mark.slow
def test_the_designer_shows_all_of_this_repository_as_its_files_say(client, monkeypatch):
    """Names, descriptions, categories and typed ports; nodes are registered components, environments are named.

    Of the code only the specs are uploaded, which takes a third of the time; the next test is about the code.
    """
    files = sources._files

    def fewer(kind: str, *spec) -> dict[str, bytes]:
        found = files(kind, *spec)
        return {name: found[name] for name in found if kind == "environment" or name.endswith(".yml")}

    monkeypatch.setattr(sources, "_files", fewer)
    here = sources.read(ROOT)
    code, out, err = run()
    assert (code, err) == (0, "")
    assert out.count("\nregistered") + out.startswith("registered") == len(here)
    assert f"workspace local: {len(here)} registered, 0 unchanged" in out
    assert f"workspace local: 0 registered, {len(here)} unchanged" in run()[1]

    wrong = []
    for source in here:
        if source.kind == "environment":
            shown = client.environments.get(source.name, source.version)
            conda = source.files.get("conda.yml")
            assert conda is None or shown.conda_file == yaml.safe_load(conda)
            continue
        shown, spec = client.components.get(source.name, source.version), source.spec
        assert shown.display_name == spec["display_name"]
        assert " ".join(shown.description.split()) == " ".join(spec["description"].split())
        assert shown.tags["stage"] == (spec.get("tags") or {}).get("stage", "pipeline")
        for side in ("inputs", "outputs"):
            seen = {name: port._to_dict() for name, port in getattr(shown, side).items()}
            undescribed = [name for name, port in seen.items() if not port.get("description")]
            wrong += [f"{source}: {side}: {name}" for name in undescribed]
            for name, port in ports({side: seen}, side).items():
                expected = ports(spec, side)[name]
                # a bare port of a pipeline is described by that which it is bound to
                assert port == {"description": port.get("description")} | expected, f"{source}: {name}"
            assert seen.keys() == spec[side].keys()
        if source.kind == "pipeline":
            nodes = {name: node.component for name, node in shown.jobs.items()}
            used = {place.split(".")[1]: str(used) for place, used in source.uses.items()}
            assert nodes == used
        else:
            (environment,) = source.uses.values()
            named = getattr(shown, "environment", None) or shown.task.environment
            assert str(named).endswith(f"/environments/{environment.name}/versions/{environment.version}")
    assert not wrong


def test_the_snapshot_that_is_registered_is_that_of_the_files(workspace, client, repository, tmp_path_factory):
    assert run()[0] == 0
    name = name_of(repository, "components/count_words/parallel.yml")
    code = client.components.get(name, "0.1.0").task.code
    uri = client._code.get(*code.rsplit("/", 3)[1::2]).path
    known = read(workspace.root)
    blobs = Blobs(known.blob_port, known.blob_key, ca_bundle(workspace.root))
    container, _, path = uri.partition(f"{known.blob_port}/localworkspace/")[2].partition("/")
    folder = blobs.download(container, path, tmp_path_factory.mktemp("code"))
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    own = {f"count_words/{file}" for file in ("component.yml", "parallel.yml", "main.py")}
    assert found == own | {"_shared/kit/__init__.py"}


def test_a_change_is_refused_until_it_has_a_version_and_then_registered_alone(client, repository):
    assert run()[0] == 0
    edit(repository, "components/count_words/main.py", "counted", "recounted")
    edit(repository, "environments/data/environment.yml", "image:1", "image:2")
    before = len(list(client.components.list()))
    for flags in ((), ("--dry-run",)):
        code, _, err = run(*flags)
        assert code == 1
        assert "changed since version 0.1.0 was registered: main.py; give components/count_words/component.yml" in err
        assert "registered: environment.yml; give environments/data/environment.yml a new version" in err
    assert len(list(client.components.list())) == before
    edit(repository, "environments/data/environment.yml", "image:2", "image:1")
    edit(repository, "components/count_words/main.py", "recounted", "counted")
    edit(repository, "pipelines/components/all_counting.yml", "version: 0.1.0", "version: 0.2.0")
    name = name_of(repository, "pipelines/components/all_counting.yml")
    code, out, _ = run()
    assert (code, out) == (0, f"registered 1/1: pipeline {name}:0.2.0\nworkspace local: 1 registered, 4 unchanged\n")


def test_after_an_interruption_it_goes_on(repository, monkeypatch):
    register_one = Destination.register

    def broken(self, source):
        if source.kind == "pipeline":
            raise KeyboardInterrupt
        register_one(self, source)

    with monkeypatch.context() as patch:
        patch.setattr(Destination, "register", broken)
        assert run()[0] == 130
    assert "2 would be registered, 3 unchanged" in run("--dry-run")[1]
    assert "2 registered, 3 unchanged" in run()[1]


def test_what_is_there_is_listed_by_its_newest_version(repository):
    assert run()[0] == 0
    name = name_of(repository, "components/count_words/component.yml")
    edit(repository, "components/count_words/component.yml", "version: 0.1.0", "version: 0.10.0")
    assert run("--only", name)[0] == 0
    code, out, _ = run("--list")
    assert code == 0
    (line,) = (line for line in out.splitlines() if f" {name} " in line)
    assert line.split()[:4] == ["component", name, "0.10.0", "data"]
    assert line.endswith("Count words")


def test_a_registry_gets_what_the_one_before_it_has(workspace, repository):
    """From dev to test: the same versions and hashes, naming what is in the registry itself."""
    if "REGISTRY_DISCOVERY_ENDPOINT_URL" not in workspace.variables:
        pytest.skip("this local workspace answers for no registries")
    dev, test = (f"{stage}-{repository.name.replace('_', '-')[:20]}" for stage in ("dev", "test"))
    component, inner, outer = (
        name_of(repository, spec)
        for spec in (
            "components/count_words/component.yml",
            "pipelines/components/counting.yml",
            "pipelines/components/all_counting.yml",
        )
    )
    code, out, err = run("--registry-name", dev, "--only", inner)
    assert (code, err) == (0, "")
    assert f"registry {dev}: 3 registered, 0 unchanged" in out
    promote = ("--from-registry", dev, "--to-registry", test)
    code, _, err = run(*promote)
    assert code == 1
    assert f"{outer}:0.1.0: it is not in registry {dev}" in err
    assert f"registry {test}: 3 registered, 0 unchanged" in run(*promote, "--only", inner)[1]
    assert f"registry {test}: 0 registered, 3 unchanged" in run(*promote, "--only", inner)[1]

    before, after = (workspace.client(registry_name=name).components for name in (dev, test))
    for name in (component, inner):
        assert after.get(name, "0.1.0").tags == before.get(name, "0.1.0").tags
    shown = after.get(component, "0.1.0")
    environment = name_of(repository, "environments/data/environment.yml")
    assert shown.environment == f"azureml://registries/{test}/environments/{environment}/versions/0.1.0"
    assert shown.code.startswith(f"azureml://registries/{test}/codes/")
    node = after.get(inner, "0.1.0").jobs["count"].component
    assert node == f"azureml://registries/{test}/components/{component}/versions/0.1.0"


@pytest.mark.parametrize(
    ("flags", "variables", "code", "said"),
    [
        (["--workspace-name", "another", "--dry-run"], {}, 1, "Workspace another was not found"),
        ([], {"IDENTITY_HEADER": "wrong"}, 3, "no sign-in"),
    ],
)
def test_what_keeps_it_from_registering_is_one_line(repository, monkeypatch, flags, variables, code, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found, _, err = run(*flags)
    assert said in err
    assert found == code, err
    assert err.count("\n") == 1
    assert len(err) < 600
