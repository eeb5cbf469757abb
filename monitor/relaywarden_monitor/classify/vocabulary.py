"""vocabulary - every category that a rule may name, with what it means and what follows from it.  Plain values.

A category is finer than a scope: it tells a person what to do.  It brings scope, blame and severity along, so that a rule
says them only where it differs.

blame      pool where the address, its name, or the relay's behaviour is at fault; customer where the message, its domain, its
           authentication or the list of recipients is; recipient where the receiving mailbox or server is
severity   low: nothing to do; medium: slows mail down or loses a recipient; high: costs reputation, or is lost reputation
passing    where a reply shows no code, it counts as temporary
"""

from __future__ import annotations

from dataclasses import dataclass

from relaywarden_monitor.verdict import Blame, Scope, Severity


@dataclass(frozen=True, slots=True)
class Category:
    """What a rule's category stands for."""

    scope: Scope
    blame: Blame
    severity: Severity
    meaning: str  # for people
    passing: bool = False


_LOW, _MEDIUM, _HIGH = Severity.LOW, Severity.MEDIUM, Severity.HIGH
_POOL, _CUSTOMER, _RECIPIENT = Blame.POOL, Blame.CUSTOMER, Blame.RECIPIENT

UNCLEAR = "unclear"
CATEGORIES: dict[str, Category] = {
    # the source address
    "ip-reputation": Category(Scope.IP, _POOL, _HIGH, "the receiver distrusts the address for what it sent before"),
    "ip-blocked": Category(Scope.IP, _POOL, _HIGH, "the receiver itself blocks the address"),
    "ip-blocklisted": Category(Scope.IP, _POOL, _HIGH, "the address is on a public blocklist"),
    "ip-rate": Category(Scope.IP, _POOL, _HIGH, "the address is slowed down because of what it sends", passing=True),
    "ip-dynamic": Category(Scope.IP, _POOL, _HIGH, "the address looks like a home connection"),
    "known-spammer": Category(Scope.IP, _POOL, _HIGH, "the receiver's filter calls the sender a known spammer"),
    # the sender's domain, the message, its authentication
    "domain-reputation": Category(Scope.DOMAIN, _CUSTOMER, _HIGH, "the receiver distrusts the sender's domain"),
    "domain-blocklisted": Category(Scope.DOMAIN, _CUSTOMER, _HIGH, "the sender's domain is on a blocklist"),
    "helo-blocklisted": Category(Scope.DOMAIN, _POOL, _HIGH, "the domain of the relay's HELO name is on a blocklist"),
    "spam-content": Category(Scope.CONTENT, _CUSTOMER, _HIGH, "the message looks like spam"),
    "url-reputation": Category(Scope.CONTENT, _CUSTOMER, _HIGH, "a link in the message is distrusted, or on a blocklist"),
    "phishing": Category(Scope.CONTENT, _CUSTOMER, _HIGH, "the message looks like fraud"),
    "virus": Category(Scope.CONTENT, _CUSTOMER, _HIGH, "the message carries something harmful"),
    "attachment": Category(Scope.CONTENT, _CUSTOMER, _MEDIUM, "a kind of attachment that is not taken"),
    "content-refused": Category(Scope.CONTENT, _CUSTOMER, _MEDIUM, "the content is not taken, for another reason"),
    "malformed": Category(Scope.CONTENT, _CUSTOMER, _MEDIUM, "the message breaks RFC 5322 or MIME"),
    "too-large": Category(Scope.CONTENT, _CUSTOMER, _LOW, "the message is larger than the receiver takes"),
    "unauthenticated": Category(Scope.AUTH, _CUSTOMER, _HIGH, "neither SPF nor DKIM passes, or the receiver wants both"),
    "spf": Category(Scope.AUTH, _CUSTOMER, _HIGH, "SPF of the sender's domain does not allow the address"),
    "dkim": Category(Scope.AUTH, _CUSTOMER, _HIGH, "the DKIM signature is missing or wrong"),
    "dmarc": Category(Scope.AUTH, _CUSTOMER, _HIGH, "the sender's domain asks to refuse what is not aligned, or has no DMARC"),
    # recipients
    "no-mailbox": Category(Scope.MAILBOX, _RECIPIENT, _MEDIUM, "there is no such mailbox"),
    "mailbox-disabled": Category(Scope.MAILBOX, _RECIPIENT, _MEDIUM, "the mailbox is closed, or unused for long"),
    "no-mail-domain": Category(Scope.MAILBOX, _RECIPIENT, _MEDIUM, "the recipient's domain takes no mail"),
    "dirty-list": Category(Scope.MAILBOX, _CUSTOMER, _HIGH, "too many recipients that do not exist"),
    "mailbox-full": Category(Scope.FULL, _RECIPIENT, _LOW, "the mailbox is full"),
    # rate
    "rate": Category(Scope.RATE, _POOL, _MEDIUM, "too much in too short a time", passing=True),
    "connections": Category(Scope.RATE, _POOL, _MEDIUM, "too many connections, or too much in one of them", passing=True),
    "too-many-recipients": Category(Scope.RATE, _POOL, _LOW, "more recipients in one message than the receiver takes"),
    "recipient-flooded": Category(Scope.RATE, _CUSTOMER, _MEDIUM, "one mailbox gets too much mail", passing=True),
    # the receiver's rules
    "recipient-policy": Category(Scope.POLICY, _RECIPIENT, _LOW, "a rule of the recipient or the recipient's organisation"),
    "sender-refused": Category(Scope.POLICY, _CUSTOMER, _MEDIUM, "the receiver does not take this sender"),
    "relay-denied": Category(Scope.POLICY, _RECIPIENT, _LOW, "the server does not serve this domain"),
    "own": Category(Scope.POLICY, _CUSTOMER, _LOW, "our own limits or filters"),
    "greylisted": Category(Scope.GREYLIST, _RECIPIENT, _LOW, "put off until the next attempt", passing=True),
    # the machinery in between
    "reverse-dns": Category(Scope.INFRA, _POOL, _MEDIUM, "the address has no PTR record, or one that does not match"),
    "helo": Category(Scope.INFRA, _POOL, _MEDIUM, "the relay's HELO name is not acceptable"),
    "tls-required": Category(Scope.INFRA, _POOL, _MEDIUM, "the receiver wants TLS"),
    "protocol": Category(Scope.INFRA, _POOL, _MEDIUM, "the relay broke SMTP in the receiver's eyes"),
    "sender-domain": Category(Scope.INFRA, _CUSTOMER, _MEDIUM, "the sender's domain or address does not exist, or DNS says so"),
    "tls-failed": Category(Scope.INFRA, _RECIPIENT, _LOW, "TLS with the receiver could not be set up", passing=True),
    "connection": Category(Scope.INFRA, _RECIPIENT, _LOW, "the receiver cannot be reached, or hangs up", passing=True),
    "recipient-dns": Category(Scope.INFRA, _RECIPIENT, _LOW, "DNS does not know the recipient's domain, or does not answer"),
    "server-trouble": Category(Scope.INFRA, _RECIPIENT, _LOW, "the receiving server is in trouble", passing=True),
    "mail-loop": Category(Scope.INFRA, _RECIPIENT, _LOW, "the message goes round in circles at the receiver"),
    "expired": Category(Scope.INFRA, _RECIPIENT, _LOW, "given up after too long in a queue"),
    # nothing but the code
    UNCLEAR: Category(Scope.POLICY, _RECIPIENT, _LOW, "neither text nor code says why"),
}
