"""azure_identity: the identity that the compute names is the one that signs in."""

import pytest
from azure.identity import ManagedIdentityCredential

from slmkit import azure_identity


@pytest.mark.parametrize(
    ("variables", "client_id"),
    [
        ({}, None),
        ({"AZURE_CLIENT_ID": "mine"}, "mine"),
        ({"DEFAULT_IDENTITY_CLIENT_ID": "computes"}, "computes"),
        ({"DEFAULT_IDENTITY_CLIENT_ID": "computes", "AZURE_CLIENT_ID": "mine"}, "computes"),
    ],
)
def test_the_managed_identity(monkeypatch, variables, client_id):
    for name in ("DEFAULT_IDENTITY_CLIENT_ID", "AZURE_CLIENT_ID", "AZURE_TOKEN_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = []
    monkeypatch.setattr(
        "azure.identity._credentials.default.ManagedIdentityCredential",
        lambda **options: made.append(options["client_id"]) or ManagedIdentityCredential(),
    )
    azure_identity.default_credential()
    assert made == [client_id]
