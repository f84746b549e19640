"""The one exception whose message is meant for the person who runs a component."""


class UserError(Exception):
    """Where it went wrong, what was found and what to do, in one line; printed without a traceback."""
