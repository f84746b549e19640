"""Who a step is on Azure where it does not act as the submitting user."""

import os
from typing import Any


def default_credential() -> Any:
    """``DefaultAzureCredential`` of the compute's own identity, or of ``az login`` on this machine."""
    from azure.identity import DefaultAzureCredential

    # A compute with a user-assigned identity names it here, and DefaultAzureCredential does not look. Without one it is
    # not told None, which would keep it from AZURE_CLIENT_ID.
    client_id = os.environ.get("DEFAULT_IDENTITY_CLIENT_ID")
    return DefaultAzureCredential(**({"managed_identity_client_id": client_id} if client_id else {}))
