"""The one exception whose message is meant for the person who runs a component."""


class UserError(Exception):
    """Where it went wrong, what was found and what to do, in one line; printed without a traceback.

    ``exit_code`` is for a script that has to tell one refusal from another.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
