"""Options of how texts are read: several commands have them, and each hands them on together.

A command has one parameter of such a kind, and `gathered` makes an option of each of its keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Annotated, Any, TypedDict, get_type_hints, is_typeddict

import typer

from peftport.cli.arguments import TextColumn


class ReadingOptions(TypedDict):
    """How a module's texts are put before a host, and which columns of a task are read."""

    label_words: Annotated[
        str | None,
        typer.Option(
            "--label-words",
            help="Words for the labels in order, joined by commas. No space before them: on "
            "decoders one is put between template and word.",
        ),
    ]
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            help="How a text is put before a host, {text} standing for it once: '{text} it was'. "
            "The label word follows it on decoders.",
        ),
    ]
    text_column: TextColumn
    label_column: Annotated[
        str | None, typer.Option("--label-column", help="The task's column of labels.")
    ]
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            help="What the task asks for: classification, choice, completion or language. What "
            "the columns of its data tell if not given.",
        ),
    ]


class AnswerOptions(ReadingOptions):
    """The same where a host is also asked for answers that it writes."""

    system: Annotated[
        str | None,
        typer.Option("--system", help="The system's turn of every chat, in place of the data's."),
    ]
    max_answer: Annotated[
        int | None,
        typer.Option(
            "--max-answer",
            min=1,
            help="The most tokens that a host writes as an answer; as many as the longest "
            "reference has if not given, 128 at most.",
        ),
    ]


class ScoreOptions(AnswerOptions):
    """The same where what was written is judged."""

    scorer: Annotated[
        str | None,
        typer.Option(
            "--scorer",
            metavar="MODULE:FUNCTION",
            help="A metric of your own for tasks of kind completion: a function of what was "
            "written and of the reference.",
        ),
    ]


def gathered(command: Callable[..., None]) -> Callable[..., None]:
    """A command with an option for each key of its parameters that are mappings of options.

    The options stand in the place of the parameter; those that are not given are None.
    """
    parameters = inspect.signature(command, eval_str=True).parameters
    together = {
        name: list(get_type_hints(each.annotation))
        for name, each in parameters.items()
        if is_typeddict(each.annotation)
    }

    @wraps(command)
    def apart(**given: Any) -> None:
        for name, keys in together.items():
            given[name] = {key: given.pop(key, None) for key in keys}
        command(**given)

    options = [option for each in parameters.values() for option in _options(each)]
    apart.__annotations__ = {option.name: option.annotation for option in options}
    vars(apart)["__signature__"] = inspect.Signature(options)
    return apart


def _options(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """The parameter, or one for each of its keys."""
    by_name = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    if not is_typeddict(parameter.annotation):
        yield by_name
        return
    hints = get_type_hints(parameter.annotation, include_extras=True)
    for name, hint in hints.items():
        yield by_name.replace(name=name, annotation=hint, default=None)
