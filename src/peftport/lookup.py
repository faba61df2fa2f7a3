"""What is said of a host, a module or a task that is not found: what was looked for, where, and
what to do; in one form, whatever huggingface_hub or datasets said."""

from __future__ import annotations

from pathlib import Path

from peftport.errors import BadInput
from peftport.files import exists


def not_found(what: str, name: str, advice: str, error: Exception | None = None) -> BadInput:
    """The error to raise.

    Args:
        what: it is: "host".
        name: by which it was looked for.
        advice: what may be named in its place, as a sentence.
        error: of the hub, where that was asked too.
    """
    path = Path(name).expanduser().absolute()
    if exists(path) and error is None:
        return BadInput(f"{what} {name!r} is none: {path} is something else. {advice}")
    here = [] if exists(path) else [f"{path} does not exist"]
    hub = [] if error is None else [hub_said(error)]
    return BadInput(f"{what} {name!r} was not found: {'; '.join([*here, *hub])}. {advice}")


def hub_said(error: Exception) -> str:
    """What became of asking the hub, as a clause."""
    from huggingface_hub import constants, errors

    cause = error.__cause__
    if isinstance(cause, errors.HfHubHTTPError | errors.LocalEntryNotFoundError):
        error = cause  # datasets tells what the hub said in its own words
    cache = f"its cache {constants.HF_HUB_CACHE} has no copy"
    kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
        (errors.GatedRepoError, "the hub wants you to ask for access on its page, and a login"),
        (errors.RevisionNotFoundError, "the hub has no such revision of it"),
        (
            errors.RepositoryNotFoundError,
            "the hub has nothing of that name, or it is private (`hf auth login`)",
        ),
        (errors.HFValidationError, "it is no name on the hub (OWNER/NAME)"),
    )
    for kind, told in kinds:
        if isinstance(error, kind):
            return told
    if constants.HF_HUB_OFFLINE:
        return f"the hub was not asked (HF_HUB_OFFLINE is set), and {cache}"
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError):
        return f"the hub could not be reached, and {cache}"
    return f"the hub gave nothing ({first_line(error)})"


def first_line(error: Exception) -> str:
    """The first line of what an error says, without a full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
