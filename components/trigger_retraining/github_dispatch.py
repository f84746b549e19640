"""A repository_dispatch as a GitHub App: signed in Key Vault, with a token for one repository and an hour."""

import base64
import hashlib
import json
import re
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dispatch_claim
from retraining_decision import Decision
from retraining_job import BY_SERVICE, REFUSED, Outcome

from slmkit import azure_identity
from slmkit.errors import UserError

if TYPE_CHECKING:
    import httpx

Signer = Callable[[bytes], bytes]  # RS256

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/(?!\.\.?$)[A-Za-z0-9._-]{1,100}")
KEY_URL = re.compile(r"https://[a-z0-9-]{3,24}\.vault\.[a-z.]+/keys/[A-Za-z0-9-]{1,127}(/[0-9a-f]{32})?")
EVENT_TYPE = re.compile(r"[\w.:/-]{1,100}", re.ASCII)
TOKEN_SECONDS = 540  # of the ten minutes that GitHub allows, less what clocks may differ
CLOCK_SKEW_SECONDS = 60
MAX_ATTEMPTS = 4
MAX_WAIT_SECONDS = 600.0  # in all
MAX_REASONS, MAX_REASON_LENGTH = 20, 500  # a payload is limited to 64 KiB
WHAT_TO_DO = {
    401: "it does not take the signature: is github_app_id that of the app to which the key of the vault belongs?",
    403: "the installation lacks the permission Contents: write",
    404: "no such installation, or the app is not installed on this repository",
    422: "the installation does not have this repository, or not the permission Contents: write",
}


@dataclass(frozen=True)
class App:
    app_id: str
    installation_id: str
    key_url: str
    api_url: str


def send(app: App, repository: str, event_type: str, decision: Decision, *, dry_run: bool) -> Outcome:
    check(app, repository, event_type)
    url = f"{_site(app.api_url)}/{repository}/actions"
    if dry_run:
        return Outcome(False, f"dry_run: {event_type} would be sent to {repository}", url=url)
    if earlier := dispatch_claim.claim(decision.decision_id):
        return Outcome(False, f"sent already by the run {earlier}", url=url, status="sent")
    with Client(app.api_url) as client:
        token = client.token(app, repository.partition("/")[2], key_vault_signer(app.key_url))
        body = {"event_type": event_type, "client_payload": payload(decision)}
        client.post(f"/repos/{repository}/dispatches", token, body, expected=204, repeatable=False)
    why = f"sent {event_type} to {repository}"
    if not dispatch_claim.sent():
        why += f"; MLflow did not take note, so do not give the decision {decision.decision_id[:12]} again"
    return Outcome(True, why, url=url, status="sent")


def check(app: App, repository: str, event_type: str) -> None:
    """Nothing of what goes into a URL may lead anywhere else."""
    try:
        host = urllib.parse.urlsplit(app.api_url)
        _ = host.port
    except ValueError:  # such as an address without its second bracket
        host = urllib.parse.urlsplit("")
    schemes = ("https", "http") if host.hostname in ("127.0.0.1", "localhost", "::1") else ("https",)
    forms = (
        ("repository", repository, REPOSITORY.fullmatch(repository), "OWNER/NAME"),
        ("event_type", event_type, EVENT_TYPE.fullmatch(event_type), "a name such as llm-drift"),
        (
            "github_app_id",
            app.app_id,
            re.fullmatch(r"[A-Za-z0-9.]{1,40}", app.app_id),
            "an id or client id",
        ),
        ("github_installation_id", app.installation_id, app.installation_id.isdecimal(), "a number"),
        ("github_key_url", app.key_url, KEY_URL.fullmatch(app.key_url), "https://NAME.vault.azure.net/keys/KEY"),
        (
            "github_api_url",
            app.api_url.rpartition("@")[2],
            host.scheme in schemes and host.hostname and not host.username and not host.query,
            "https://api.github.com or https://HOST/api/v3: a token is sent over https only",
        ),
    )
    for name, value, is_right, wanted in forms:
        if not is_right:
            raise UserError(f"{name} {value!r:.80}: expected {wanted}", REFUSED)


def payload(decision: Decision) -> dict[str, Any]:
    """At most ten keys. A workflow that takes the id as its concurrency group runs once, whatever happens."""
    more = decision.model_extra or {}
    return {
        "decision_id": decision.decision_id,
        "action": decision.action,
        "reasons": [reason[:MAX_REASON_LENGTH] for reason in decision.reasons[:MAX_REASONS]],
        "signals": dict(list(decision.signals.items())[:MAX_REASONS]),
        **{name: _short(more.get(name)) for name in ("endpoint", "deployment", "model_sha256", "window", "created_at")},
    }


def _short(value: Any) -> Any:
    return value if len(json.dumps(value, ensure_ascii=False)) <= MAX_REASON_LENGTH else None


