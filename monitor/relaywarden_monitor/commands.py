"""commands - `relaywarden monitor`.  Its other commands stand beside what they use: classify_command, pmtapipe, ...

The group hands over the path of the configuration (`ctx.obj`); errors of ours propagate to it (exit status 2).  The server's
modules are imported inside the command: prometheus_client must see its folder first.
"""

from __future__ import annotations

from pathlib import Path

import click

from relaywarden.config.load import load
from relaywarden.errors import RelaywardenError


@click.command()
@click.pass_obj
def monitor(path: Path) -> None:
    """Read logs, accounting, bounces and complaints, and turn them into each tenant's and each address' standing.

    Runs in the foreground until SIGTERM; SIGHUP reads the configuration again.
    """
    from relaywarden import logs, metrics  # noqa: PLC0415

    settings = load(path)
    logs.configure(settings.log, "monitor")
    if not settings.monitor.sources:
        raise RelaywardenError(
            f"{path}: monitor has no source; set monitor.postfix_log, journal, accounting, spool, listen or maildir"
        )
    metrics.prepare()
    from relaywarden_monitor import server  # noqa: PLC0415  # after `prepare`

    stop = metrics.serve_alone(settings.metrics.listen)
    try:
        server.serve(path, settings)
    finally:
        stop()
