"""The dispatch to GitHub: a server on loopback that checks signature, claims and rights as GitHub does."""

import base64
import hashlib
import http.server
import importlib
import json
import threading
import time
import types

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from slmkit.errors import UserError

TOKEN = "ghs_" + "s" * 36
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signed(message: bytes, key=KEY) -> bytes:
    return key.sign(message, padding.PKCS1v15(), hashes.SHA256())


class GitHub:
    """``answers``: by the end of a path, answers (status, body, headers) to give first, before the right one."""

    def __init__(self):
        self.calls, self.answers = [], {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.calls.append((self.path, body))
                queue = next((q for end, q in outer.answers.items() if self.path.endswith(end) and q), None)
                status, content, headers = queue.pop(0) if queue else outer.answer(self.path, self.headers, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode() if content is not None else b"")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path, headers, body):
        bearer = headers["Authorization"].removeprefix("Bearer ")
        if path == "/app/installations/77/access_tokens":
            if not self.is_of_the_app(bearer):
                return 401, {"message": "A JSON web token could not be decoded"}, {}
            assert body == {"repositories": ["slm"], "permissions": {"contents": "write", "metadata": "read"}}
            return 201, {"token": TOKEN, "expires_at": "2026-11-22T10:00:00Z"}, {}
        if path == "/repos/acme/slm/dispatches" and bearer == TOKEN:
            assert len(body["client_payload"]) <= 10 and len(json.dumps(body)) < 65_536
            return 204, None, {}
        return 404, {"message": "Not Found"}, {}

    def is_of_the_app(self, token):
        signing, _, signature = token.rpartition(".")
        try:
            KEY.public_key().verify(decoded(signature), signing.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        header, claims = (json.loads(decoded(part)) for part in signing.split("."))
        now = time.time()
        right_time = (
            claims["iat"] <= now - 30 and now < claims["exp"] <= now + 600 and claims["exp"] - claims["iat"] <= 600
        )
        return header == {"alg": "RS256", "typ": "JWT"} and claims["iss"] == "4711" and right_time

    @property
    def dispatches(self):
        return [body for path, body in self.calls if path.endswith("/dispatches")]


def decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.fixture
def github():
    server = GitHub()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def modules(load_main, monkeypatch):
    load_main("trigger_retraining")
    found = {
        name: importlib.import_module(name) for name in ("github_dispatch", "retraining_decision", "dispatch_claim")
    }
    monkeypatch.setattr(found["github_dispatch"], "key_vault_signer", lambda url: signed)
    for name in ("MLFLOW_RUN_ID", "AZUREML_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return types.SimpleNamespace(**found)


@pytest.fixture
def send(modules, github):
    def run(*, dry_run=False, repository="acme/slm", event_type="llm-drift", app_id="4711", **changes):
        app = modules.github_dispatch.App(app_id, "77", "https://slm.vault.azure.net/keys/github-app", github.url)
        return modules.github_dispatch.send(app, repository, event_type, made(modules, **changes), dry_run=dry_run)

    return run


def made(modules, **changes):
    content = {
        "action": "retrain",
        "reasons": ["accuracy fell by 12 points"],
        "signals": {"llm_drift": "drift"},
        "model_sha256": "a" * 64,
        "budget": {"retrains_left": 1},
        **changes,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    id = hashlib.sha256(text.encode()).hexdigest()
    return modules.retraining_decision.Decision.model_validate({"decision_id": id, **content})


def test_an_event_is_sent(send, github, modules):
    outcome = send()
    assert (outcome.started, outcome.status) == (True, "sent")
    (body,) = github.dispatches
    assert body["event_type"] == "llm-drift"
    assert body["client_payload"]["decision_id"] == made(modules).decision_id
    assert body["client_payload"]["reasons"] == ["accuracy fell by 12 points"]
    assert "budget" not in body["client_payload"]


def test_dry_run_asks_nobody(send, github):
    outcome = send(dry_run=True)
    assert (outcome.started, outcome.why, github.calls) == (False, "dry_run: llm-drift would be sent to acme/slm", [])


def test_a_huge_decision_fits(send, github):
    """The server asserts the limits of GitHub."""
    assert send(reasons=["根拠" * 5_000] * 400, signals={"llm_drift": "drift"}, window="w" * 100_000).started
    payload = github.dispatches[0]["client_payload"]
    assert (len(payload["reasons"]), payload["window"]) == (20, None)


def test_another_key_is_refused_and_explained(send, github, modules, monkeypatch, capfd):
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    monkeypatch.setattr(modules.github_dispatch, "key_vault_signer", lambda url: lambda message: signed(message, other))
    with pytest.raises(UserError, match=r"401 A JSON web token could not be decoded; .*github_app_id") as error:
        send()
    assert error.value.exit_code == 8
    assert len(github.calls) == 1  # a refusal is not repeated
    with pytest.raises(UserError, match="401"):
        send(app_id="4712")


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (403, "Resource not accessible by integration", "Contents: write"),
        (404, "Not Found", "not installed on this repository"),
        (422, "Validation Failed", "does not have this repository"),
        (500, f"oops {TOKEN}", "500 oops \\*\\*\\*"),
        (302, "moved", "302 moved; a token goes nowhere else"),
    ],
)
def test_refusals_are_explained_and_show_no_token(send, github, capfd, status, message, said):
    github.answers["/dispatches"] = [(status, {"message": message}, {"Location": "http://127.0.0.1:9/steal"})]
    with pytest.raises(UserError, match=said) as error:
        send()
    assert len(github.dispatches) == 1  # it may have arrived: not sent twice
    told = "".join(capfd.readouterr()) + str(error.value)
    assert TOKEN not in told and "\n" not in str(error.value)


@pytest.mark.parametrize("token", [None, "", 7])
def test_an_answer_without_a_token_sends_nothing(send, github, token):
    github.answers["/access_tokens"] = [(201, {"token": token}, {})]
    with pytest.raises(UserError, match="GitHub gave no token"):
        send()
    assert github.dispatches == []


def test_it_waits_as_long_as_it_is_told(send, github, modules, monkeypatch):
    slept = []
    monkeypatch.setattr(modules.github_dispatch.time, "sleep", slept.append)
    limited = {"message": "You have exceeded a secondary rate limit"}
    reset = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time()) + 40)}
    github.answers["/access_tokens"] = [(502, None, {}), (429, limited, {"Retry-After": "7"})]
    github.answers["/dispatches"] = [(403, limited, {"Retry-After": "11"}), (403, limited, reset)]
    assert send().started
    assert slept[:3] == [2.0, 7.0, 11.0] and 30 < slept[3] <= 40
    github.answers["/dispatches"] = [(429, limited, {"Retry-After": "3600"})]
    with pytest.raises(UserError, match="too many requests"):
        send()
    assert len(slept) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repository", "acme/slm/../../evil"),
        ("repository", "acme/.."),
        ("repository", "acme"),
        ("repository", "acme/slm?x"),
        ("event_type", "llm drift\n"),
        ("app_id", "4711\r\nX: y"),
        ("installation_id", "77/../78"),
        ("key_url", "http://slm.vault.azure.net/keys/k"),
        ("key_url", "https://evil.example/keys/k"),
        ("key_url", "https://slm.vault.azure.net/secrets/k"),
        ("api_url", "http://github.example"),
        ("api_url", "https://user:secret@github.example"),
        ("api_url", "ftp://127.0.0.1"),
        ("api_url", "api.github.com"),
        ("api_url", "https://[github.example"),
        ("api_url", "https://github.example:99999"),
    ],
)
def test_what_leads_elsewhere_is_refused(modules, name, value):
    right = {
        "app_id": "Iv23liA0b1C2d3E4f5G6",
        "installation_id": "77",
        "key_url": "https://slm.vault.azure.net/keys/app/" + "0" * 32,
        "api_url": "https://github.example/api/v3",
    }
    places = {"repository": "acme/slm", "event_type": "llm-drift"}
    modules.github_dispatch.check(modules.github_dispatch.App(**right), **places)
    (right if name in right else places)[name] = value
    with pytest.raises(UserError, match=name) as error:
        modules.github_dispatch.check(modules.github_dispatch.App(**right), **places)
    assert "secret" not in str(error.value).replace("/secrets/", "")


