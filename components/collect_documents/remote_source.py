"""The files below a URL of Azure Blob Storage or Data Lake, copied here one at a time while each is read."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from folder_source import walk
from pieces import RawFile, shown_name

from slmkit.errors import UserError

FORMS = "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH or https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH"
# The sign-in's token goes to the host of the URL, so that only Azure's own are taken.
_HOST = re.compile(
    r"(?P<account>[a-z0-9]{3,24})\.(?:z\d+\.)?(?:blob|dfs)"
    r"\.(?:core\.(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)|storage\.azure\.net)"
)
_EMULATOR = re.compile(r"(?:127\.0\.0\.1|localhost)(?::\d+)?")  # Azurite, whose URLs begin with the account
_KEYS = ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN")
_ACCESS = {
    "azure": "run `az login`, or give the compute a managed identity, with the role Storage Blob Data Reader",
    "none": "it is not public: set auth to azure",
}


class Place(NamedTuple):
    """Where the files are: the account, the host of its Blob endpoint, and container and folder in it."""

    account: str
    host: str
    folder: str


def parse_url(url: str) -> Place:
    """The place that a URL names; a URL with a key or token in it is refused, and not repeated."""
    try:
        parsed = urlsplit(url.strip())
        container, at, host = parsed.netloc.rpartition("@")
    except ValueError:
        raise UserError(f"raw_data_url is not a URL; give {FORMS}") from None
    if parsed.query or parsed.fragment or ":" in container or "sig=" in unquote(url):
        raise UserError(
            f"raw_data_url for {host} carries a query, which may be a SAS token or a key: give the URL without it and "
            "set auth to azure (sign-in or managed identity)"
        )
    path = parsed.path.strip("/")
    if parsed.scheme == "az" and not at:  # az://container/path: the account is given as the Azure tools take it
        container, host = host, f"{os.environ.get('AZURE_STORAGE_ACCOUNT_NAME', '')}.blob.core.windows.net"
    if parsed.scheme in ("abfss", "abfs", "az") and container:
        folder = f"{container}/{path}"
    elif parsed.scheme == "https" and not at:
        folder = unquote(path)
    else:
        raise UserError(f"raw_data_url {url!r} is of no known form; give {FORMS}")
    if match := _HOST.fullmatch(host):
        place = Place(match["account"], host.replace(".dfs.", ".blob.", 1), folder.strip("/"))
    elif _EMULATOR.fullmatch(host) and parsed.scheme == "https":
        account, _, folder = folder.partition("/")
        place = Place(account, f"{host}/{account}", folder.strip("/"))
    else:
        raise UserError(f"raw_data_url names {host!r}, which is no storage account of Azure; give {FORMS}")
    if not place.folder:
        raise UserError(f"raw_data_url {url!r} names no container; give {FORMS}")
    return place


def files_at_url(url: str, auth: str) -> Iterator[RawFile]:
    """The files in one order; each stands on this machine only until the next one is asked for."""
    place = parse_url(url)
    if given := [name for name in _KEYS if os.environ.get(name)]:
        raise UserError(
            f"{given[0]} is set, which would take the place of the sign-in: unset it; keys are not used here"
        )
    from adlfs import AzureBlobFileSystem
    from azure.core.exceptions import HttpResponseError

    with _says_what_to_do(url, auth), tempfile.TemporaryDirectory() as temporary:
        store = AzureBlobFileSystem(
            account_name=place.account,
            account_host=place.host,
            anon=auth == "none",  # else DefaultAzureCredential
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        folder, names = place.folder, walk(lambda name: _children(store, f"{place.folder}/{name}".rstrip("/")))
        if store.info(place.folder)["type"] == "file":
            folder, _, name = place.folder.rpartition("/")
            names = iter([name])
        copy = Path(temporary, "file")
        for name in names:
            try:
                store.get_file(f"{folder}/{name}", str(copy))
                file = RawFile(shown_name(name), copy)
            except (FileNotFoundError, HttpResponseError) as error:
                if getattr(error, "status_code", 404) not in (404, 409):  # 409: it is in the archive tier
                    raise
                file = RawFile(shown_name(name), None, f"cannot be downloaded: {_first_line(error)}")
            yield file
            copy.unlink(missing_ok=True)


def _children(store: Any, folder: str) -> list[str]:
    entries = [(entry["name"].strip("/"), entry["type"]) for entry in store.ls(folder, detail=True)]
    return [
        name.removeprefix(f"{folder}/") + "/" * (kind == "directory")
        for name, kind in entries
        if name.startswith(f"{folder}/")
    ]


@contextlib.contextmanager
def _says_what_to_do(url: str, auth: str) -> Iterator[None]:
    from azure.core.exceptions import AzureError, ClientAuthenticationError

    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{url}: no such container or folder") from None
    except AzureError as error:
        denied = isinstance(error, ClientAuthenticationError) or getattr(error, "status_code", 0) in (401, 403, 409)
        hint = f"; {_ACCESS[auth]}" if denied else ""
        raise UserError(f"{url}: {type(error).__name__}: {_first_line(error)}{hint}") from None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__