def key_vault_signer(key_url: str) -> Signer:
    """The vault signs the hash; the private key stays there."""

    def sign(message: bytes) -> bytes:
        from azure.core.exceptions import AzureError
        from azure.keyvault.keys.crypto import CryptographyClient, SignatureAlgorithm

        try:
            with CryptographyClient(key_url, azure_identity.default_credential()) as client:
                return client.sign(SignatureAlgorithm.rs256, hashlib.sha256(message).digest()).signature
        except (AzureError, ValueError, NotImplementedError) as error:
            said = " ".join(str(getattr(error, "message", None) or error).split())
            raise UserError(
                f"{key_url} did not sign ({type(error).__name__}: {said:.200}): it has to be an RSA key, and the "
                "identity of the job needs the role Key Vault Crypto User",
                BY_SERVICE,
            ) from None

    return sign


def app_token(app_id: str, sign: Signer, now: float) -> str:
    """The JWT by which GitHub knows the app."""
    claims = {"iat": int(now) - CLOCK_SKEW_SECONDS, "exp": int(now) + TOKEN_SECONDS, "iss": app_id}
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return ".".join([*parts, _base64(sign(".".join(parts).encode()))])


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class Client:
    """GitHub's REST API; what it says is shown, what it was sent is not."""

    def __init__(self, api_url: str) -> None:
        import httpx

        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        self._http = httpx.Client(base_url=api_url.rstrip("/"), headers=headers, timeout=30, follow_redirects=False)
        self._patience = MAX_WAIT_SECONDS
        self._secrets: list[str] = []

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def token(self, app: App, name: str, sign: Signer) -> str:
        """A token that can do no more than this takes, in this repository."""
        body = {"repositories": [name], "permissions": {"contents": "write", "metadata": "read"}}
        path = f"/app/installations/{app.installation_id}/access_tokens"
        answer = self.post(path, app_token(app.app_id, sign, time.time()), body, expected=201)
        try:
            token = answer.json()["token"]
        except (ValueError, KeyError, TypeError):
            token = None
        if not isinstance(token, str) or not token:
            raise UserError("GitHub gave no token; is github_api_url right?", BY_SERVICE)
        self._secrets.append(token)
        return token

    def post(
        self, path: str, token: str, body: dict[str, Any], *, expected: int, repeatable: bool = True
    ) -> "httpx.Response":
        """What is not ``repeatable`` is sent again only if it was refused: one lost on its way may have arrived."""
        import httpx

        self._secrets.append(token)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                answer = self._http.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
            except httpx.HTTPError as error:
                said, wait = f"{type(error).__name__}", 2.0**attempt if repeatable else None
            else:
                if answer.status_code == expected:
                    return answer
                said, wait = self._refusal(answer), _wait(answer, attempt, repeatable)
            if wait is None or wait > self._patience or attempt == MAX_ATTEMPTS:
                break
            self._patience -= wait
            time.sleep(wait)
        raise UserError(f"GitHub, POST {path}: {said}", BY_SERVICE)

    def _refusal(self, answer: "httpx.Response") -> str:
        try:
            content = answer.json()
        except ValueError:
            content = None
        message = str(content.get("message", "")) if isinstance(content, dict) else ""
        for secret in self._secrets:
            message = message.replace(secret, "***")
        status = answer.status_code
        advice = "too many requests; try again later" if _pause(answer) is not None else WHAT_TO_DO.get(status, "")
        if answer.is_redirect:
            advice = "a token goes nowhere else: was the repository renamed, is github_api_url right?"
        said = "; ".join(part for part in (" ".join(message.split())[:200], advice) if part)
        return f"{status} {said or 'no explanation'}"


def _wait(answer: "httpx.Response", attempt: int, repeatable: bool) -> float | None:
    """The seconds until it may be tried again; None for not at all."""
    pause = _pause(answer)
    if pause is not None:
        return pause  # refused before anything was done
    return 2.0**attempt if repeatable and answer.status_code >= 500 else None


def _pause(answer: "httpx.Response") -> float | None:
    """What a refusal for too many requests says of the time to wait, at least a second."""
    if answer.status_code not in (403, 429):
        return None
    headers = answer.headers
    if (after := headers.get("retry-after", "")).isdecimal():
        return max(1.0, float(after))
    if headers.get("x-ratelimit-remaining") == "0" and (at := headers.get("x-ratelimit-reset", "")).isdecimal():
        return max(1.0, float(at) - time.time())
    return 60.0 if answer.status_code == 429 else None


def _site(api_url: str) -> str:
    """Where people look: https://github.com for https://api.github.com, https://HOST for https://HOST/api/v3."""
    url = urllib.parse.urlsplit(api_url)
    return f"{url.scheme}://{url.netloc.removeprefix('api.')}"
