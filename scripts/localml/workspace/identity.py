"""Sign-in at a local workspace, as a managed identity signs in on Azure: DefaultAzureCredential finds it by itself.

The protocol is that of App Service (IDENTITY_ENDPOINT and IDENTITY_HEADER):
https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference
"""

import hmac
import time
from typing import Any

import jwt

from localml.workspace.arm import ArmError

_LIFETIME_SECONDS = 24 * 3600
_TENANT = "00000000-0000-0000-0000-000000000001"
_ISSUER = "https://127.0.0.1"


class Identity:
    """Issues tokens to who knows the secret of the workspace, and checks them."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def issue(self, header: str | None, resource: str) -> dict[str, Any]:
        """What the identity endpoint answers."""
        if not hmac.compare_digest((header or "").encode("utf-8", "replace"), self._secret.encode()):
            raise ArmError(401, "Unauthorized", "X-IDENTITY-HEADER is not that of this workspace.")
        ends = int(time.time()) + _LIFETIME_SECONDS
        claims = {"iss": _ISSUER, "aud": resource, "tid": _TENANT, "oid": _TENANT, "exp": ends, "name": "this machine"}
        token = jwt.encode(claims, self._secret, "HS256")
        return {"access_token": token, "expires_on": str(ends), "resource": resource, "token_type": "Bearer"}

    def check(self, authorization: str | None) -> None:
        """Raises ``ArmError`` unless the bearer token is one of ours and has not expired."""
        kind, _, token = (authorization or "").partition(" ")
        try:
            if kind != "Bearer":
                raise jwt.InvalidTokenError
            jwt.decode(token, self._secret, ["HS256"], options={"verify_aud": False}, issuer=_ISSUER)
        except jwt.InvalidTokenError:
            message = "The access token is not one of this workspace; see `scripts/workspace.py env`."
            raise ArmError(401, "InvalidAuthenticationToken", message) from None
