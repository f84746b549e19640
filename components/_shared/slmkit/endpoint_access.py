"""The URL of a chat endpoint, checked, and the sign-in that goes with each request."""

import asyncio
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from slmkit import azure_identity
from slmkit.errors import UserError

AZURE_SCOPE = "https://cognitiveservices.azure.com/.default"
# By the word for the sign-in: who may issue the token, and the role that lets an identity ask.
SCOPES = {"azure": AZURE_SCOPE, "azure_ml": "https://ml.azure.com/.default"}
ROLES = {"azure": "Cognitive Services OpenAI User", "azure_ml": "AzureML Data Scientist"}
DEPLOYED_AUTH = {"none": "none", "aad_token": "azure_ml"}
TOKEN_MARGIN_SECONDS = 300


@dataclass(frozen=True)
class DeployedEndpoint:
    """What deploy_endpoint wrote about an endpoint: the full URL that takes chats, and how to sign in there."""

    scoring_uri: str
    auth: str  # as sign_in() takes it
    model: str
    name: str | None = None
    target: str | None = None
    deployment: str | None = None
    model_sha256: str | None = None
    adapters: tuple[str, ...] = ()  # other names that it answers to


def read_deployed(path: Path) -> DeployedEndpoint:
    hint = "give the output endpoint of deploy_endpoint"
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {hint}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: not a JSON object; {hint}")
    for name in ("scoring_uri", "model"):
        if not isinstance(found.get(name), str) or not found[name].strip():
            raise UserError(f"{path}: no {name} (a text); {hint}")
    optional = ("name", "target", "deployment", "model_sha256")
    for name in optional:
        if not isinstance(found.get(name), str | None):
            raise UserError(f"{path}: {name} is not a text; {hint}")
    adapters = found.get("adapters", [])
    if not isinstance(adapters, list) or not all(isinstance(name, str) and name for name in adapters):
        raise UserError(f"{path}: adapters is not a list of names; {hint}")
    if not isinstance(auth := found.get("auth"), str) or auth not in DEPLOYED_AUTH:
        raise UserError(f"{path}: auth is {str(auth)[:40]!r}; known are {' and '.join(DEPLOYED_AUTH)}")
    checked_url(url := found["scoring_uri"].strip())
    return DeployedEndpoint(
        url, DEPLOYED_AUTH[auth], found["model"], *(found.get(name) for name in optional), tuple(adapters)
    )


class Credential(Protocol):
    """The part of azure-identity's credentials that is used here."""

    def get_token(self, *scopes: str) -> Any: ...


class AzureSignIn:
    """A bearer token from ``credential`` (else the step's own), renewed before it expires."""

    def __init__(self, base_url: str, credential: Credential | None, scope: str = AZURE_SCOPE) -> None:
        self._base_url, self._scope = base_url, scope
        self._credential = credential
        self._token: Any = None
        self._lock = asyncio.Lock()

    async def headers(self) -> dict[str, str]:
        async with self._lock:
            if self._token is None or self._token.expires_on - time.time() < TOKEN_MARGIN_SECONDS:
                self._token = await asyncio.to_thread(self._new_token)
        return {"Authorization": f"Bearer {self._token.token}"}

    def _new_token(self) -> Any:
        from azure.core.exceptions import AzureError

        self._credential = self._credential or azure_identity.default_credential()
        try:
            return self._credential.get_token(self._scope)
        except AzureError as error:
            raise UserError(
                f"no Azure sign-in for {self._base_url} ({type(error).__name__}): run `az login`, or give the compute "
                "a managed identity"
            ) from None

    def without_token(self, text: str) -> str:
        return text.replace(self._token.token, "***") if self._token else text


def checked_url(base_url: str) -> tuple[str, httpx.URL]:
    """The URL as it may be shown, and the one to post to; a managed endpoint's own path, /score, stays."""
    try:
        url = httpx.URL(base_url.strip())
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        shown = base_url.rpartition("@")[2].partition("?")[0]  # a log is no place for a key
        raise UserError(
            f"{shown!r} is not the URL of an endpoint: give one like https://NAME.openai.azure.com/openai/v1"
        )
    if url.userinfo or any(
        re.search("key|token|sig|secret|code|pass|auth", name, re.IGNORECASE) for name in url.params
    ):
        raise UserError(f"the URL for {url.host} carries a key or password: remove it and set auth to azure")
    path = url.path.rstrip("/")
    if path.endswith("/score"):
        return str(url).rstrip("/"), url
    path = path.removesuffix("/chat/completions")
    return str(url.copy_with(path=path or "/")).rstrip("/"), url.copy_with(path=f"{path}/chat/completions")


def on_this_machine(url: httpx.URL) -> bool:
    return url.host in ("127.0.0.1", "localhost", "::1")


def sign_in(
    base_url: str, auth: str, credential: Credential | None = None, *, scope: str | None = None
) -> AzureSignIn | None:
    """What signs requests in: nothing for ``none``; else an identity, whose token goes over https only.

    ``azure`` is for Azure OpenAI and its kin, ``azure_ml`` for an online endpoint of Azure ML.
    """
    if auth not in SCOPES:
        return None
    url = httpx.URL(base_url)
    if url.scheme != "https" and not on_this_machine(url):
        raise UserError(f"{base_url}: a sign-in is sent over https only; correct the URL or set auth to none")
    return AzureSignIn(base_url, credential, scope or SCOPES[auth])
