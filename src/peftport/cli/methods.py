"""`peftport methods`: the port methods and controls."""

from __future__ import annotations

from peftport.cli.output import AsJson, show


def methods(as_json: AsJson = False) -> None:
    """List the port methods and controls, and what each is for."""
    from peftport.porting import METHODS, port_method

    found = [(name, port_method(name)) for name in METHODS]
    show(
        {
            "methods": [
                {"name": name, "control": made.control, "about": made.about} for name, made in found
            ]
        },
        "\n".join(f"{name:<10} {made.about}" for name, made in found),
        as_json,
    )
