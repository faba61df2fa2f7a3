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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import parse_json
from peftport.kind import USUAL, kind_named
from peftport.tables import TEXT_COLUMNS, read_table
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
    import pyarrow as pa

    name = columns.label or LABEL_COLUMNS[0]
    return name in table.column_names and pa.types.is_string(table.column(name).type)


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
    if CHATS in names or (columns.text in names and _is_list(table.column(columns.text))):
        return True
    return {PROMPTS, COMPLETIONS} <= set(names) and _is_list(table.column(PROMPTS))


def _is_list(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(column.type) or pa.types.is_large_list(column.type))


def _messages(table: Any, origin: str, columns: Columns) -> Table:
    names = table.column_names
    if CHATS in names or columns.text is not None:
        name = column_of(names, columns.text, (CHATS,), "text", origin)
        chats = table.column(name).to_pylist()
    else:
        prompts, answers = (table.column(name).to_pylist() for name in (PROMPTS, COMPLETIONS))
        chats = [[*(p or ()), *(a or ())] for p, a in zip(prompts, answers, strict=True)]
    if not chats:
        raise BadInput(f"{origin} has no rows.")
    read = [_chat(chat, f"row {row} of {origin}") for row, chat in enumerate(chats, start=1)]
    return Table(origin, [text for text, _ in read], [answer for _, answer in read], form=CHATS)


def _chat(chat: Any, where: str) -> tuple[str, str]:
    """The turns before the answer, as JSON, and the answer."""
    if isinstance(chat, str):
        chat = parse_json(chat, f"the messages in {where}")
    if not isinstance(chat, list) or len(chat) < 2:
        raise BadInput(
            f'{where}: its messages are no list of turns like {{"role": "user", "content": ...}} '
            "that ends with the assistant's answer."
        )
    turns = [_turn(turn, where) for turn in chat]
    if turns[-1]["role"] != "assistant":
        raise BadInput(
            f"{where}: its last turn is the {turns[-1]['role']}'s; expected the assistant's, which "
            "is what is learnt and tested."
        )
    return json.dumps(turns[:-1], ensure_ascii=False), turns[-1]["content"]


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
    right, answers = table.column(name).to_pylist(), table.column(CHOICES).to_pylist()
    read = []
    for row, (one, label) in enumerate(zip(answers, right, strict=True), start=1):
        where = f"row {row} of {origin}"
        if isinstance(one, str):
            one = parse_json(one, f"the choices in {where}")
        if not isinstance(one, list) or len(one) < 2 or not all(_is_text(each) for each in one):
            raise BadInput(f"{where}: its choices are no list of two texts or more.")
        number = one.index(label) if label in one else label
        if not isinstance(number, int | str) or str(number) not in map(str, range(len(one))):
            raise BadInput(
                f"{where}: its {name} {label!r} is none of its {len(one)} choices, nor the number "
                "of one, counted from 0."
            )
        read.append((int(number), tuple(one)))
    return Table(
        origin, texts, [n for n, _ in read], form=CHOICES, answers=tuple(a for _, a in read)
    )


def _is_text(found: Any) -> bool:
    return isinstance(found, str) and bool(found.strip())


_FORMS = {
    "labelled": _Form(lambda table, columns: True, _labelled),
    "texts": _Form(lambda table, columns: True, _texts),
    "pairs": _Form(_are_pairs, _pairs),
    CHATS: _Form(_are_messages, _messages),
    CHOICES: _Form(_are_choices, _choices),
}
