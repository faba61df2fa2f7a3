"""The forms that rows come in, told by their columns, and each form's reader.

| form | columns | of a row |
|---|---|---|
| labelled | text, label | a text and a label |
| texts | text | a text alone |
| pairs | prompt, completion; or text, label, where labels are text and are asked for as such | a
prompt and what follows it |
| messages | messages; or prompt and completion that are messages | a chat, whose last turn is the
assistant's |
| choices | text, choices, label | a text, several answers, and the number of the right one |

`prompt`, `completion` and `messages` are read as TRL reads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import parse_json
from peftport.kind import USUAL, kind_named
from peftport.tables import TEXT_COLUMNS, read_table, values_in
from peftport.tasks.labels import canonical
from peftport.tasks.readers import LABEL_COLUMNS, Table, column_of, labelled, texts_of

PROMPTS, COMPLETIONS, CHATS, CHOICES = "prompt", "completion", "messages", "choices"
KIND_OF = {
    "labelled": USUAL,
    "texts": "language",
    "pairs": "completion",
    CHATS: "completion",
    CHOICES: "choice",
}
"""The kind of task that rows of a form are for, where no other is asked for."""
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Columns:
    """The columns that hold text and label, None is the usual name; and the kind of task that the
    rows are for, None where the columns are to tell."""

    text: str | None = None
    label: str | None = None
    kind: str | None = None


def read_file(path: Path, columns: Columns | None = None) -> Table:
    """Read one file's rows.

    Raises:
        BadInput: the file is missing, empty, corrupt or of an unknown format, lacks a column, or
            has a row without what its form asks for.
    """
    return from_arrow(read_table(path), str(path), columns or Columns())


def from_arrow(table: Any, origin: str, columns: Columns) -> Table:
    """Take rows out of a pyarrow Table; BadInput as for `read_file`."""
    kind = kind_named(columns.kind or kind_of(list(table.column_names)))
    there = [form for form in kind.forms if _FORMS[form].fits(table, columns)]
    return _FORMS[there[0] if there else kind.forms[-1]].read(table, origin, columns)


def kind_of(names: list[str]) -> str:
    """The kind of task that rows with these columns are for, unless another is asked for."""
    if CHATS in names or {PROMPTS, COMPLETIONS} <= set(names):
        return KIND_OF[CHATS]
    if len(names) == 1 and names[0] in TEXT_COLUMNS:
        return KIND_OF["texts"]
    return KIND_OF[CHOICES] if CHOICES in names else USUAL


@dataclass(frozen=True)
class _Form:
    """fits: whether a table's columns are of this form. read: its rows."""

    fits: Callable[[Any, Columns], bool]
    read: Callable[[Any, str, Columns], Table]


def _labelled(table: Any, origin: str, columns: Columns) -> Table:
    return labelled(table, origin, columns.text, columns.label)


def _texts(table: Any, origin: str, columns: Columns) -> Table:
    texts = texts_of(table, columns.text, origin)
    return Table(origin, texts, [0] * len(texts), form="texts")


def _are_pairs(table: Any, columns: Columns) -> bool:
    if {PROMPTS, COMPLETIONS} <= set(table.column_names):
        return True
    name = columns.label or LABEL_COLUMNS[0]
    return name in table.column_names and any(map(_is_word, _one_by_one(table.column(name))))


def _one_by_one(column: Any) -> Iterator[Any]:
    """The values of a column, of which no more is made than is asked for."""
    return (value.as_py() for value in column)


def _is_word(value: object) -> bool:
    """Whether a label is text in every format: a CSV file writes numbers as text, too."""
    if not isinstance(value, str) or not value.strip():
        return False
    label = canonical(value)
    return isinstance(label, str) and label not in ("true", "false")


def _pairs(table: Any, origin: str, columns: Columns) -> Table:
    prompts = texts_of(table, columns.text, origin, (PROMPTS, *TEXT_COLUMNS))
    usual = (COMPLETIONS, *LABEL_COLUMNS)
    return Table(
        origin,
        prompts,
        list(texts_of(table, columns.label, origin, usual, "label")),
        form="pairs",
    )


def _are_messages(table: Any, columns: Columns) -> bool:
    names = table.column_names
    if CHATS in names or (columns.text in names and _has_chats(table.column(columns.text))):
        return True
    both = {PROMPTS, COMPLETIONS} <= set(names) and columns.text is None
    return both and _has_chats(table.column(PROMPTS))


def _has_chats(column: Any) -> bool:
    """Whether a column's first value is a list of turns, as such or as JSON."""
    first = next((value for value in _one_by_one(column) if value is not None), None)
    if isinstance(first, str):
        if not first.lstrip().startswith("["):
            return False
        try:
            first = parse_json(first, "a chat")
        except BadInput:
            return False
    return isinstance(first, list) and all(isinstance(turn, dict) for turn in first)


