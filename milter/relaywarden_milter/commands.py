"""commands - `relaywarden milter`.

The group hands over the path of the configuration (`ctx.obj`); errors of ours propagate to it (exit status 2).  The
worker's modules are imported inside the command: prometheus_client must see its folder first.
"""

from __future__ import annotations

from pathlib import Path

import click

from relaywarden.config.load import load
from relaywarden.errors import RelaywardenError


@click.command()
@click.pass_obj
def milter(path: Path) -> None:
    """Scan, sign and tag mail, for Postfix' smtpd_milters.

    Runs in the foreground until SIGTERM; SIGHUP reads the configuration and the keys again.
    """
    from relaywarden import logs, metrics  # noqa: PLC0415

    settings = load(path)
    logs.configure(settings.log, "milter")
    if settings.milter.listen is None:
        raise RelaywardenError(f"{path}: milter.listen is not set; expected unix:/path or inet:host:port")
    metrics.prepare()
    from relaywarden_milter import worker  # noqa: PLC0415  # after `prepare`

    stop = metrics.serve_alone(settings.metrics.listen)
    try:
        worker.serve(path, settings)
    finally:
        stop()
