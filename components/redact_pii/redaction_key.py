"""The key of hashes and pseudonyms: from the environment or Key Vault, never an input."""

import os
import re
import secrets
from typing import NamedTuple

import httpx

from slmkit import azure_identity
from slmkit.errors import UserError

VARIABLE = "REDACT_PII_KEY"
MIN_BYTES = 16
API_VERSION = "7.4"
_SECRET_URL = re.compile(
    r"https://[a-z0-9-]+\.vault\.(azure\.net|azure\.cn|usgovcloudapi\.net)/secrets/[A-Za-z0-9-]+(/[0-9a-f]{32})?/?"
)


class Key(NamedTuple):
    value: bytes
    stable: bool  # the same in the next run


def load(secret_url: str | None, transport: httpx.BaseTransport | None = None, credential: object = None) -> Key:
    if secret_url:
        return Key(_checked(_from_key_vault(secret_url, transport, credential), secret_url), True)
    if text := os.environ.get(VARIABLE):
        return Key(_checked(text, VARIABLE), True)
    return Key(secrets.token_bytes(32), False)


def _checked(text: str, where: str) -> bytes:
    """Under a short key, telephone numbers could be found out by trying all of them under all keys."""
    key = text.strip().encode()
    if len(key) < MIN_BYTES:
        raise UserError(f"the key in {where} has {len(key)} bytes; give it {MIN_BYTES} or more random ones")
    return key


def _from_key_vault(url: str, transport: httpx.BaseTransport | None, credential: object) -> str:
    match = _SECRET_URL.fullmatch(url)
    if not match:
        raise UserError(f"key_secret_url {url!r} is not like https://NAME.vault.azure.net/secrets/SECRET")
    from azure.core.exceptions import AzureError

    try:
        token = (
            (credential or azure_identity.default_credential()).get_token(f"https://vault.{match[1]}/.default").token
        )
        with httpx.Client(transport=transport, timeout=30) as client:
            response = client.get(
                url, params={"api-version": API_VERSION}, headers={"Authorization": f"Bearer {token}"}
            )
    except AzureError as error:
        raise UserError(
            f"no Azure sign-in for {url} ({type(error).__name__}): run `az login`, or give the compute a "
            "managed identity"
        ) from None
    except httpx.HTTPError as error:
        raise UserError(f"{url} cannot be reached: {type(error).__name__}") from None
    if response.status_code != 200:
        raise UserError(
            f"{url} answered {response.status_code}: the identity of the compute needs the role Key Vault Secrets User"
        )
    return response.json()["value"]
