"""release - let a tenant's mail out of Postfix' hold queue.

Postfix knows what is held (`postqueue -j`), the stories in the ledger know whose it is, and `postsuper -H` lets it go: by the
transport that the milter chose when it took it.  The tenant's standing stays as it is: `resume` ends a hold.

How it fails: without the rights of root postsuper refuses, which is exit code 2 with its words.  A message whose story the
ledger has forgotten (`monitor.remember`), or never had because no monitor runs, is nobody's: it is counted and left alone.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from relaywarden import story
from relaywarden.cli.accounts import Office, office
from relaywarden.cli.output import json_option, plain, print_json
from relaywarden.errors import RelaywardenError
from relaywarden.ledger.records import Noted, Notes
from relaywarden.story import Story

_SECONDS = 120
_TOGETHER = 500
_BY_CONTENT = "quarantine"  # rspamd's action


@click.command()
@click.argument("tenant")
@click.option("--all", "everything", is_flag=True, help="Also what rspamd had put there for its content.")
@click.option("--dry-run", is_flag=True, help="Say what would be released.")
@click.option(
    "--postfix", type=click.Path(file_okay=False, path_type=Path), help="Postfix' configuration directory, if not the default."
)
@json_option
@click.pass_obj
def release(config: Path, tenant: str, everything: bool, dry_run: bool, postfix: Path | None, as_json: bool) -> None:
    """Let TENANT's mail that is held in Postfix' hold queue go on; its standing stays as it is (see `resume`)."""
    options = ["-c", str(postfix)] if postfix is not None else []
    with office(config) as opened:
        found = opened.tenant(tenant)
        held = list(_held(options))
        stories = dict(_stories(opened, held))
        mine = [
            queue_id
            for queue_id, told in stories.items()
            if told.tenant == found.name and (everything or told.milter.get("action") != _BY_CONTENT)
        ]
        unknown = len(held) - len(stories)
    if mine and not dry_run:
        _run(["postsuper", *options, "-H", "-"], "".join(f"{queue_id}\n" for queue_id in mine))
    if as_json:
        print_json({"tenant": found.name, "released": [] if dry_run else mine, "found": mine, "of_nobody": unknown})
        return
    said = "would be released" if dry_run else "released"
    click.echo(
        plain(f"{found.name}: {len(mine)} messages {said}" + (f"; {unknown} held messages are nobody's" if unknown else ""))
    )
    if not mine:
        raise SystemExit(1)


def _held(options: Sequence[str]) -> Iterator[str]:
    """Queue ids in the hold queue."""
    for line in _run(["postqueue", *options, "-j"]).splitlines():
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise RelaywardenError(f"postqueue -j: expected JSON, got {line[:80]!r}") from error
        if entry.get("queue_name") == "hold" and str(entry.get("queue_id", "")).isalnum():
            yield str(entry["queue_id"])


def _stories(opened: Office, queue_ids: Sequence[str]) -> Iterator[tuple[str, Story]]:
    for start in range(0, len(queue_ids), _TOGETHER):
        some = queue_ids[start : start + _TOGETHER]
        results = opened.ledger.apply([Notes(story.book(queue_id), story.TOPIC) for queue_id in some])
        for queue_id, result in zip(some, results, strict=True):
            told = story.read(queue_id, result.fields) if isinstance(result, Noted) else None
            if told is not None:
                yield queue_id, told


def _run(command: Sequence[str], text: str = "") -> str:
    """A program of Postfix; raises RelaywardenError with its words."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RelaywardenError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        raise RelaywardenError(f"{command[0]}: {done.stderr.strip() or f'exit status {done.returncode}'}; run it as root")
    return done.stdout
