"""keys - `relaywarden keys`: which DKIM keys sign, whether DNS has them, and how one follows another.

Rollover without an unsigned or unverifiable message:

    keys new acme.example rw2     a private key file, its DNS record, and the lines for the configuration (`next`)
    (publish the record, add `next`, reload)
    keys switch acme.example      only when every name server has the record: from now on rw2 signs, on every host
    keys retire acme.example      a week later: rw1 is needed by no mail on its way; how to take it out
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import dns.resolver
from rich.markup import escape
from rich.table import Table

from relaywarden import steering
from relaywarden.cli.accounts import iso_time, office
from relaywarden.cli.arguments import user
from relaywarden.cli.output import console, json_option, print_json
from relaywarden.config.settings import DkimSettings, Settings
from relaywarden.dkimdns import Answer, published
from relaywarden.dkimkeys import SigningKey, create_key, following, load_key
from relaywarden.errors import KeyFileError
from relaywarden.limits import parse_duration

_RETIRE_AFTER = "7d"  # longer than Postfix keeps mail in its queue (maximal_queue_lifetime, 5d)


@dataclass(frozen=True, slots=True)
class _Row:
    """One key of the configuration."""

    owner: str
    entry: DkimSettings
    role: str  # signs, next, replaced
    since_ms: int = 0

    @property
    def name(self) -> str:
        return f"{self.entry.domain}/{self.entry.selector}"


@click.group(invoke_without_command=True)
@click.option("--nameserver", metavar="ADDRESS[@PORT]", help="Ask this DNS server instead of the system's.")
@click.option("--no-dns", is_flag=True, help="Do not ask DNS.")
@json_option
@click.pass_context
def keys(ctx: click.Context, nameserver: str | None, no_dns: bool, as_json: bool) -> None:
    """List the DKIM keys: who signs with them, and whether DNS has them.  Exit code 1 if a key that signs is not right."""
    resolver = _resolver(nameserver)
    ctx.meta["resolver"] = resolver
    if ctx.invoked_subcommand is not None:
        return
    with office(ctx.obj) as opened:
        rows = list(_rows(opened.settings, steering.read(opened.ledger).selectors))
    documents = [_document(row, None if no_dns else resolver) for row in rows]
    if as_json:
        print_json(documents)
    else:
        _print(documents)
    if any(item["role"] == "signs" and (item["error"] or item["published"] is False) for item in documents):
        raise SystemExit(1)


@keys.command()
@click.argument("domain")
@click.argument("selector")
@click.option("--type", "kind", type=click.Choice(["rsa", "ed25519"]), default="rsa", show_default=True)
@click.option("--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="Default: beside the domain's first key.")
@click.pass_obj
def new(config: Path, domain: str, selector: str, kind: str, path: Path | None) -> None:
    """Make a private key for DOMAIN under SELECTOR, and say what to publish and to configure."""
    with office(config) as opened:
        mine = [row.entry for row in _rows(opened.settings, {}) if row.entry.domain == domain]
    folder = mine[0].key.parent if mine else Path("/etc/relaywarden/keys")
    path = path or folder / f"{domain}.{selector}.pem"
    create_key(path, kind, like=mine[0].key if mine else None)
    made = load_key(DkimSettings(domain=domain, selector=selector, key=path))
    click.echo(f"{path}: made\n\nPublish this TXT record:\n")
    click.echo(_zone_line(made))
    click.echo("\nand add to the key that it will follow, in the configuration:\n")
    click.echo(f"    next: {{selector: {selector}, key: {path}}}\n")
    click.echo(f"After a reload: relaywarden keys switch {domain}")


@keys.command()
@click.argument("domain")
@click.option("--selector", help="The selector that is replaced, where the domain has several keys with a next.")
@click.option("--unchecked", is_flag=True, help="Switch although DNS does not have the key: mail will not verify.")
@click.pass_context
def switch(ctx: click.Context, domain: str, selector: str | None, unchecked: bool) -> None:
    """Let the `next` key of DOMAIN sign from now on, if every name server has it."""
    with office(ctx.obj) as opened:
        entry = _one(opened.settings, domain, selector)
        heir = following(entry)
        if heir is None:
            raise click.ClickException(f"{domain}/{entry.selector} has no next; add it to the configuration (keys new)")
        answers = published(_loaded(heir), ctx.meta["resolver"])
        _print_answers(heir, answers)
        if not all(answer.ok for answer in answers) and not unchecked:
            raise click.ClickException(f"{heir.domain}/{heir.selector} is not in DNS everywhere: {entry.selector} signs on")
        word = {"to": heir.selector, "since_ms": int(time.time() * 1000), "by": user()}
        opened.ledger.apply([steering.say("selectors", {f"{domain}/{entry.selector}": word})])
    click.echo(f"{domain}: {heir.selector} signs from now on; leave {entry.selector} in DNS, `keys retire` says how long")


@keys.command()
@click.argument("domain")
@click.option("--selector", help="The selector that was replaced, where the domain has several.")
@click.option("--after", default=_RETIRE_AFTER, show_default=True, help="Longest that mail signed before may be on its way.")
@click.pass_obj
def retire(config: Path, domain: str, selector: str | None, after: str) -> None:
    """Say how to take out the key that was replaced, once no mail on its way needs it."""
    with office(config) as opened:
        replaced = _replaced(steering.read(opened.ledger).selectors, domain, selector)
        old = next(iter(replaced), "")
        word = replaced.get(old, {})
        if not old or len(replaced) > 1:
            raise click.ClickException(f"{domain}: {len(replaced)} keys were replaced; expected one (see --selector)")
        due = int(word.get("since_ms", 0)) + parse_duration(after)
        if time.time() * 1000 < due:
            raise click.ClickException(f"{old} was replaced at {iso_time(word['since_ms'])}; wait until {iso_time(due)}")
        if any(row.name == old for row in _rows(opened.settings, {})):
            click.echo(
                f"1. In the configuration put {word['to']} in the place of {old.partition('/')[2]}, without next; reload."
            )
            click.echo(f"2. Run `relaywarden keys retire {domain}` again, then delete the old key file.")
            return
        opened.ledger.apply([steering.say("selectors", {old: None})])
    name = f"{old.partition('/')[2]}._domainkey.{domain}."
    click.echo(f'{old}: retired. Revoke it in DNS (RFC 6376 section 3.6.1): {name} IN TXT "v=DKIM1; p="')


def _rows(settings: Settings, selectors: Any) -> Iterator[_Row]:
    owners = [(name, tenant.dkim) for name, tenant in settings.tenants.items()] + [("operator", settings.operator.dkim)]
    for owner, entries in owners:
        for entry in entries:
            heir, word = following(entry), selectors.get(f"{entry.domain}/{entry.selector}") or {}
            since = int(word.get("since_ms", 0))
            switched = heir is not None and word.get("to") == heir.selector
            yield _Row(owner, entry, "replaced" if switched else "signs", since if switched else 0)
            if heir is not None:
                yield _Row(owner, heir, "signs" if switched else "next", since if switched else 0)


def _document(row: _Row, resolver: dns.resolver.Resolver | None) -> dict[str, Any]:
    item: dict[str, Any] = {
        "owner": row.owner, "domain": row.entry.domain, "selector": row.entry.selector, "role": row.role, "kind": "", "bits": 0,
        "file": str(row.entry.key), "since": iso_time(row.since_ms), "published": None, "dns": [], "record": "", "error": "",
    }  # fmt: skip
    try:
        key = load_key(row.entry)
    except KeyFileError as error:
        return item | {"error": str(error)}
    item |= {"kind": key.algorithm.decode().partition("-")[0], "bits": key.bits, "record": key.dns_record()}
    if resolver is not None:
        answers = published(key, resolver)
        item["published"] = all(answer.ok for answer in answers)
        item["dns"] = [{"server": answer.server, "ok": answer.ok, "text": answer.text} for answer in answers]
    return item


def _print(documents: list[dict[str, Any]]) -> None:
    table = Table("owner", "domain", "selector", "role", "kind", "DNS", box=None, header_style="bold", pad_edge=False)
    for item in documents:
        bad = [f"{answer['server']}: {answer['text']}" for answer in item["dns"] if not answer["ok"]]
        good = item["dns"][0]["text"] if item["dns"] else "not asked"
        role = f"{item['role']} since {item['since']}" if item["since"] else item["role"]
        kind = f"{item['kind']} {item['bits'] or ''}".strip()
        table.add_row(
            *map(escape, (item["owner"], item["domain"], item["selector"], role, kind, item["error"] or "; ".join(bad) or good))
        )
    console().print(table)


def _print_answers(entry: DkimSettings, answers: list[Answer]) -> None:
    for answer in answers:
        click.echo(f"{entry.domain}/{entry.selector} at {answer.server}: {answer.text}", err=not answer.ok)


def _one(settings: Settings, domain: str, selector: str | None) -> DkimSettings:
    """The configured key that is meant."""
    found = {
        row.entry.selector: row.entry
        for row in _rows(settings, {})
        if row.role == "signs"
        and row.entry.domain == domain
        and (row.entry.next if selector is None else row.entry.selector == selector)
    }
    if len(found) != 1:
        known = ", ".join(row.name for row in _rows(settings, {})) or "none"
        what = "several keys with a next, name one by --selector" if found else f"no such key with a next; keys are: {known}"
        raise click.ClickException(f"{domain}: {what}")
    return next(iter(found.values()))


def _replaced(selectors: Any, domain: str, selector: str | None) -> dict[str, Any]:
    wanted = f"{domain}/{selector}" if selector else ""
    return {name: word for name, word in selectors.items() if (name == wanted if wanted else name.startswith(f"{domain}/"))}


def _loaded(entry: DkimSettings) -> SigningKey:
    try:
        return load_key(entry)
    except KeyFileError as error:
        raise click.ClickException(str(error)) from error


def _zone_line(key: SigningKey) -> str:
    """For a zone file: strings of at most 255 octets."""
    record = key.dns_record()
    parts = " ".join(f'"{record[at : at + 255]}"' for at in range(0, len(record), 255))
    return f"{key.selector}._domainkey.{key.domain}. IN TXT ( {parts} )"


def _resolver(nameserver: str | None) -> dns.resolver.Resolver:
    if nameserver is None:
        return dns.resolver.Resolver()
    resolver = dns.resolver.Resolver(configure=False)
    address, _, port = nameserver.partition("@")
    try:
        resolver.nameservers = [address]
        resolver.port = int(port or 53)
    except ValueError as error:
        raise click.BadParameter(f"expected an address such as 192.0.2.53 or 192.0.2.53@5353, got {nameserver}") from error
    return resolver
