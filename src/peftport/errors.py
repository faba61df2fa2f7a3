"""The two ways in which peftport stops with a message instead of a traceback."""


class PeftportError(Exception):
    """An error whose text is meant for the user; `exit_code` is what the command line ends with."""

    exit_code = 1


class RunFailed(PeftportError):
    """The input was fine and the work failed, for instance by a loss that is not a number."""

    exit_code = 1


class BadInput(PeftportError):
    """The user's input cannot be used: the message names it, what was expected, and what to do."""

    exit_code = 2
