"""`peftport port`: rewrite a module for another host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftport.cli.arguments import ModuleFolder, ToHost
from peftport.cli.modules import Format, FromHost, NoPickle
from peftport.cli.output import AsJson, show


def port(
    module: ModuleFolder,
    to: ToHost,
    out: Annotated[Path, typer.Option(help="A new folder for the ported module.")],
    method: Annotated[str, typer.Option(help="A port method; see `peftport methods`.")] = "copy",
    seed: Annotated[int, typer.Option(help="Of what the method draws.")] = 0,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Go on though tensors are left out.")
    ] = False,
    format: Format = None,
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Port a module to another host and write the account of what became of each tensor."""
    from peftport.files import refuse_existing
    from peftport.hosts import find_host
    from peftport.hosts.fingerprint import fingerprint
    from peftport.hosts.source import geometry_in
    from peftport.modules import HostName, formats, load_module
    from peftport.porting import port as rewrite
    from peftport.porting import port_method

    refuse_existing(out)
    port_method(method)
    donor = load_module(module, from_host=from_host, pickles=not no_pickle)
    written = formats.FORMATS.require(format or formats.format_of(module))
    folder = find_host(to).files()
    name = HostName(name=to, fingerprint=fingerprint(folder))
    ported = rewrite(
        donor, geometry_in(folder, to), name, method, seed=seed, allow_partial=allow_partial
    )
    account = ported.account.record()
    formats.save(ported.module, out, written, account)
    counted = ", ".join(f"{n} {action}" for action, n in account["counts"].items() if n)
    show(
        {
            "module": str(out),
            "format": written,
            "technique": donor.technique,
            "from": donor.record.host.model_dump(),
            "to": name.model_dump(),
            "seed": seed,
            **account,
        },
        f"{donor.technique} from {donor.record.host.name} to {to} by {ported.account.method}: "
        f"{out}\ntensors: {counted}; each one in {out / 'account.json'}",
        as_json,
    )
