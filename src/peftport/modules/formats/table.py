"""What is read, written and refused, told from the readers and writers themselves."""

from __future__ import annotations

from peftport.hosts.geometry import families
from peftport.modules.formats.peft import CONVERTED, REFUSED, by_type
from peftport.modules.formats.peft_config import STARTS
from peftport.techniques import working_techniques

Row = tuple[str, ...]


def techniques() -> list[Row]:
    """Of every technique, which formats it is read from and written to."""
    foreign = ("peft", "adapterhub")
    rows: list[Row] = [("technique", "peftport", *foreign)]
    for made in working_techniques():
        said = ("read, written" if each in made.formats else "refused" for each in foreign)
        rows.append((made.name, "read, written", *said))
    return rows


def adapterhub_families() -> list[Row]:
    """Of every family, whether adapters has a layout for it."""
    rows: list[Row] = [("family", "peft", "adapterhub")]
    for name, family in families().items():
        said = "read, written" if family.get("adapterhub") else "refused"
        rows.append((name, "read, written", said))
    return rows


def peft_keys() -> list[Row]:
    """Of PEFT's `adapter_config.json`: what is read, and what is refused by name."""
    starts = ", ".join(f"`{start}`" for start in STARTS)
    return [
        ("in `adapter_config.json`", "what becomes of it"),
        (f"`peft_type` {', '.join(f'`{kind}`' for kind in by_type())}", "read"),
        (
            ", ".join(f"`{kind}`" for kind in sorted(CONVERTED)),
            "read as LoRA where peft and the host are at hand, with what that loses",
        ),
        (f"`peft_type` {', '.join(f'`{kind}`' for kind in sorted(REFUSED))}", "refused by name"),
        (f"`init_lora_weights` {starts}", "read"),
        ("`init_lora_weights` of another value", "refused: it changes the host"),
        *(
            (", ".join(f"`{key}`" for key in sorted(kept.keys)), f"read with `{kind}`")
            for kind, kept in by_type().items()
        ),
        ("any other key, at an empty value or peft's own default", "of no effect"),
        ("any other key", "refused, with its value and the peft that wrote it"),
    ]


def formats_markdown() -> str:
    """All tables, in Markdown."""
    return "\n\n".join(_table(rows) for rows in (techniques(), adapterhub_families(), peft_keys()))


def _table(rows: list[Row]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
