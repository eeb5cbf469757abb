"""main - the command group: common options, the commands of this library, and those that the programs bring along.

The programs register their commands under the entry point group `relaywarden.commands`; they are imported when called, so
the library depends on none of them and `relaywarden show` loads neither libmilter nor uvloop.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path

import click

import relaywarden
from relaywarden.cli import allow, check, explain, keys, pools, release, run, steer, suppress, view
from relaywarden.config.load import DEFAULT_PATH
from relaywarden.errors import ConfigError, RelaywardenError


class _Group(click.Group):
    """The commands defined here plus the programs' own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted({*super().list_commands(ctx), *(entry.name for entry in entry_points(group="relaywarden.commands"))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; a program is imported only now."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        found = entry_points(group="relaywarden.commands", name=cmd_name)
        command = next(iter(found)).load() if found else None
        return command if isinstance(command, click.Command) else None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_PATH,
    envvar="RELAYWARDEN_CONFIG",
    show_default=True,
    help="The configuration file; tenants.d/*.yaml beside it is merged in.",
)
@click.version_option(relaywarden.__version__, prog_name="relaywarden")
@click.pass_context
def group(ctx: click.Context, config: Path) -> None:
    """Per-tenant limits, scanning, DKIM and IP pools for a Postfix relay of transactional mail."""
    ctx.obj = config


for _command in (
    run.run,
    check.check,
    view.tenants,
    view.show,
    steer.suspend,
    steer.hold,
    steer.resume,
    release.release,
    steer.reset,
    suppress.suppress,
    allow.grant,
    allow.set_,
    explain.explain,
    pools.pools,
    keys.keys,
):
    group.add_command(_command)


def main() -> None:
    """Run the command line; an error of ours is one clear text on standard error and exit code 2."""
    try:
        group(standalone_mode=True)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"relaywarden: {problem}", err=True)
        sys.exit(2)
    except RelaywardenError as error:
        click.echo(f"relaywarden: {error}", err=True)
        sys.exit(2)
