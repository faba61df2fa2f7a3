"""`peftport formats`: which files are read, written and refused."""

from __future__ import annotations

from peftport.cli.output import AsJson, show


def formats(as_json: AsJson = False) -> None:
    """Print what is read, written and refused, by technique, family and key, as in
    docs/formats.md."""
    from peftport.modules.formats import table

    record = {
        name: [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
        for name, rows in (
            ("techniques", table.techniques()),
            ("families", table.places()),
            ("keys", table.keys()),
        )
    }
    show(record, table.markdown(), as_json)