def _messages(table: Any, origin: str, columns: Columns) -> Table:
    names = table.column_names
    if CHATS in names or columns.text is not None:
        name = column_of(names, columns.text, (CHATS,), "text", origin)
        chats = values_in(table, name, origin)
    else:
        prompts, answers = (values_in(table, name, origin) for name in (PROMPTS, COMPLETIONS))
        both = enumerate(zip(prompts, answers, strict=True), start=1)
        chats = [
            [turn for part in parts for turn in _turns(part, f"row {row} of {origin}")]
            for row, parts in both
        ]
    if not chats:
        raise BadInput(f"{origin} has no rows.")
    read = [_chat(chat, f"row {row} of {origin}") for row, chat in enumerate(chats, start=1)]
    return Table(origin, [text for text, _ in read], [answer for _, answer in read], form=CHATS)


def _chat(chat: Any, where: str) -> tuple[str, str]:
    """The turns before the answer, as JSON, and the answer."""
    turns = [_turn(turn, where) for turn in _turns(chat, where)]
    if len(turns) < 2:
        raise BadInput(
            f"{where}: its chat has {len(turns)} turns; expected one at the least before the "
            "assistant's answer."
        )
    if turns[-1]["role"] != "assistant":
        raise BadInput(
            f"{where}: its last turn is the {turns[-1]['role']}'s; expected the assistant's, which "
            "is what is learnt and tested."
        )
    return json.dumps(turns[:-1], ensure_ascii=False), turns[-1]["content"]


def _turns(chat: Any, where: str) -> list[Any]:
    """A chat's turns as they stand, from a list or from its JSON."""
    if isinstance(chat, str):
        chat = parse_json(chat, f"the messages in {where}")
    if not isinstance(chat, list):
        raise BadInput(
            f'{where}: its messages are no list of turns like {{"role": "user", "content": ...}}.'
        )
    return chat


def _turn(turn: Any, where: str) -> dict[str, str]:
    """One turn's role and text; a content in parts is their text, one after the other."""
    role = turn.get("role") if isinstance(turn, dict) else None
    if role not in _ROLES:
        raise BadInput(f"{where}: a turn of role {role!r}; known are {', '.join(_ROLES)}.")
    content = turn.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        content = None if None in parts else "".join(map(str, parts))
    if not isinstance(content, str):
        raise BadInput(f"{where}: the {role}'s turn has no text as its content.")
    return {"role": role, "content": content}


def _are_choices(table: Any, columns: Columns) -> bool:
    return CHOICES in table.column_names


def _choices(table: Any, origin: str, columns: Columns) -> Table:
    texts = texts_of(table, columns.text, origin, (*TEXT_COLUMNS, PROMPTS, "question"))
    usual = (*LABEL_COLUMNS, "answer", "gold")
    name = column_of(table.column_names, columns.label, usual, "label", origin)
    right, answers = (values_in(table, each, origin) for each in (name, CHOICES))
    read = []
    for row, (one, label) in enumerate(zip(answers, right, strict=True), start=1):
        where = f"row {row} of {origin}"
        if isinstance(one, str):
            one = parse_json(one, f"the choices in {where}")
        if not isinstance(one, list) or len(one) < 2 or not all(_is_text(each) for each in one):
            raise BadInput(f"{where}: its choices are no list of two texts or more.")
        read.append((_right(label, one, name, where), tuple(one)))
    return Table(
        origin, texts, [n for n, _ in read], form=CHOICES, answers=tuple(a for _, a in read)
    )


def _right(label: Any, choices: list[str], name: str, where: str) -> int:
    """The number of the right choice, which a label is or has the text of."""
    try:
        number = canonical(label)
    except ValueError:
        number = -1
    numbered = {number} & set(range(len(choices)))
    named = {choices.index(label)} if label in choices else set()
    if isinstance(label, int) and numbered:
        return int(number)
    if not numbered | named:
        raise BadInput(
            f"{where}: its {name} {label!r} is none of its {len(choices)} choices, nor the number "
            "of one, counted from 0."
        )
    if len(numbered | named) > 1:
        raise BadInput(
            f"{where}: its {name} {label!r} is one of its choices and the number of another, "
            "counted from 0: write it as a number, in JSONL or Parquet."
        )
    return int((numbered | named).pop())


def _is_text(found: Any) -> bool:
    return isinstance(found, str) and bool(found.strip())


_FORMS = {
    "labelled": _Form(lambda table, columns: True, _labelled),
    "texts": _Form(lambda table, columns: True, _texts),
    "pairs": _Form(_are_pairs, _pairs),
    CHATS: _Form(_are_messages, _messages),
    CHOICES: _Form(_are_choices, _choices),
}
