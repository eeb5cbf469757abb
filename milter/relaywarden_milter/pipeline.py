"""pipeline - one whole message in, one outcome out.  The session only carries the outcome to Postfix.

    delete control headers -> tenant -> size -> standing -> who is in From -> lint and repair -> scan -> stream, pool, member
    -> headers of our own -> sign LAST -> ledger operations

Everything that changes a header or the body comes before the signatures, or they would not verify.  What may be asked on the
way is rspamd, within its deadline and behind its breaker; keys, settings and allowances are in memory.

How it fails: towards the client by an outcome with a reply code, never by an exception that it should know of.  A message
whose key cannot be used is put off, a message that rspamd could not judge goes by `scan.on_error`.  A tenant in `observe`
mode is judged and logged, but its From, its form and its content never lead to a refusal; that its key is missing still puts
mail off, and a suspension holds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from relaywarden import feedback
from relaywarden.config.settings import Mode, OnBulk, OnForeignFrom, OnScanError
from relaywarden.config.settings import Outcome as Ended
from relaywarden.errors import KeyFileError, MessageError, ScanError
from relaywarden.ledger.operations import Account, Operation, Refund, Score, Settle
from relaywarden.logs import event
from relaywarden.tenants import Tenant
from relaywarden_milter import identity, lint, meters, repair, stream
from relaywarden_milter.bodyhash import BodyHash
from relaywarden_milter.edits import Edits
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.message import Message
from relaywarden_milter.outcome import Outcome, Refusal
from relaywarden_milter.route import BULK, QUARANTINE, FullError
from relaywarden_milter.rules import Rules
from relaywarden_milter.scan import Fate, Meaning, Scan, meaning
from relaywarden_milter.sign import Signer
from relaywarden_milter.spool import Spool
from relaywarden_milter.stream import Kind

log = logging.getLogger(__name__)
Tick = Callable[[], None]
_SYMBOLS_LOGGED, _SYMBOLS_KEPT = 5, 20


def handle(rules: Rules, envelope: Envelope, message: Message, tick: Tick | None = None) -> Outcome:
    """Decide about one message; `tick` is called now and then while a scan is slow."""
    edits = Edits(message.headers)
    if forged := edits.delete(rules.is_control):
        meters.FORGED.inc(forged)
    tenant = rules.directory.by_login(envelope.login) if envelope.login is not None else None
    work = _Work(rules, envelope, message, edits, tenant, tick, {"forged": forged or None})
    if message.too_large:
        return work.turn_away(Refusal.reject(f"Message too large: {message.too_large}", "5.3.4", "552"))
    if envelope.login is None:
        return Outcome("unauthenticated", steps=edits.steps, record=work.record)
    if tenant is not None:
        return work.run(tenant)
    if rules.settings.unknown_login == "ignore":
        return Outcome("ignored", steps=edits.steps, record=work.record)
    return work.turn_away(Refusal.reject("This login may not send mail here, ask your provider"))


def refund(rules: Rules, envelope: Envelope, ended: Ended) -> Refund | None:
    """What the ledger must be told of a message that was aborted, or that we failed to handle; None: it stays charged."""
    if ended not in rules.settings.ledger.refund:
        return None
    # Also without recipients: Postfix may have refused, after policyd charged them, those that it never showed us.
    tenant = rules.directory.by_login(envelope.login) if envelope.login is not None else None
    return None if tenant is None else Refund(_account(tenant, envelope), envelope.queue_id, envelope.connection)


@dataclass(slots=True)
class _Work:
    """The stages of one message; each adds to `edits` and `record`, or returns a refusal."""

    rules: Rules
    envelope: Envelope
    message: Message
    edits: Edits
    tenant: Tenant | None
    tick: Tick | None
    record: dict[str, Any]
    domains: tuple[str, ...] = ()  # of From, as far as the tenant's keys may vouch for them
    divert: bool = False
    hold: str = ""
    stream: Kind = Kind.TRANSACTIONAL
    body: Spool | None = None  # repaired
    body_digest: bytes = b""
    notes: list[Operation] = field(default_factory=list)  # for the ledger, beside the message's settlement

    def run(self, tenant: Tenant) -> Outcome:
        stages = (self._standing, self._identity, self._lint, self._scan, self._route, self._label, self._sign)
        for stage in stages:
            refusal = stage(tenant)
            if refusal is not None:
                return self.turn_away(refusal)
        result = "held" if self.hold else "diverted" if self.divert else "accepted"
        operations = [self._settle(tenant, "held" if self.hold else ""), *self.notes]
        return Outcome(
            result, hold=self.hold, steps=self.edits.steps, body=self.body, operations=operations, record=self.record
        )

    def _settle(self, tenant: Tenant, counter: str) -> Settle:
        envelope = self.envelope
        recipients = tuple(envelope.recipients)
        return Settle(
            _account(tenant, envelope), envelope.queue_id, envelope.connection, recipients, self.message.size, counter
        )

    def turn_away(self, refusal: Refusal) -> Outcome:
        """Charged or given back as `ledger.refund` has it: by default rejected mail stays charged, so that it is not free."""
        final = refusal.fate is not Fate.TEMPFAIL
        ended, counter = (Ended.REJECTED, "rejected") if final else (Ended.DEFERRED, "")
        operations = list(self.notes)
        if self.tenant is not None and ended in self.rules.settings.ledger.refund:
            account, envelope = _account(self.tenant, self.envelope), self.envelope
            operations.insert(0, Refund(account, envelope.queue_id, envelope.connection, counter))
        elif self.tenant is not None:
            operations.insert(0, self._settle(self.tenant, counter))
        result = {Fate.REJECT: "rejected", Fate.TEMPFAIL: "deferred"}.get(refusal.fate, "discarded")
        self.record["reply"] = f"{refusal.code} {refusal.enhanced} {refusal.text}".strip()
        return Outcome(result, refusal.fate, refusal, operations=operations, record=self.record)

    def _binding(self, tenant: Tenant, refusal: Refusal | None) -> Refusal | None:
        """A refusal by policy; under `observe` it is only written down."""
        if refusal is not None and tenant.mode is Mode.OBSERVE:
            self.record["observed"] = f"{refusal.code} {refusal.enhanced} {refusal.text}"
            return None
        return refusal

    def _standing(self, tenant: Tenant) -> Refusal | None:
        """What operator and monitor said of the tenant."""
        said = self.rules.words.tenants.get(tenant.name)
        if not said:
            return None
        suspended = said.get("suspended")
        if isinstance(suspended, dict) and (suspended.get("until_ms") or float("inf")) > time.time() * 1000:
            return Refusal.reject("This account is suspended, ask your provider")
        self.divert = bool(said.get("divert"))
        self.hold = str(said.get("hold") or "")
        self.record["standing"] = "held" if self.hold else "diverted" if self.divert else None
        return None

    def _identity(self, tenant: Tenant) -> Refusal | None:
        """Who stands in From, and in Sender and envelope where the plan asks for that."""
        rule, patterns = tenant.identity, tenant.from_domains
        try:
            authors = identity.authors(self.edits.headers)
            domains = identity.domains_of(authors)
            sender = identity.sender_domain(self.edits.headers) if rule.check_sender and patterns else None
            returned_to = identity.envelope_domain(self.envelope.sender) if rule.check_envelope and patterns else None
        except MessageError as error:
            if not patterns and len(self.edits.values("from")) == 1:
                return None  # any From passes; one that cannot be read aligns with no key
            return self._binding(tenant, Refusal.reject(f"Message refused: {error}"))
        self.record["from"] = ",".join(domains)
        foreign = next((domain for domain in domains if not identity.belongs(domain, patterns)), None)
        # Whatever is done about it: our tenant's keys never vouch for a domain that is not the tenant's.
        self.domains = domains if foreign is None else ()
        refusal = self._foreign(tenant, foreign) if foreign is not None else None
        if sender is not None and not identity.related(sender, patterns):
            refusal = refusal or self._suspect("sender", f"This login may not send mail with a Sender in {sender}")
        if returned_to is not None and not identity.related(returned_to, patterns):
            refusal = refusal or self._suspect("envelope", f"This login may not send mail from addresses in {returned_to}")
        return self._binding(tenant, refusal or self._spoofed(tenant, [author.display_name for author in authors]))

    def _foreign(self, tenant: Tenant, domain: str) -> Refusal | None:
        text = f"This login may not send mail from {domain}; use a From address in a domain of your account"
        refusal = self._suspect("from", text)
        if tenant.identity.foreign_from is OnForeignFrom.REJECT or not self.rules.settings.operator.dkim:
            return refusal  # without the operator's key it would leave unsigned
        if tenant.identity.foreign_from is OnForeignFrom.TAG:
            self.edits.add("X-Relaywarden-Identity", f"foreign-from {domain}")
        return None

    def _spoofed(self, tenant: Tenant, names: list[str]) -> Refusal | None:
        if tenant.identity.spoofed_name == "ignore" or not any(names):
            return None
        shown = identity.spoofed(names, tenant.from_domains, self.rules.other_domains)
        if shown is None:
            return None
        self.record["spoofed_name"] = shown
        refusal = self._suspect("name", f"The name in From shows {shown}, which is not yours")
        return refusal if tenant.identity.spoofed_name == "reject" else None

    def _suspect(self, what: str, text: str) -> Refusal:
        meters.IDENTITY.labels(what).inc()
        self.record["identity"] = what
        return Refusal.reject(text)

    def _lint(self, tenant: Tenant) -> Refusal | None:
        settings = self.rules.settings
        findings = lint.examine(self.edits.headers, self.message.lint, self.envelope.eight_bit, settings.lint)
        if not findings:
            return None
        domain = self.domains[0] if self.domains else self.envelope.mta_name or "localhost.invalid"
        queue_id = self.envelope.queue_id
        mended = repair.mend(self.edits, self.message.lint, findings, time.time(), domain, queue_id, settings.lint)
        for finding in findings:
            meters.LINT.labels(finding.kind).inc()
        self.record["lint"] = ",".join(dict.fromkeys(finding.kind for finding in findings))
        self.record["repaired"] = ",".join(mended.done)
        if mended.refused is not None:
            return self._binding(tenant, Refusal.reject(f"Message refused: {mended.refused.text}", "5.6.0", "554"))
        if mended.body is None:
            return None
        if self.message.body_lost:
            return Refusal.put_off("No space for this message at the moment, try again later", "4.3.1")
        return self._rewrite(repair.body(self.message.body_pieces(), mended.body))

    def _rewrite(self, pieces: Iterable[bytes]) -> Refusal | None:
        """The repaired body, hashed on the way."""
        hashing, spool = BodyHash(), Spool(self.rules.settings.milter.body_in_memory)
        try:
            for piece in pieces:
                hashing.update(piece)
                spool.write(piece)
        except OSError as error:
            spool.close()
            event(log, logging.ERROR, "no space to repair a message, it is put off", queue=self.envelope.queue_id, error=error)
            return Refusal.put_off("No space for this message at the moment, try again later", "4.3.1")
        self.body, self.body_digest = spool, hashing.digest()
        return None

    def _scan(self, tenant: Tenant) -> Refusal | None:
        scanner, settings = self.rules.scanner, self.rules.settings.scan
        if scanner is None or settings is None:
            return None
        try:
            scan = scanner.scan(
                self.message, self.envelope, self.tick,
                headers=self.edits.headers, body=self.body, settings_id=tenant.settings_id,
            )  # fmt: skip
        except ScanError as error:
            return self._scan_failed(error, settings.on_error)
        found = meaning(scan, settings)
        self._note_scan(tenant, scan, known=found.known)
        refusal = self._binding(tenant, self._content(found))
        if refusal is not None:
            return refusal
        for name, index in scan.remove:
            if not self.rules.is_control(name.lower()):
                self.edits.delete_one(name, index)
        for name, value in scan.add:
            if not self.rules.is_control(name.lower()):
                self.edits.add(name, value)
        if found.spam_header:
            self.edits.add(settings.spam_header, "Yes")
        if found.subject:
            self.edits.replace("Subject", found.subject)
        if "score" in settings.headers:
            self.edits.add("X-Relaywarden-Score", f"{scan.score:.2f} / {scan.required:.2f}")
        if "symbols" in settings.headers:
            self.edits.add("X-Relaywarden-Symbols", ", ".join(_worst(scan)) or "none")
        if settings.divert_score is not None and scan.score >= settings.divert_score:
            self.divert = True
        return None

    def _note_scan(self, tenant: Tenant, scan: Scan, *, known: bool) -> None:
        """To log, metrics and ledger."""
        worst = _worst(scan)
        self.record |= {"action": scan.action, "score": scan.score, "required": scan.required}
        self.record["symbols"] = ",".join(worst[:_SYMBOLS_LOGGED])
        meters.SCANS.labels(scan.action if known else "custom").inc()
        meters.SCORE.observe(scan.score)
        self.notes.append(Score(tenant.name, scan.score, tuple(worst)))
        settings = self.rules.settings.scan
        if not known and settings is not None and scan.action not in self.rules.unheard:
            self.rules.unheard.add(scan.action)
            event(log, logging.WARNING, "rspamd gave an action of its own, see scan.custom_action",
                  action=scan.action, treated_as=settings.custom_action)  # fmt: skip

    def _content(self, found: Meaning) -> Refusal | None:
        if found.fate is Fate.HOLD:
            self.hold = found.text
        if found.fate is Fate.REJECT:
            return Refusal.reject(found.text, code="554")
        if found.fate is Fate.TEMPFAIL:
            return Refusal.put_off(found.text)
        return Refusal(Fate.DISCARD, "", "", "") if found.fate is Fate.DISCARD else None

    def _scan_failed(self, error: ScanError, on_error: OnScanError) -> Refusal | None:
        """rspamd gave no verdict: it is logged, counted (SCANS error or skipped), and the message goes by scan.on_error."""
        self.record["scan_error"] = str(error)
        if on_error is OnScanError.TEMPFAIL:
            return Refusal.put_off("Content scan is unavailable, try again later")
        self.divert = self.divert or on_error is OnScanError.DIVERT
        return None

    def _route(self, tenant: Tenant) -> Refusal | None:
        """The stream, and with it the pool and its member."""
        judged = stream.judge(self.edits.headers, len(self.envelope.recipients))
        self.stream = judged.kind
        meters.STREAMS.labels(judged.kind.value).inc()
        if judged.kind is not Kind.TRANSACTIONAL:
            self.record |= {"stream": judged.kind.value, "stream_reasons": ",".join(judged.reasons)}
        bulk = judged.kind is Kind.BULK
        if bulk and tenant.bulk is OnBulk.REJECT:
            text = "This account is for transactional mail only; this looks like a mailing"
            if (refusal := self._binding(tenant, Refusal.reject(text))) is not None:
                return refusal
        router = self.rules.router
        pool = QUARANTINE if self.divert else BULK if bulk and tenant.bulk is OnBulk.DIVERT else tenant.pool or ""
        if not router.has(pool):
            # A tenant without a pool is not tagged; mail that was to take another way must not take the usual one.
            return None if pool == tenant.pool or not pool else Refusal.put_off(_NO_ROUTE)
        try:
            route = router.route(pool, self.envelope.recipients, self.rules.admission)
        except FullError as error:
            self.record["full"] = error
            return Refusal.put_off("These addresses are still warming up and have sent their share, try again later")
        if route is not None:
            self.edits.add(route.header, route.value)
            self.record |= {"pool": route.pool, "member": route.member}
        return None

    def _label(self, tenant: Tenant) -> Refusal | None:
        """Headers of our own: for PowerMTA, and for complaints to find their way back."""
        settings = self.rules.settings
        if settings.route.powermta:
            self.edits.add("X-Job", _printable(tenant.name))
            self.edits.add("X-Envid", self.envelope.queue_id)
        given, tokens = settings.operator.feedback, self.rules.tokens
        if given is not None and tokens is not None:
            kind = (Kind.TRANSACTIONAL if self.stream is Kind.UNSURE else self.stream).value
            for name, value in feedback.headers(given, tokens, tenant.name, kind, self.envelope.queue_id, time.time()):
                self.edits.add(name, value)
        return None

    def _sign(self, tenant: Tenant) -> Refusal | None:
        try:
            own = self.rules.keyring.for_tenant(tenant, self.domains)
            operator = self.rules.keyring.operator()
        except KeyFileError as error:
            meters.KEY_FAILURES.inc()
            self.record["key_error"] = error
            return Refusal.put_off("This message cannot be signed at the moment, try again later", "4.7.5")
        if not own and not operator:
            return None
        digest = self.body_digest or self.message.body.digest()
        signer, now = Signer(self.edits.headers, digest, self.rules.style), int(time.time())
        for key in [*operator, *own]:  # each goes in above the last: the tenant's ends on top
            self.edits.insert_signature("DKIM-Signature", signer.sign(key, now, tenant.name))
        self.record["signed"] = ",".join(f"{key.domain}/{key.selector}" for key in [*own, *operator])
        meters.SIGNATURES.labels("tenant").inc(len(own))
        meters.SIGNATURES.labels("operator").inc(len(operator))
        return None


_NO_ROUTE = "No route for this message at the moment, try again later"


def _worst(scan: Scan) -> list[str]:
    """The symbols that speak against the message, the worst first."""
    ordered = sorted(scan.symbols, key=lambda symbol: -symbol[1])
    return [name for name, score in ordered if score > 0][:_SYMBOLS_KEPT]


def _printable(name: str) -> str:
    """PowerMTA takes an X-Job without blanks and unprintable octets only."""
    return "".join(char if char.isascii() and char.isprintable() and char != " " else "_" for char in name)


def _account(tenant: Tenant, envelope: Envelope) -> Account:
    return tenant.account(login=envelope.login or "", sender=envelope.sender, client=envelope.address)
