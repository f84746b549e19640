"""What is missing to submit to Azure ML: sign-in, names, reachability, the workspace and its computes."""

from __future__ import annotations

import base64
import json
import logging
import os
import queue
import re
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from doctor import ROOT, SETUP, Finding, output

CLOUDS = {
    "AzureCloud": "https://management.azure.com",
    "AzureChinaCloud": "https://management.chinacloudapi.cn",
    "AzureUSGovernment": "https://management.usgovcloudapi.net",
}
NAMES = {
    "AZURE_SUBSCRIPTION_ID": "subscription_id",
    "AZURE_RESOURCE_GROUP": "resource_group",
    "AZURE_ML_WORKSPACE": "workspace_name",
}
SECONDS = 10  # for each thing that is asked
LARGEST_BYTES = 2**22
UP = ".venv/bin/python scripts/workspace.py up"


def findings() -> Iterator[Finding]:
    """Never a token, and nothing of what a program that handles tokens printed."""
    command_line = _started(cli)
    known = names()
    if absent := [name for name in NAMES if not known[name]]:
        yield Finding(
            "missing",
            f"{', '.join(absent)}: not set, nor in a config.json",
            "export them; values: az ml workspace list",
        )
    try:
        arm = resource_manager()
    except UnreachedError as error:
        yield error.finding
        return
    signing_in = _started(lambda: sign_in(arm))
    yield _result(command_line, Finding("note", f"az: no answer in {SECONDS} s", "az upgrade"))
    late = Finding("missing", f"sign-in: no token in {SECONDS} s", "az login"), None
    signed_in, token = _result(signing_in, late)
    yield signed_in
    if token and not absent:
        yield from workspace(arm, token, *known.values())


def cli() -> Finding:
    """Signs in for the others, and is what provision.sh calls; a job goes out without it."""
    if shutil.which("az") is None:
        return Finding("note", "az: not found", "install the Azure CLI for `az login` and scripts/provision")
    try:
        found = json.loads(output(["az", "version", "--output", "json"], SECONDS) or "")
        version, extensions = found["azure-cli"], found["extensions"]
    except (ValueError, KeyError, TypeError):
        return Finding("note", "az does not say its version", "az version")
    if "ml" not in extensions:
        return Finding("note", f"az {version} has no extension ml", "az extension add --name ml")
    return Finding("ok", f"az {version} with ml {extensions['ml']}")


def names() -> dict[str, str]:
    """Subscription, resource group and workspace, from where scripts/submit.py has them."""
    found = {name: os.environ.get(name, "") for name in NAMES}
    here = Path.cwd()
    places = [here / ".azureml", here, *(place for up in here.parents for place in (up / ".azureml", up))]
    file = next((place / "config.json" for place in places if (place / "config.json").is_file()), None)
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file else {}
        return {name: value or str(content.get(NAMES[name], "")) for name, value in found.items()}
    except (OSError, ValueError, AttributeError):
        return found


class UnreachedError(Exception):
    """A request without the answer that was hoped for."""

    def __init__(self, finding: Finding, status: int = 0) -> None:
        super().__init__(finding.what)
        self.finding, self.status = finding, status


def resource_manager() -> str:
    """The address of Azure Resource Manager in the cloud that azure-ai-ml would take."""
    cloud = os.environ.get("AZUREML_CURRENT_CLOUD", "AzureCloud")
    url = os.environ.get("ARM_CLOUD_METADATA_URL")
    if not url:
        arm = CLOUDS.get(cloud, CLOUDS["AzureCloud"])
        get(f"{arm}/metadata/endpoints?api-version=2022-09-01")
        return arm
    remedy = "unset ARM_CLOUD_METADATA_URL for Azure itself"
    try:
        clouds = get(url)
        found = next(each for each in clouds if each["name"] == cloud)
        arm = found["resourceManager"].rstrip("/")
    except (StopIteration, KeyError, TypeError, AttributeError):
        raise UnreachedError(Finding("missing", f"ARM_CLOUD_METADATA_URL knows no cloud {cloud}", remedy)) from None
    if not arm.startswith("https://"):
        raise UnreachedError(Finding("missing", "ARM_CLOUD_METADATA_URL leads to no https address", remedy))
    return arm


