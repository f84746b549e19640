"""What a dry run of scripts/run.py or scripts/submit.py refuses in a pipeline job."""

from collections.abc import Iterator

from lint_rules.documents import Document
from localml import jobfile
from localml.errors import RunError

OTHER_JOBS = ("automl", "command", "finetuning", "import", "parallel", "spark", "sweep")


def refusals(document: Document) -> Iterator[str]:
    """In one line; nothing for a job that is no pipeline."""
    if document.at("type") in OTHER_JOBS:
        return
    try:
        jobfile.check_bindings(jobfile.load(document.path))
    except RunError as error:
        yield str(error).removeprefix(f"{document.path}: ")
