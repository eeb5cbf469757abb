"""store_url - the notation of `store:`, parsed; no connection is made here.

sqlite:////var/lib/relaywarden/ledger.db
redis://[user:password@]host:port/db      rediss://... with TLS      redis+unix:///path?db=0
redis+sentinel://[user:password@]host:port,host:port/service[/db]
redis+cluster://[user:password@]host:port,host:port
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from relaywarden.errors import SpecError

_SCHEMES = ("sqlite", "redis", "rediss", "redis+unix", "redis+sentinel", "redis+cluster")


@dataclass(frozen=True, slots=True)
class Store:
    """A parsed `store:` URL; `str()` leaves the credentials out."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, url: str) -> Store:
        """Raises SpecError, which never repeats a password."""
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in _SCHEMES:
            raise SpecError(f"expected a store URL of {', '.join(f'{name}://' for name in _SCHEMES)}")
        if scheme == "sqlite":
            if not rest.startswith("/") or len(rest) < 2:
                raise SpecError("expected sqlite:////absolute/path/of/ledger.db")
            return cls(scheme, path=rest[1:] if rest.startswith("//") else rest)
        credentials, at, location = rest.rpartition("@")
        username, _, password = credentials.partition(":")
        return cls._location(scheme, location, unquote(username) or None if at else None, unquote(password) or None)

    @classmethod
    def _location(cls, scheme: str, location: str, username: str | None, password: str | None) -> Store:
        hosts_text, _, tail = location.partition("?")[0].partition("/")
        parts = [part for part in tail.split("/") if part]
        service = parts.pop(0) if scheme == "redis+sentinel" and parts else ""
        if scheme == "redis+sentinel" and not service:
            raise SpecError("expected redis+sentinel://host:port,host:port/SERVICE")
        if scheme == "redis+unix":
            return cls(scheme, path="/" + tail, db=_db(urlsplit(f"//{location}").query), username=username, password=password)
        default_port = 26379 if scheme == "redis+sentinel" else 6379
        try:
            hosts = tuple(_host(item, default_port) for item in hosts_text.split(","))
            db = int(parts[0]) if parts else 0
        except ValueError as error:
            raise SpecError(f"expected {scheme}://host:port[/db], with commas between several hosts") from error
        return cls(scheme, hosts, service=service, db=db, username=username, password=password)

    def __str__(self) -> str:
        where = self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{where}" + (f"/{self.service}" if self.service else "")


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or default_port


def _db(query: str) -> int:
    found = [item.partition("=")[2] for item in query.split("&") if item.startswith("db=")]
    return int(found[0]) if found and found[0].isdigit() else 0