def sign_in(arm: str) -> tuple[Finding, str | None]:
    """As scripts/submit.py signs in; the token is for the requests below."""
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        return Finding("missing", "sign-in: azure-identity is absent", f"{SETUP}, then .venv/bin/python"), None
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    try:
        token = DefaultAzureCredential().get_token(f"{arm}/.default")
    except Exception as error:  # of many packages, and none of their texts is ours to print
        return Finding("missing", f"sign-in: no credential works ({type(error).__name__})", "az login"), None
    minutes = max(0, round((token.expires_on - time.time()) / 60))
    return Finding("ok", f"signed in as {_who(token.token)}, for {minutes} minutes"), token.token


def _who(token: str) -> str:
    """The name in a token, which is shown nowhere else."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return next(str(claims[key])[:80] for key in ("upn", "unique_name", "name", "appid", "oid") if claims.get(key))
    except (IndexError, ValueError, TypeError, StopIteration):
        return "somebody"


def workspace(arm: str, token: str, subscription: str, group: str, name: str) -> Iterator[Finding]:
    """Whether it is there and may be read, and has the computes that the jobs name."""
    if not all(re.fullmatch(r"[\w().-]{1,90}", part) for part in (subscription, group, name)):
        yield Finding("missing", f"{', '.join(NAMES)}: not the names of a workspace", "see `az ml workspace list`")
        return
    url = f"{arm}/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.MachineLearningServices"
    url += f"/workspaces/{name}"
    try:
        found = get(f"{url}?api-version=2024-04-01", token)
        yield Finding("ok", f"workspace {name} in {found.get('location')}")
        computes = {each["name"] for each in get(f"{url}/computes?api-version=2024-04-01", token)["value"]}
    except UnreachedError as error:
        remedies = {
            401: "az login; the token is refused",
            403: "ask for the role AzureML Data Scientist on the workspace",
            404: "see `az ml workspace list`, or make it by scripts/provision",
        }
        what = f"workspace {name}: {error.finding.what}"
        yield Finding("missing", what, remedies.get(error.status, error.finding.remedy))
        return
    except (KeyError, TypeError, AttributeError):
        yield Finding(
            "missing", f"workspace {name}: the answer is not Azure's", "look for a proxy that answers instead"
        )
        return
    jobs = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "pipelines" / "jobs").glob("*.yml")))
    named = sorted(set(re.findall(r"compute: azureml:([\w-]+)", jobs)))
    if absent := [each for each in named if each not in computes]:
        remedy = "make them by scripts/provision, or name yours in pipelines/presets"
        yield Finding("note", f"computes that jobs name and the workspace lacks: {', '.join(absent)}", remedy)
    else:
        yield Finding("ok", f"computes: {', '.join(named)}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A token goes to no other address."""


def get(url: str, token: str | None = None) -> Any:
    """The JSON at an address; raises ``UnreachedError``."""
    host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
    bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    remedy = UP if host.startswith("127.0.0.1") else "check network, proxy (HTTPS_PROXY) and firewall"
    try:
        context = ssl.create_default_context(cafile=bundle)
    except OSError:
        what = f"REQUESTS_CA_BUNDLE names no certificates: {bundle}"
        raise UnreachedError(Finding("missing", what, f"unset it, or {UP}")) from None
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect)
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            return json.loads(answer.read(LARGEST_BYTES))
    except urllib.error.HTTPError as error:
        raise UnreachedError(Finding("missing", f"{host} answers {error.code}", remedy), error.code) from None
    except ValueError:
        raise UnreachedError(Finding("missing", f"{host} does not answer in JSON", remedy)) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            remedy = "REQUESTS_CA_BUNDLE=FILE with the certificates of whoever opens TLS on the way"
        raise UnreachedError(Finding("missing", f"{host} is not reached: {reason}", remedy)) from None


def _started(function: Callable[[], Any]) -> queue.Queue[Any]:
    """Its result will be in the queue; a thread that hangs does not keep the program from ending."""
    results: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=lambda: results.put(function()), daemon=True).start()
    return results


def _result(results: queue.Queue[Any], late: Any) -> Any:
    try:
        return results.get(timeout=SECONDS)
    except queue.Empty:
        return late
