"""The code that a step runs on: the snapshot that azure-ai-ml would upload, with its includes and ignores."""

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

from localml.errors import RunError


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The files of a component by their place in the snapshot, and the hash over all of them."""

    files: dict[str, bytes]
    sha256: str

    def copy_to(self, folder: Path) -> None:
        """Lay the snapshot out in a folder of the step's own."""
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def take(component: Any) -> Snapshot:
    """Build a component's snapshot with azure-ai-ml's own code, so that what is missing there is missing here."""
    from azure.ai.ml._utils._asset_utils import get_upload_files_from_folder
    from azure.ai.ml.exceptions import MlException

    files: dict[str, bytes] = {}
    try:
        with component._build_code() as code:
            if code is not None:
                for path, place in get_upload_files_from_folder(code.path, ignore_file=code._ignore_file):
                    files[place] = Path(path).read_bytes()
    except (MlException, OSError, ValueError) as error:
        raise RunError(
            f"{component.name}: the code snapshot cannot be built: {' '.join(str(error).split())}"
        ) from error
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return Snapshot(files, digest.hexdigest())
