"""The outputs of finished jobs that have a name: data assets of this machine, which later jobs name as on Azure ML."""

import contextlib
import fcntl
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localml.errors import RunError

_REFERENCE = re.compile(r"azureml:(?P<name>[\w.-]+)(?::(?P<version>[\w.-]+)|@latest)")


class DataAssets:
    """``ROOT/data_assets.json``: by name and version, where a finished output lies and its hash.

    As on Azure ML a version never changes. Unlike there, an output that is the same as the latest version is no new
    one: a job that is run again reuses its steps, and would add versions without end.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._file = root, root / "data_assets.json"

    def path_of(self, reference: str) -> Path | None:
        """Where ``azureml:name:version`` or ``azureml:name@latest`` lies; None where no output has this name.

        ``RunError`` where one has, but not this version.
        """
        found = _REFERENCE.fullmatch(reference)
        versions = self._read().get(found["name"]) if found else None
        if not versions:
            return None
        version = found["version"] or list(versions)[-1]
        if version not in versions:
            raise RunError(f"{reference}: this machine has {', '.join(versions)}, @latest of {found['name']}")
        return self._root / versions[version]["path"]

    def register(self, name: str, version: str | None, path: Path, sha256: str, job_name: str) -> str:
        """Add an output and give its version, which counts up where the job does not say it."""
        with self._locked():
            known = self._read()
            versions = known.setdefault(name, {})
            latest = list(versions)[-1] if versions else None
            if version is None and latest and versions[latest]["sha256"] == sha256:
                return latest
            if version in versions and versions[version]["sha256"] != sha256:
                raise RunError(
                    f"azureml:{name}:{version} is there already with other content, from job "
                    f"{versions[version]['job']}; a version never changes: give another, or none"
                )
            if version is None:
                version = str(max((int(given) for given in versions if given.isdecimal()), default=0) + 1)
            entry = {"path": path.relative_to(self._root).as_posix(), "sha256": sha256, "job": job_name}
            versions.setdefault(version, entry)
            partial = self._file.with_suffix(f".{uuid.uuid4().hex}.partial")
            partial.write_text(json.dumps(known, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            partial.replace(self._file)
            return version

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            return json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise RunError(f"{self._file}: not JSON: {error}; correct it, or remove it with all it knows") from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time: two jobs may finish at the same moment."""
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
