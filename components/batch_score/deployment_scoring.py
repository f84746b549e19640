"""The scoring script of the batch deployment in specs: the service calls init once a process, then run with files."""

import contextlib
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "_shared")]

import record_scoring  # noqa: E402
import scoring_report  # noqa: E402
from record_scoring import Asking  # noqa: E402

from slmkit import cli  # noqa: E402
from slmkit.errors import UserError  # noqa: E402

SPEC = HERE / "component.yml"
ARGUMENTS = "BATCH_SCORE_ARGUMENTS"  # the environment variable with flags of batch_score
_asking: Asking
_scorer: record_scoring.RecordScorer
_so_far: Path
_resources = contextlib.ExitStack()  # until the process ends


def init() -> None:
    global _asking, _scorer, _so_far
    from model_inference import answer_sources

    flags = shlex.split(os.environ.get(ARGUMENTS, ""))
    _asking = cli.parse(Asking, SPEC, ["--model", str(model_folder(Path(os.environ["AZUREML_MODEL_DIR"]))), *flags])
    source = _resources.enter_context(answer_sources.connect(_asking, truncate_prompt=_asking.truncate_prompt))
    _scorer = record_scoring.RecordScorer(source, _asking)
    _so_far = Path(_resources.enter_context(tempfile.TemporaryDirectory()))


def run(mini_batch: list[str]) -> list[str]:
    """The rows of all files as lines of JSON, which the service appends to its output; at least one a file."""
    return [line for path in mini_batch for line in _lines(Path(path))]


def model_folder(registered: Path) -> Path:
    """The folder with config.json: the registered one, or the only one in it, as the model was registered."""
    found = [folder for folder in (registered, *sorted(registered.iterdir())) if (folder / "config.json").is_file()]
    if not found or (len(found) > 1 and found[0] != registered):
        raise UserError(f"{registered}: {len(found)} folders with a config.json; register one model folder")
    return found[0]


def _lines(file: Path) -> list[str]:
    rows: list[dict] = []
    tally = _scorer.score(file.name, file, rows.append, _so_far)
    scoring_report.check_errors(tally, _asking.max_error_fraction, f"{file.name}: ")
    # A file without a row would count as failed.
    rows = rows or [{"id": file.name, **record_scoring.failed("the file holds no records")}]
    return [json.dumps({"file": file.name, **row}, ensure_ascii=False) for row in rows]
