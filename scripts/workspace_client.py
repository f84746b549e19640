"""azure-ai-ml's own client of a workspace or a registry, and its complaints in one line each."""

import argparse
import contextlib
import io
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

from localml import jobfile

_LONGEST_MESSAGE = 400
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_FOR_NOW = (401, 408, 429, 500, 502, 503, 504)


class RefusedError(Exception):
    """What Azure ML does not take, in one line."""


class UnreachableError(Exception):
    """There is no sign-in, no network, or no answer for now."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `az ml` that name a workspace."""
    parser.add_argument("--workspace-name", "-w", default=os.environ.get("AZURE_ML_WORKSPACE"))
    parser.add_argument("--resource-group", "-g", default=os.environ.get("AZURE_RESOURCE_GROUP"))
    parser.add_argument("--subscription", default=os.environ.get("AZURE_SUBSCRIPTION_ID"))


def connect(args: argparse.Namespace, registry: str | None = None) -> Any:
    """An MLClient by DefaultAzureCredential; what the flags do not name of a workspace is that of config.json."""
    jobfile.quiet()
    with in_one_line(f"registry {registry}" if registry else "workspace"):
        from azure.ai.ml import MLClient
        from azure.identity import DefaultAzureCredential

        logging.getLogger("azure").setLevel(logging.CRITICAL)  # what fails is said once, below
        logging.getLogger("azure.ai.ml").setLevel(logging.CRITICAL)
        credential = DefaultAzureCredential()
        names = [args.subscription, args.resource_group, args.workspace_name]
        if registry:
            return MLClient(credential, *names[:2], registry_name=registry, show_progress=False)
        if not all(names):
            known = _of_config_json(credential)
            found = known.subscription_id, known.resource_group_name, known.workspace_name
            names = [given or other for given, other in zip(names, found, strict=True)]
        client = MLClient(credential, *names, show_progress=False)
        client.workspaces.get(client.workspace_name)  # in one that does not exist everything else would only be absent
        return client


def _of_config_json(credential: Any) -> Any:
    from azure.ai.ml import MLClient
    from azure.ai.ml.exceptions import MlException

    try:
        return MLClient.from_config(credential, show_progress=False)
    except (MlException, ValueError, KeyError, TypeError) as error:
        why = "there is none" if isinstance(error, MlException) else f"{type(error).__name__}: {error}"
        raise RefusedError(
            f"workspace: give --subscription, --resource-group and --workspace-name, set AZURE_SUBSCRIPTION_ID, "
            f"AZURE_RESOURCE_GROUP and AZURE_ML_WORKSPACE, or write a config.json ({why})"
        ) from error


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """What azure-ai-ml prints about each upload and download goes nowhere."""
    chatter = io.StringIO()
    with contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
        yield


@contextlib.contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """The complaints of azure-ai-ml run to many lines; what is said is what they are about."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import (
        AzureError,
        ClientAuthenticationError,
        DecodeError,
        HttpResponseError,
        ServiceRequestError,
        ServiceResponseError,
    )
    from marshmallow.exceptions import ValidationError

    try:
        yield
    except ClientAuthenticationError as error:  # its status is 401, or none where no credential gave a token
        state = "the sign-in is not taken" if error.status_code else "no sign-in (az login)"
        raise UnreachableError(f"{what}: {state}: {_said(error)}") from error
    except (ServiceRequestError, ServiceResponseError) as error:
        raise UnreachableError(f"{what}: no answer from Azure: {_said(error)}") from error
    except HttpResponseError as error:
        is_cut_off = isinstance(error, DecodeError) or (type(error) is HttpResponseError and error.status_code is None)
        if is_cut_off or error.status_code in _FOR_NOW:
            raise UnreachableError(f"{what}: Azure does not answer now: {_said(error)}") from error
        raise RefusedError(f"{what}: {_said(error)}") from error
    except (MlException, AzureError, ValidationError) as error:
        raise RefusedError(f"{what}: {_said(error)}") from error


def _said(error: Exception) -> str:
    inner = getattr(error, "error", None)
    text = _COLORS.sub("", str(getattr(inner, "message", None) or getattr(error, "message", None) or error))
    findings = re.findall(r"^\(x\) (.+)$", text, re.MULTILINE)  # the rest is advice
    text = " ".join((findings[0] if findings else jobfile.first_complaint(text)).split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."
