"""collect_documents reads Azure storage: against Azurite over TLS, signed in as a managed identity or not at all."""

import base64
import datetime
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from slmkit.errors import UserError

AZURITE = "azurite@3.35.0"
ACCOUNT = "devstoreaccount1"
# The key that every copy of Azurite has, given in its documentation; only the test uses it, to upload.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
FILES = {
    "docs/a.csv": b"Name,Area\nFern Hall,North\n",
    "docs/b/c d#1%20.txt": b"A note.",
    "docs/b/.hidden.txt": b"hidden",
    unicodedata.normalize("NFD", "docs/안내.txt"): "월요일은 쉽니다.".encode("cp949"),
    "docs/z.txt": b"\xff\xfe\xff",
    "docs2/other.txt": b"not below docs",
}
OUTPUTS = ("documents", "manifest", "quarantine", "held_out_documents")


@pytest.fixture(scope="session")
def azurite_command(request) -> str:
    if found := os.environ.get("AZURITE_BLOB") or shutil.which("azurite-blob"):
        return found
    if not shutil.which("npm"):
        pytest.skip("needs Azurite: npm install -g azurite, or npm in the PATH")
    folder = request.config.cache.mkdir("azurite")
    command = folder / "node_modules" / ".bin" / "azurite-blob"
    if not command.exists():
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), AZURITE]
        done = subprocess.run(install, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"needs Azurite, which npm could not install: {done.stderr[-200:]}")
    return str(command)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Azurite")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="session")
