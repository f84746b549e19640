"""What Azure ML says: the states in which a job has ended, and its messages as a log may show them."""

import re
from typing import Any

# From NotResponding a job may come back, but azure-ai-ml waits no longer either.
ENDED = ("Completed", "Failed", "Canceled", "NotResponding")
MAX_LENGTH = 400


def one_line(message: Any) -> str:
    """Short, and without what looks like a token or the signature of a URL."""
    text = " ".join(str(message).split())
    text = re.sub(r"(?i)(bearer |sig=|token=|key=)[\w.~+/%=-]{8,}", r"\1***", text)
    return text if len(text) <= MAX_LENGTH else text[:MAX_LENGTH] + " …"
