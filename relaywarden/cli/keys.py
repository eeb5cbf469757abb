"""keys - `relaywarden keys`: which DKIM keys sign, whether DNS has them, and how one follows another.

Rollover without an unsigned or unverifiable message:

    keys new acme.example rw2     a private key file, its DNS record, and the lines for the configuration (`next`)
    (publish the record, add `next`, reload)
    keys switch acme.example      only when every name server has the record: from now on rw2 signs, on every host
    keys retire acme.example      a week later: rw1 is needed by no mail on its way; how to take it out
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import dns.resolver
import yaml
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from relaywarden import steering
from relaywarden.cli.accounts import office
from relaywarden.cli.arguments import user
from relaywarden.cli.output import console, iso_time, json_option, print_json
from relaywarden.config.settings import DkimSettings, Settings
from relaywarden.dkimdns import Answer, published
from relaywarden.dkimkeys import SigningKey, create_key, following, load_key
from relaywarden.errors import KeyFileError, SpecError
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


_NAMESERVER = click.option("--nameserver", metavar="ADDRESS[@PORT]", help="Ask this DNS server instead of the system's.")
_NO_DNS = click.option("--no-dns", is_flag=True, help="Do not ask DNS.")


@click.group(invoke_without_command=True)
@_NAMESERVER
@_NO_DNS
@json_option
@click.pass_context
def keys(ctx: click.Context, nameserver: str | None, no_dns: bool, as_json: bool) -> None:
    """List the DKIM keys: who signs with them, and whether DNS has them.  Exit code 1 if a key that signs is not right."""
    resolver = None if no_dns else _resolver(nameserver)
    ctx.meta["nameserver"], ctx.meta["no_dns"] = nameserver, no_dns
    if ctx.invoked_subcommand is not None:
        return
    with office(ctx.obj) as opened:
        rows = list(_rows(opened.settings, steering.read(opened.ledger).selectors))
    documents = [_document(row, resolver) for row in rows]
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
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Default: as the configuration says, else beside the domain's first key, else in keys/ beside the configuration.",
)
@click.pass_obj
def new(config: Path, domain: str, selector: str, kind: str, path: Path | None) -> None:
    """Make a private key for DOMAIN under SELECTOR, and say what to publish and to configure."""
    entry = _entry(domain, selector)
    with office(config) as opened:
        settings = opened.settings
    rows = list(_rows(settings, {}))
    mine = [row for row in rows if row.entry.domain == entry.domain]
    named = next((row for row in mine if row.entry.selector == entry.selector), None)
    entry = entry.model_copy(update={"key": _place(config, entry, named, mine, path)})
    like = _like(config, [*mine, *rows])
    kinds = {kind, *(_kind(row.entry) for row in mine)}
    beside = kind == "ed25519" and "rsa" in kinds and named is None and not any(_kind(row.entry) == kind for row in mine)
    create_key(entry.key, kind, like)
    click.echo(f"{entry.key}: {'the key that the configuration names is made' if named else 'made'}")
    if like is None and os.geteuid() == 0:
        click.echo("It is root's alone: chown it to the user that relaywarden runs as.")
    click.echo(f"\nPublish this TXT record:\n\n{_zone_line(load_key(entry))}\n")
    click.echo(_what_next(entry, named, _owner(settings, entry.domain), is_first=not mine))
    if "rsa" not in kinds:
        click.echo(f"\nMany receivers verify RSA only: {entry.domain} should have an RSA key too, as an entry beside this one.")
    elif beside:
        click.echo("\nMany receivers verify RSA only: to sign by both, make this key an entry of its own and no next.")


def _like(config: Path, rows: list[_Row]) -> Path | None:
    """The file whose owner, group and mode a new key takes over; None: nobody else's but the maker's.

    A key that is there, else a configuration that was hidden from others: the same programs read it.
    """
    found = next((row.entry.key for row in rows if os.access(row.entry.key, os.F_OK)), None)
    return found or (config if not config.stat().st_mode & stat.S_IROTH else None)


def _entry(domain: str, selector: str) -> DkimSettings:
    """The new key as the configuration would have it, still without its file; raises SpecError."""
    try:
        made = DkimSettings(domain=domain, selector=selector, key=Path())
    except ValidationError as error:
        wrong = str(error.errors()[0]["loc"][0])
    else:
        wrong = next((name for name, text in (("domain", domain), ("selector", selector)) if "*" in text or "/" in text), "")
        if not wrong:
            return made
    given, example = (selector, "rw1") if wrong == "selector" else (domain, "acme.example")
    raise SpecError(f"{wrong}: expected a name such as {example}, got {given[:80]!r}")


def _place(config: Path, entry: DkimSettings, named: _Row | None, mine: list[_Row], path: Path | None) -> Path:
    """Where the new file goes, as an absolute path; the folder is there.  Raises KeyFileError."""
    if named is not None:
        place = named.entry.key.absolute()
        if path is not None and path.absolute() != place:
            raise KeyFileError(f"{path}: the configuration names {place} for {named.name}; leave --file out")
        return place
    if path is not None:
        return path.absolute()
    folder = (mine[0].entry.key.parent if mine else config.parent / "keys").absolute()
    if not mine:
        _make_folder(folder)
    return folder / f"{entry.domain}.{entry.selector}.pem"


def _make_folder(folder: Path) -> None:
    """Mode 0750; of the owner and group of the folder above, where root makes it."""
    try:
        if folder.is_dir():
            return
        folder.mkdir()
        folder.chmod(0o750)  # whatever the umask
        if os.geteuid() == 0:
            above = folder.parent.stat()
            os.chown(folder, above.st_uid, above.st_gid)
    except OSError as error:
        raise KeyFileError(f"{folder}: cannot make the folder of the keys: {error.strerror or error}") from error


def _what_next(entry: DkimSettings, named: _Row | None, owner: str, *, is_first: bool) -> str:
    """What the operator does once the record is published."""
    if named is not None:
        switch = f", and after that: relaywarden keys switch {entry.domain}" if named.role == "next" else ""
        return f"then reload{switch}"
    if is_first:
        item = _flow({"domain": entry.domain, "selector": entry.selector, "key": str(entry.key)})
        return f"and then add to {owner}, in the configuration, and reload:\n\n    dkim:\n      - {item}"
    item = _flow({"selector": entry.selector, "key": str(entry.key)})
    then = f"After a reload: relaywarden keys switch {entry.domain}"
    return f"and add to the key that it will follow, in the configuration:\n\n    next: {item}\n\n{then}"


def _owner(settings: Settings, domain: str) -> str:
    """Whose key it is likely to be."""
    owners = [name for name, tenant in settings.tenants.items() if domain in tenant.from_domains]
    return f"tenant {owners[0]}" if len(owners) == 1 else "the tenant that it belongs to (or to operator)"


def _flow(values: dict[str, str]) -> str:
    """One line of YAML, with quotes where a selector such as 2026 would be a number."""
    return str(yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)).strip()


@keys.command()
@click.argument("domain")
@click.option("--selector", help="The selector that is replaced, where the domain has several keys with a next.")
@click.option("--unchecked", is_flag=True, help="Switch although DNS does not have the key: mail will not verify.")
@_NAMESERVER
@_NO_DNS
@click.pass_context
def switch(
    ctx: click.Context, domain: str, selector: str | None, unchecked: bool, nameserver: str | None, no_dns: bool
) -> None:
    """Let the `next` key of DOMAIN sign from now on, if every name server has it."""
    no_dns = no_dns or ctx.meta["no_dns"]
    if no_dns and not unchecked:
        raise click.UsageError("with --no-dns nobody knows whether the key is published; expected --unchecked as well")
    resolver = None if no_dns else _resolver(nameserver or ctx.meta["nameserver"])
    with office(ctx.obj) as opened:
        entry = _one(opened.settings, domain, selector)
        heir = following(entry)
        if heir is None:
            raise click.ClickException(f"{domain}/{entry.selector} has no next; add it to the configuration (keys new)")
        old = steering.read(opened.ledger).selectors.get(f"{domain}/{entry.selector}", {})
        if old.get("to") == heir.selector:  # a second word would begin the wait of `retire` anew
            click.echo(f"{domain}: {heir.selector} signs already since {iso_time(old.get('since_ms', 0))}; nothing changed")
            return
        key = _loaded(heir)
        answers = published(key, resolver) if resolver is not None else []
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
        if not old:
            raise click.ClickException(f"no key of {domain} was replaced{_of(selector)}; `keys` lists them")
        if len(replaced) > 1:
            raise click.ClickException(f"several keys were replaced ({', '.join(replaced)}); name one by --selector")
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


def _of(selector: str | None) -> str:
    return f" under selector {selector}" if selector else ""


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


def _kind(entry: DkimSettings) -> str:
    """`rsa` or `ed25519`; empty for a key that cannot be read."""
    try:
        return load_key(entry).algorithm.decode().partition("-")[0]
    except KeyFileError:
        return ""  # no fault of the new key; `keys` and `check` tell


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