def store(azurite_command, certificate, tmp_path_factory):
    """The URL of an account in Azurite that has the containers ``private`` and ``public``."""
    from azure.core.credentials import AzureNamedKeyCredential
    from azure.storage.blob import BlobServiceClient

    cert, key = certificate
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--blobPort", str(port), "--oauth", "basic", "--cert", str(cert), "--key", str(key)]
    options += ["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    folder = tmp_path_factory.mktemp("azurite")
    process = subprocess.Popen([azurite_command, *options], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as client:
                if not client.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        url = f"https://127.0.0.1:{port}/{ACCOUNT}"
        credential = AzureNamedKeyCredential(ACCOUNT, KEY)
        with BlobServiceClient(url, credential=credential, connection_verify=str(cert)) as service:
            for container, access in (("private", None), ("public", "container"), ("empty", "container")):
                service.create_container(container, public_access=access)
            for name, content in FILES.items():
                service.get_blob_client("private", name).upload_blob(content)
                service.get_blob_client("public", name).upload_blob(content)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def identity(certificate):
    """The environment of a compute with a managed identity, whose endpoint here signs in whoever asks."""
    asked: list[str] = []

    class Identity(BaseHTTPRequestHandler):
        def do_GET(self):
            resource = parse_qs(urlsplit(self.path).query)["resource"][0]
            asked.append(resource)
            now = int(time.time())
            claims = {"aud": resource, "iss": "https://sts.windows.net/tenant/", "iat": now, "nbf": now - 60}
            parts = [{"alg": "RS256", "typ": "JWT"}, claims | {"exp": now + 3600, "oid": "o", "tid": "tenant"}]
            encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
            token = ".".join([*encoded, "c2ln"])
            answer = {"access_token": token, "expires_on": str(now + 3600), "resource": resource}
            body = json.dumps(answer | {"token_type": "Bearer"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Identity)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {"IDENTITY_ENDPOINT": f"http://127.0.0.1:{server.server_port}/token", "IDENTITY_HEADER": "header"}
    yield environment | {"SSL_CERT_FILE": str(certificate[0])}, asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def collect(run_component, tmp_path, certificate):
    def run(url: str, env: dict[str, str] | None = None, **inputs):
        outputs = {name: tmp_path / "out" / name for name in OUTPUTS}
        env = env or {"SSL_CERT_FILE": str(certificate[0])}
        done = run_component("collect_documents", raw_data_url=url, **outputs, **inputs, env=env)
        return done, [read(outputs[name]) for name in OUTPUTS[:3]]

    return run


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def check(done: subprocess.CompletedProcess, documents: list[dict], manifest: list[dict], quarantine: list[dict]):
    assert done.returncode == 0, done.stderr
    assert done.stderr == "tracking: no open MLflow run, metrics are only printed\n"  # no warnings of Azure's packages
    assert [(d["source"], d["text"]) for d in documents] == [
        ("a.csv", "Name: Fern Hall\nArea: North"),
        ("b/c d#1%20.txt", "A note."),
        ("안내.txt", "월요일은 쉽니다."),
    ]
    assert {row["path"]: row["bytes"] for row in manifest} == {
        "a.csv": 26,
        "b/c d#1%20.txt": 7,
        "z.txt": 3,
        "안내.txt": 16,
    }
    assert [row["source"] for row in quarantine] == ["z.txt"]


def test_a_private_container_is_read_as_a_managed_identity(store, collect, identity):
    environment, asked = identity
    done, outputs = collect(f"{store}/private/docs", environment)
    check(done, *outputs)
    assert set(asked) == {"https://storage.azure.com"}  # the token is for storage and nothing else
    assert len(asked) == 1


def test_a_public_container_needs_no_sign_in(store, collect):
    done, outputs = collect(f"{store}/public/docs/", auth="none")
    check(done, *outputs)


def test_a_url_of_one_file_and_of_a_whole_container(store, collect):
    done, (documents, _, _) = collect(f"{store}/public/docs/a.csv", auth="none")
    assert done.returncode == 0, done.stderr
    assert [d["source"] for d in documents] == ["a.csv"]
    done, (documents, _, _) = collect(f"{store}/public", auth="none")
    assert [d["source"] for d in documents] == ["docs/a.csv", "docs/b/c d#1%20.txt", "docs/안내.txt", "docs2/other.txt"]


def test_the_same_files_give_the_same_documents_from_a_folder_and_from_a_url(store, collect, run_component, tmp_path):
    for name, content in FILES.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(content)
    outputs = {name: tmp_path / "local" / name for name in OUTPUTS}
    assert run_component("collect_documents", raw_data=tmp_path / "raw", **outputs).returncode == 0
    _, remote = collect(f"{store}/public", auth="none")
    assert [read(outputs[name]) for name in OUTPUTS[:3]] == remote


@pytest.mark.parametrize(
    ("path", "auth", "message"),
    [
        ("private/docs", "none", "it is not public: set auth to azure"),
        ("public/absent", "none", "no such container or folder"),
        ("absent/docs", "none", "it is not public: set auth to azure"),  # Azure does not say which
        ("empty", "none", "the folder holds no files"),
    ],
)
def test_what_cannot_be_listed_is_one_clear_line(store, collect, path, auth, message):
    done, (documents, _, _) = collect(f"{store}/{path}", auth=auth)
    assert (done.returncode, documents) == (1, [])
    assert message in done.stderr.splitlines()[-1]
    assert f"{store}/{path}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_without_any_sign_in_it_says_what_to_do(store, collect, certificate, tmp_path):
    alone = {"SSL_CERT_FILE": str(certificate[0]), "PATH": "", "HOME": str(tmp_path)}
    # A proxy that is not there stands for a machine without a managed identity, which answers at once.
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    done, (documents, _, _) = collect(f"{store}/private/docs", alone | proxies)
    assert (done.returncode, documents) == (1, [])
    assert "run `az login`, or give the compute a managed identity" in done.stderr.splitlines()[-1]


LOOK = """
import pathlib, sys, tempfile
from remote_source import files_at_url
tempfile.tempdir = sys.argv[2]
for file in files_at_url(sys.argv[1], "none"):
    (copy,) = [path for path in pathlib.Path(sys.argv[2]).rglob("*") if path.is_file()]
    print(ascii(file.source), copy == file.path, copy.read_bytes())
"""


def test_files_are_here_one_at_a_time(store, certificate, root, tmp_path):
    components = root / "components"
    path = os.pathsep.join([str(components / "collect_documents"), str(components / "_shared")])
    done = subprocess.run(
        [sys.executable, "-c", LOOK, f"{store}/public/docs", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "SSL_CERT_FILE": str(certificate[0])},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        f"{name!a} True {content!r}"
        for name, content in [
            ("a.csv", FILES["docs/a.csv"]),
            ("b/c d#1%20.txt", FILES["docs/b/c d#1%20.txt"]),
            ("z.txt", FILES["docs/z.txt"]),
            ("안내.txt", "월요일은 쉽니다.".encode("cp949")),
        ]
    ], done.stderr
    assert list(tmp_path.iterdir()) == []


# --- URLs, without a network


@pytest.fixture
def parse_url(load_main):
    load_main("collect_documents")
    from remote_source import parse_url

    return parse_url


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("abfss://raw@team1.dfs.core.windows.net/a/b", ("team1", "team1.blob.core.windows.net", "raw/a/b")),
        ("abfss://raw@team1.dfs.core.windows.net", ("team1", "team1.blob.core.windows.net", "raw")),
        ("https://team1.blob.core.windows.net/raw/a%20b/", ("team1", "team1.blob.core.windows.net", "raw/a b")),
        ("https://team1.dfs.core.usgovcloudapi.net/raw", ("team1", "team1.blob.core.usgovcloudapi.net", "raw")),
        ("https://team1.z12.blob.storage.azure.net/raw", ("team1", "team1.z12.blob.storage.azure.net", "raw")),
        ("az://raw@team1.blob.core.windows.net/자료", ("team1", "team1.blob.core.windows.net", "raw/자료")),
        ("az://raw/a", ("team2", "team2.blob.core.windows.net", "raw/a")),
        ("https://127.0.0.1:1234/dev/raw/a", ("dev", "127.0.0.1:1234/dev", "raw/a")),
    ],
)
def test_the_forms_of_a_url(parse_url, monkeypatch, url, place):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "team2")
    assert parse_url(url) == place


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://team1.blob.core.windows.net/raw?sv=2024&sig=SECRET", "carries a query"),
        ("https://team1.blob.core.windows.net/raw%3Fsig=SECRET", "carries a query"),
        ("https://team1.blob.core.windows.net/raw#SECRET", "carries a query"),
        ("abfss://raw:SECRET@team1.dfs.core.windows.net/a", "carries a query"),
        ("https://user@team1.blob.core.windows.net/raw", "of no known form"),
        ("http://team1.blob.core.windows.net/raw", "of no known form"),
        ("http://127.0.0.1:1/dev/raw", "of no known form"),
        ("s3://raw/a", "of no known form"),
        ("raw/a", "of no known form"),
        ("https://[team1/raw", "not a URL"),
        # The token must not go to a host that only looks like Azure's.
        ("https://team1.blob.core.windows.net.example.org/raw", "no storage account of Azure"),
        ("https://example.org/team1.blob.core.windows.net/raw", "no storage account of Azure"),
        ("https://team1.blob.core.windows.net:8443/raw", "no storage account of Azure"),
        ("az://raw/a", "no storage account of Azure"),
        ("https://team1.blob.core.windows.net/", "names no container"),
    ],
)
def test_other_urls_are_refused_and_no_secret_is_repeated(parse_url, monkeypatch, url, message):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UserError, match=message) as error:
        parse_url(url)
    assert "SECRET" not in str(error.value)


def test_a_key_in_the_environment_does_not_take_the_place_of_the_sign_in(collect):
    done, _ = collect("abfss://raw@team1.dfs.core.windows.net/a", {"AZURE_STORAGE_CONNECTION_STRING": "SECRET"})
    assert done.returncode == 1
    assert "AZURE_STORAGE_CONNECTION_STRING is set" in done.stderr and "SECRET" not in done.stderr


@pytest.mark.parametrize("given", ["none", "both"])
def test_exactly_one_source_is_given(run_component, tmp_path, given):
    url = "abfss://raw@team1.dfs.core.windows.net/a"
    source = {"raw_data": tmp_path, "raw_data_url": url} if given == "both" else {}
    done = run_component("collect_documents", **source, **{name: tmp_path / name for name in OUTPUTS})
    assert done.returncode == 1
    assert "give either raw_data (a folder) or raw_data_url" in done.stderr.splitlines()[-1]
