"""What stops a local run, in words for the person who started it."""


class RunError(Exception):
    """One line: where, what was found, what to do."""
