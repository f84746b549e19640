"""Where the data of a job file lies on this machine: local paths, and `azureml:` references by a registry file."""

import re
from pathlib import Path

import yaml

from localml import models
from localml.data_assets import DataAssets
from localml.errors import RunError

_DATASTORE = "azureml://datastores/workspaceblobstore/paths/"  # of a workspace, the default one
_JOBS = Path(__file__).resolve().parents[2] / "pipelines" / "jobs"
_SHORT_NAME = re.compile(r"[\w.-]+(:[\w.-]+|@[\w-]+)")


class Assets:
    """Resolves the ``path`` of an input. ``registry`` is a YAML file of ``reference: local path`` lines, where a
    reference may be the beginning of a longer one (a datastore, a registry); below ``root`` are the named outputs of
    earlier jobs, the models that were registered on this machine, and the workspace's own datastore."""

    def __init__(self, job_folder: Path, registry: Path, root: Path) -> None:
        self._job_folder, self._registry, self._root = job_folder, registry, root
        self._known: dict[str, str] = {}
        if registry.is_file():
            content = yaml.safe_load(registry.read_text(encoding="utf-8")) or {}
            if not isinstance(content, dict):
                raise RunError(f"{registry}: expected lines of the form 'azureml:name:version: path'")
            self._known = {str(key): str(value) for key, value in content.items()}

    def resolve(self, where: str, reference: str) -> Path:
        """The absolute local path of what a job file names; raises ``RunError`` where there is nothing."""
        is_name = _SHORT_NAME.fullmatch(reference) and not reference.startswith("azureml:")
        if is_name and not (self._job_folder / reference).exists():
            reference = f"azureml:{reference}"  # azure-ai-ml takes the prefix off the inputs of a node
        if reference.startswith("azureml:"):
            path = self._registered(where, reference)
        elif "://" in reference and not reference.startswith("file://"):
            raise RunError(f"{where}: {reference} is not on this machine; download it and --set its local path")
        else:
            path = self._job_folder / reference.removeprefix("file://")
        path = path.resolve()
        if not path.exists():
            raise RunError(f"{where}: no file or folder at {path}")
        if path.is_dir() and not any(path.iterdir()):
            raise RunError(f"{where}: the folder {path} is empty")
        return path

    def _registered(self, where: str, reference: str) -> Path:
        for known in sorted(self._known, key=len, reverse=True):
            rest = reference.removeprefix(known)
            if reference.startswith(known) and (not rest or known.endswith("/") or rest.startswith("/")):
                return self._registry.parent / Path(self._known[known]).expanduser() / rest.strip("/")
        found = (
            self._in_datastore(reference)
            or DataAssets(self._root).path_of(reference)
            or models.folder_of(self._root / "mlflow.db", reference)
        )
        if found:
            return found
        if re.fullmatch(r"azureml:[\w.-]+", reference):
            raise RunError(f"{where}: {reference}: write a version: {reference}:1 or {reference}@latest")
        remedy = f"add '{reference}: <local path>' to {self._registry}"
        if jobs := _jobs_that_make(reference):
            remedy = f"run {' or '.join(jobs)} first, or {remedy}"
        raise RunError(f"{where}: {reference} is not on this machine; {remedy}")

    def _in_datastore(self, reference: str) -> Path | None:
        """Where the workspace's own datastore is on this machine, which the data collector writes to."""
        if not reference.startswith(_DATASTORE):
            return None
        datastore = (self._root / "datastores" / "workspaceblobstore").resolve()
        path = (datastore / reference.removeprefix(_DATASTORE).strip("/")).resolve()
        return path if path.is_relative_to(datastore) else None


def _jobs_that_make(reference: str) -> list[str]:
    """The job files of this repository, three at most, that register a model or an output of this name; one that asks
    for it itself, or is for Azure where another is not, helps nobody here."""
    name = re.split("[:@]", reference)[1]
    found = []
    for file in sorted(_JOBS.glob("*.yml")):
        text = file.read_text(encoding="utf-8")
        if name not in text or re.search(rf"azureml:{re.escape(name)}[:@]", text):
            continue
        job = yaml.safe_load(text)
        outputs = [output.get("name") for output in job.get("outputs", {}).values() if isinstance(output, dict)]
        if name in (job.get("inputs", {}).get("registered_model_name"), *outputs):
            found.append(f"pipelines/jobs/{file.name}")
    return ([file for file in found if "-azure" not in file] or found)[:3]
