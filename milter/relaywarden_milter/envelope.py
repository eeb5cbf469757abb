"""envelope - who sends what to whom: the SMTP side of one message, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Envelope:
    """One mail transaction.  Strings hold octets that are not UTF-8 as lone surrogates (PEP 383)."""

    address: str = ""  # of the client; empty where there is none (a Unix socket, the sendmail command)
    port: int = 0
    hostname: str = ""
    helo: str = ""
    mta_name: str = ""
    login: str | None = None  # the SASL login; None: the client did not authenticate
    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    queue_id: str = ""
    eight_bit: bool = False  # the client announced an 8-bit body (BODY=8BITMIME, RFC 6152)

    @property
    def connection(self) -> str:
        """The SMTP connection as policyd names it too: client_address:client_port."""
        return f"{self.address}:{self.port}" if self.address else ""
