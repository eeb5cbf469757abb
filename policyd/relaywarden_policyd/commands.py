"""commands - `relaywarden policyd` and `relaywarden ask`.

The group hands over the path of the configuration (`ctx.obj`); errors of ours propagate to it.  The server's modules are
imported inside the command: prometheus_client must see its folder first, and `ask` should not wait for uvloop.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import click

from relaywarden.config.load import load
from relaywarden.errors import ProtocolError


@click.command()
@click.pass_obj
def policyd(path: Path) -> None:
    """Answer Postfix' policy requests (check_policy_service)."""
    from relaywarden import logs, metrics  # noqa: PLC0415

    settings = load(path)
    logs.configure(settings.log, "policyd")
    metrics.prepare()
    from relaywarden_policyd.server import serve  # noqa: PLC0415 - after `prepare`

    stop = metrics.serve_alone(settings.metrics.listen)
    try:
        serve(path, settings)
    finally:
        stop()


@click.command()
@click.argument("request_file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="one JSON object a request")
@click.pass_context
def ask(ctx: click.Context, request_file: BinaryIO, as_json: bool) -> None:
    """Say what Postfix would be told, and why: a dry run of the policy requests in REQUEST_FILE ("-": standard input).

    Nothing is spent.  Exit status: 0 all admitted, 1 at least one would be refused or held, 2 the file holds no valid request.
    """
    from relaywarden.ledger.connect import open_ledger  # noqa: PLC0415
    from relaywarden_policyd.ask import ask as ask_ledger  # noqa: PLC0415
    from relaywarden_policyd.ask import read_requests  # noqa: PLC0415
    from relaywarden_policyd.decide import Judge  # noqa: PLC0415

    settings = load(ctx.obj)
    try:
        requests = read_requests(request_file.read())
    except ProtocolError as error:
        click.echo(f"{request_file.name}: {error}", err=True)
        ctx.exit(2)
    ledger = open_ledger(settings)
    refused = False
    try:
        for answer in ask_ledger(Judge(settings), ledger, requests):
            refused = refused or not answer.verdict.admits
            click.echo(json.dumps(answer.document()) if as_json else "\n".join(answer.lines()))
    finally:
        ledger.close()
    ctx.exit(1 if refused else 0)