def test_where_people_look(modules):
    sites = {"https://api.github.com": "https://github.com", "https://git.example/api/v3": "https://git.example"}
    assert {url: modules.github_dispatch._site(url) for url in sites} == sites


def test_the_vault_signs_the_hash(modules, monkeypatch):
    """The real client over a transport that answers as the vault does; no private key is on this side."""
    import azure.identity
    from azure.keyvault.keys import crypto

    from tests.components.azure_rest import Credential

    monkeypatch.undo()  # the signer itself
    digests = []

    class Vault:
        def __init__(self, key_url, credential):
            assert key_url == "https://slm.vault.azure.net/keys/app"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def sign(self, algorithm, digest):
            assert algorithm == "RS256"
            digests.append(digest)
            return types.SimpleNamespace(signature=b"signature")

    monkeypatch.setattr(crypto, "CryptographyClient", Vault)
    monkeypatch.setattr(azure.identity, "DefaultAzureCredential", lambda **_: Credential())
    sign = importlib.import_module("github_dispatch").key_vault_signer("https://slm.vault.azure.net/keys/app")
    assert sign(b"message") == b"signature"
    assert digests == [hashlib.sha256(b"message").digest()]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Making the database takes seconds."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    client.search_experiments()
    return client


@pytest.fixture
def runs(store, request, monkeypatch):
    """Open runs of monitors; ``as_run`` makes one of them this process's."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    experiment = store.create_experiment(request.node.name)
    ids = [store.create_run(experiment, start_time=start).info.run_id for start in (1, 2, 3)]
    return types.SimpleNamespace(client=store, ids=ids, as_run=lambda i: monkeypatch.setenv("MLFLOW_RUN_ID", ids[i]))


def test_one_decision_is_sent_once(modules, send, github, runs):
    runs.as_run(1)
    assert send().started
    assert runs.client.get_run(runs.ids[1]).data.tags["retraining_dispatch"] == "sent"
    assert not send().started  # the same run, started again by the service
    runs.as_run(2)
    again = send()
    assert (again.started, again.why) == (False, f"sent already by the run {runs.ids[1]}")
    assert send(reasons=["another decision"]).started
    assert len(github.dispatches) == 2


@pytest.mark.parametrize(("failures", "state"), [(2, "sent"), (99, "sending")])
def test_an_event_that_is_sent_is_noted_or_said_not_to_be(modules, send, github, runs, monkeypatch, failures, state):
    """The event is out: a store that does not answer then must not make the step fail."""
    from mlflow import MlflowClient

    set_tag, left = MlflowClient.set_tag, [None] * failures

    def lost(self, run_id, key, value):
        if value == "sent" and left:
            left.pop()
            raise ConnectionError("no route")
        set_tag(self, run_id, key, value)

    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(MlflowClient, "set_tag", lost)
    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    monkeypatch.setattr(modules.dispatch_claim.time, "sleep", lambda _: None)
    runs.as_run(1)
    outcome = send()
    assert (outcome.started, outcome.status, len(github.dispatches)) == (True, "sent", 1)
    assert runs.client.get_run(runs.ids[1]).data.tags["retraining_dispatch"] == state
    note = f"; MLflow did not take note, so do not give the decision {made(modules).decision_id[:12]} again"
    assert outcome.why == "sent llm-drift to acme/slm" + ("" if state == "sent" else note)
    runs.client.set_terminated(runs.ids[1])
    runs.as_run(2)
    again = send()
    assert (again.started, again.why) == (False, f"sent already by the run {runs.ids[1]}")


@pytest.mark.parametrize("first_sends", [True, False])
def test_of_two_at_once_the_first_sends_and_if_it_fails_the_second(modules, runs, monkeypatch, first_sends):
    claim, id = modules.dispatch_claim.claim, "ab" * 32
    runs.as_run(0)
    assert claim(id) is None

    def sleep(_):
        assert runs.client.get_run(runs.ids[1]).data.tags["retraining_dispatch"] == "left to another run"
        if first_sends:
            runs.client.set_tag(runs.ids[0], "retraining_dispatch", "sent")
        else:
            runs.client.set_terminated(runs.ids[0], "FAILED")

    monkeypatch.setattr(modules.dispatch_claim.time, "sleep", sleep)
    runs.as_run(1)
    assert claim(id) == (runs.ids[0] if first_sends else None)
    state = runs.client.get_run(runs.ids[1]).data.tags["retraining_dispatch"]
    assert state == ("left to another run" if first_sends else "sending")


def test_a_run_that_neither_sends_nor_ends_is_not_said_to_have_sent(modules, runs, monkeypatch):
    runs.as_run(0)
    assert modules.dispatch_claim.claim("ab" * 32) is None  # and then it was killed, which nobody noted
    runs.as_run(1)
    monkeypatch.setattr(modules.dispatch_claim, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(modules.dispatch_claim, "POLL_SECONDS", 0.2)
    with pytest.raises(UserError, match=f"does not end: {runs.ids[0]}"):
        modules.dispatch_claim.claim("ab" * 32)


@pytest.mark.parametrize(("later_run", "expected"), [("sent", 1), ("left to another run", None)])
def test_one_that_was_alone_when_it_looked_is_waited_for(modules, runs, monkeypatch, later_run, expected):
    claim, id, slept = modules.dispatch_claim.claim, "ab" * 32, []
    runs.as_run(1)
    assert claim(id) is None

    def sleep(seconds):
        slept.append(seconds)
        runs.client.set_tag(runs.ids[1], "retraining_dispatch", later_run)

    monkeypatch.setattr(modules.dispatch_claim.time, "sleep", sleep)
    runs.as_run(0)  # opened first, but claims later
    assert claim(id) == (None if expected is None else runs.ids[expected])
    assert slept == [1.0]


def test_a_store_that_does_not_answer_sends_nothing(modules, send, github, runs, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(UserError, match="does not tell whether"):
        send()
    assert github.calls == []
