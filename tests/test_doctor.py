"""doctor.py says what is missing, what to do, and nothing that should stay unsaid."""

import ast
import base64
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import doctor
import doctor_azure
from localml.workspace import certificates

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
WORKSPACE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ml"
SECRET = "s3cret-of-nobody"


def lines_of(findings) -> list[str]:
    return [f"{finding.state}: {finding.what} -> {finding.remedy}" for finding in findings]


def test_it_starts_before_anything_is_installed(tmp_path):
    """By the syntax of Python 3.8, and with no package at all (-S leaves them out)."""
    for name in ("doctor.py", "doctor_azure.py"):
        ast.parse((SCRIPTS / name).read_text(encoding="utf-8"), feature_version=(3, 8))
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(SCRIPTS / "doctor.py"), "--root", "new/place"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "https_proxy": f"http://me:{SECRET}@proxy:1", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    assert done.returncode == 1
    *lines, last = done.stdout.splitlines()
    missing = [line for line in lines if line.startswith("  missing ")]
    assert last == f"{len(missing)} missing"
    assert any("a proxy is set for requests to this machine" in line and "export NO_PROXY=" in line for line in missing)
    assert all(" -> " in line for line in missing)
    assert SECRET not in done.stdout
    assert not (tmp_path / "new").exists(), "it changes nothing"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A lock of four packages, and a folder of packages that is filled by name and version."""
    (tmp_path / "scripts").mkdir()
    lock = "# pinned\nfoo-bar==1.0\ntorch==2.13.0\nmarkitdown[docx]==0.1.8\nzoo==3\n"
    (tmp_path / "scripts" / "requirements.txt").write_text(lock)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)

    def fill(**versions: str) -> Path:
        folder = tmp_path / "site"
        for name, version in versions.items():
            info = folder / f"{name}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        return folder

    return fill


def test_packages_as_pinned(site):
    """A name is the same in any spelling, and a build of a version is that version."""
    found = site(foo_bar="1.0", torch="2.13.0+cpu", MarkItDown="0.1.8", zoo="3", more="9")
    assert lines_of(doctor.packages(found, ".venv")) == ["ok: 4 packages in .venv, each as pinned -> "]


def test_packages_that_are_others(site):
    found = site(foo_bar="1.0.1", torch="2.12.0+cpu")
    assert lines_of(doctor.packages(found, ".venv")) == [
        "missing: 4 of 4 packages in .venv: foo-bar is 1.0.1, not 1.0, torch is 2.12.0+cpu, not 2.13.0, "
        "markitdown is absent and 1 more -> ./scripts/setup.sh"
    ]


def test_no_packages_yet(site):
    assert lines_of(doctor.packages(None, ".venv")) == [
        "missing: the packages: there is no .venv -> ./scripts/setup.sh"
    ]


@pytest.mark.parametrize(("version", "state"), [((3, 10, 9), "missing"), ((3, 11, 0), "ok"), ((3, 14, 0), "missing")])
def test_python(monkeypatch, version, state):
    monkeypatch.setattr(sys, "version_info", version)
    assert [finding.state for finding in doctor.python()] == [state]


@pytest.mark.parametrize(
    ("system", "machine", "libc", "state"),
    [
        ("Linux", "aarch64", "glibc", "ok"),
        ("Linux", "x86_64", "", "missing"),  # musl
        ("Darwin", "arm64", "", "ok"),
        ("Darwin", "x86_64", "", "missing"),
    ],
)
def test_systems(monkeypatch, system, machine, libc, state):
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    monkeypatch.setattr(doctor.platform, "machine", lambda: machine)
    monkeypatch.setattr(doctor.platform, "libc_ver", lambda: (libc, ""))
    assert [finding.state for finding in doctor.system()] == [state]


@pytest.mark.parametrize(
    ("cuda", "driver", "says"),
    [
        ("None", None, "ok: torch for CPUs; no GPU"),
        ("'13.0'", "/bin/x", "ok: torch for CUDA 13.0 ->"),
        ("None", "/bin/x", "note: torch is built for CPUs"),
    ],
)
def test_torch(tmp_path, monkeypatch, cuda, driver, says):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.13.0'\ncuda: Optional[str] = {cuda}\nhip = '9'\n")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: driver)
    assert lines_of(doctor.torch(tmp_path))[0].startswith(says)


def test_disk_that_is_short_before_the_packages_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * 2**30))
    assert [finding.state for finding in doctor.disk(tmp_path / "new", tmp_path)] == ["ok"]
    (found,) = doctor.disk(tmp_path / "new", None)
    assert (found.state, found.what) == ("missing", "disk: 3.0 GiB free of the 10 GiB that are needed")


def test_what_runs_have_left(tmp_path):
    root = tmp_path / ".local"
    assert lines_of(doctor.state(root)) == [f"ok: {root} will be made by the first run -> "]
    (root / "workspace").mkdir(parents=True)
    (root / "mlflow.db").write_bytes(b"SQLite format 3\0" + bytes(84))
    (root / "workspace" / "workspace.db").touch()  # as SQLite leaves one before its first table
    assert lines_of(doctor.state(root)) == [f"ok: {root} holds earlier runs -> "]
    (root / "mlflow.db").write_bytes(b"\0" * 100)
    assert lines_of(doctor.state(root))[0].startswith(f"missing: {root / 'mlflow.db'} is no database -> move it away")
    assert lines_of(doctor.state(root / "mlflow.db"))[0].startswith(f"missing: {root / 'mlflow.db'} is no folder")


def test_a_port_that_is_taken(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "pipelines" / "presets").mkdir(parents=True)
        (tmp_path / "pipelines" / "presets" / "a.yml").write_text(f"inputs:\n  local_port: {port}\n")
        monkeypatch.setattr(doctor, "ROOT", tmp_path)
        (found,) = doctor.ports(tmp_path)
        assert found.state == "note"
        assert f"port {port} of 127.0.0.1" in found.what
    assert [finding.state for finding in doctor.ports(tmp_path)] == ["ok"]


@pytest.mark.parametrize(
    ("prints", "says"),
    [
        ("echo v18.0.0", "ok: Node.js 18.0.0 and npm"),
        ("echo v16.20.2", "note: Node.js 16.20.2"),
        ("exit 1", "note: Node.js does not start"),
    ],
)
def test_node(tmp_path, monkeypatch, prints, says):
    program(tmp_path / "node", prints)
    program(tmp_path / "npm", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lines_of(doctor.node())[0].startswith(says)
    (tmp_path / "npm").unlink()
    assert lines_of(doctor.node())[0].startswith("note: npm: not found -> install Node.js 18")


def program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("prints", "says"),
    [
        ('echo \'{"azure-cli": "2.80.0", "extensions": {"ml": "2.40.1"}}\'', "ok: az 2.80.0 with ml 2.40.1"),
        ('echo \'{"azure-cli": "2.80.0", "extensions": {}}\'', "note: az 2.80.0 has no extension ml"),
        ("echo Traceback", "note: az does not say its version"),
    ],
)
def test_the_command_line_of_azure(tmp_path, monkeypatch, prints, says):
    program(tmp_path / "az", prints)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lines_of([doctor_azure.cli()])[0].startswith(says)


class Azure:
    """Resource Manager and a managed identity on loopback: an answer for each path, and what was asked of each."""

    def __init__(self, folder: Path) -> None:
        certificate, key, self.bundle = certificates.ensure(folder)
        self.answers: dict[str, tuple[int, object]] = {}
        self.tokens: dict[str, str | None] = {}
        azure = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                azure.tokens[path] = self.headers["Authorization"]
                status, body = azure.answers.get(path, (404, {}))
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 302:
                    self.send_header("Location", f"{azure.url}/elsewhere")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing among the output of the tests."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.variables = {
            "ARM_CLOUD_METADATA_URL": f"{self.url}/metadata",
            "AZUREML_CURRENT_CLOUD": "Ours",
            "IDENTITY_ENDPOINT": f"{self.url}/identity",
            "IDENTITY_HEADER": SECRET,
            "REQUESTS_CA_BUNDLE": str(self.bundle),
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_RESOURCE_GROUP": "rg",
            "AZURE_ML_WORKSPACE": "ml",
        }
        claims = base64.urlsafe_b64encode(json.dumps({"upn": "me@example.com\n\x1b[2J"}).encode()).decode().rstrip("=")
        self.token = f"e30.{claims}.{SECRET}"

    def reset(self) -> None:
        self.tokens.clear()
        ends = int(time.time()) + 3600
        identity = {"access_token": self.token, "expires_on": str(ends), "resource": "x", "token_type": "Bearer"}
        computes = [{"name": name} for name in ("cpu-cluster", "gpu-cluster", "gpu-cluster-8x")]
        self.answers = {
            "/metadata": (200, [{"name": "Other"}, {"name": "Ours", "resourceManager": f"{self.url}/"}]),
            "/identity": (200, identity),
            WORKSPACE: (200, {"location": "koreacentral"}),
            f"{WORKSPACE}/computes": (200, {"value": computes}),
        }


@pytest.fixture(scope="module")
def azure_server(tmp_path_factory):
    azure = Azure(tmp_path_factory.mktemp("tls"))
    yield azure
    azure.server.shutdown()
    azure.server.server_close()


@pytest.fixture
def azure(azure_server, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith(("AZURE", "ARM_", "IDENTITY_"))]:
        monkeypatch.delenv(name)
    for name, value in azure_server.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path))  # no az
    monkeypatch.chdir(tmp_path)
    azure_server.reset()
    return azure_server


def test_all_is_well_on_azure(azure):
    assert lines_of(doctor_azure.findings()) == [
        "note: az: not found -> install the Azure CLI for `az login` and scripts/provision",
        "ok: signed in as me@example.com\n\x1b[2J, for 60 minutes -> ",
        "ok: workspace ml in koreacentral -> ",
        "ok: computes: cpu-cluster, gpu-cluster, gpu-cluster-8x -> ",
    ]
    assert azure.tokens["/metadata"] is None
    assert azure.tokens[WORKSPACE] == f"Bearer {azure.token}"


def test_what_is_printed_holds_no_token_and_no_control_characters(azure, tmp_path):
    environment = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    program(tmp_path / "az", f"echo {SECRET}; echo {SECRET} >&2")
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "doctor.py"), "--azure"], capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    assert "signed in as me@example.com  [2J, for 60 minutes" in done.stdout
    assert "workspace ml in koreacentral" in done.stdout
    assert SECRET not in done.stdout
    assert azure.token not in done.stdout


def test_names_from_config_json(azure, monkeypatch, tmp_path):
    """As MLClient.from_config finds it: in .azureml of a folder above; a variable comes first."""
    (tmp_path / ".azureml").mkdir()
    content = {"subscription_id": "other", "resource_group": "rg", "workspace_name": "ml"}
    (tmp_path / ".azureml" / "config.json").write_text(json.dumps(content))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    for name in ("AZURE_RESOURCE_GROUP", "AZURE_ML_WORKSPACE"):
        monkeypatch.delenv(name)
    assert list(doctor_azure.names().values()) == [SUBSCRIPTION, "rg", "ml"]


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({WORKSPACE: (403, {})}, "answers 403 -> ask for the role AzureML Data Scientist"),
        ({WORKSPACE: (404, {})}, "answers 404 -> see `az ml workspace list`"),
        ({WORKSPACE: (401, {})}, "answers 401 -> az login"),
        ({WORKSPACE: (302, {})}, "answers 302 -> "),
        ({WORKSPACE: (200, ["<html>"])}, "the answer is not Azure's -> "),
        ({f"{WORKSPACE}/computes": (200, {"value": [{"name": "cpu-cluster"}]})}, "lacks: gpu-cluster, gpu-cluster-8x"),
        ({"/identity": (400, {})}, "sign-in: no credential works"),
        ({"/metadata": (200, [])}, "ARM_CLOUD_METADATA_URL knows no cloud Ours -> unset"),
        ({"/metadata": (200, [{"name": "Ours", "resourceManager": "http://a"}])}, "leads to no https address"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_on_azure(azure, answers, says):
    azure.answers |= answers
    found = [line for line in lines_of(doctor_azure.findings()) if not line.startswith("ok: ")]
    assert says in found[-1]
    assert found[-1].startswith("note: computes" if "lacks" in says else "missing: ")
    assert "/elsewhere" not in azure.tokens, "a token goes to no other address"
    assert SECRET not in "".join(found)


@pytest.mark.parametrize("group", ["a/../../providers", "rg?x=1", "rg\r\nHost: a"])
def test_names_that_would_lead_elsewhere(azure, monkeypatch, group):
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", group)
    last = lines_of(doctor_azure.findings())[-1]
    assert "not the names of a workspace -> " in last
    assert set(azure.tokens) == {"/metadata", "/identity"}


def test_no_names_no_certificates_and_nobody_there(azure, monkeypatch):
    monkeypatch.delenv("AZURE_ML_WORKSPACE")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "gone.pem")
    assert lines_of(doctor_azure.findings()) == [
        "missing: AZURE_ML_WORKSPACE: not set, nor in a config.json -> export them; values: az ml workspace list",
        "missing: REQUESTS_CA_BUNDLE names no certificates: gone.pem -> unset it, or "
        ".venv/bin/python scripts/workspace.py up",
    ]
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert "127.0.0.1" in lines_of(doctor_azure.findings())[-1]
    assert "certificate" in lines_of(doctor_azure.findings())[-1].lower(), "ours is signed by nobody that is known"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("ARM_CLOUD_METADATA_URL", f"https://127.0.0.1:{port}/metadata")
    last = lines_of(doctor_azure.findings())[-1]
    assert last.startswith(f"missing: 127.0.0.1:{port} is not reached: ")
    assert last.endswith(" -> .venv/bin/python scripts/workspace.py up")
