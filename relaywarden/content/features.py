"""features - what a message says for or against its being bulk mail, as numbers that a person can check.  Pure.

Each feature is 0 when its sign is absent and about 1 when it is plain; weights.py says what each is worth.  Words come from
lexicon.py, counted by kind, each once; the subject counts apart, since what a message is about stands there.

How it fails: it never raises; a header that is absent or broken is one without a sign.

Known limits: words of a language that the lexicon lacks say nothing; structure, headers, numbers and emoji do.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from itertools import pairwise

from relaywarden.content import lexicon
from relaywarden.content.text import Headers, Look, header_text

_MOST_WORDS, _LAST_WORDS = 500, 150
_STEM, _FIRSTS = lexicon.STEM, lexicon.FIRSTS
_PAIRS = frozenset(entry for entry in lexicon.ENTRIES if " " in entry)
_SINGLE = frozenset(lexicon.ENTRIES) - _PAIRS
_SHORT = 120  # words
BULK_KINDS = ("promo", "cta", "news", "engage", "product", "footer")
_SAID_BY_BULK = BULK_KINDS[:-1]  # a footer is both streams'; in a subject it tells of one (`You have been unsubscribed`)
BUSINESS_KINDS = ("order", "payment", "account", "booking", "notice", "person")
_FOLDED = bytes(octet + 32 if 65 <= octet <= 90 else 32 if octet < 97 or 122 < octet < 128 else octet for octet in range(256))
# Digits as 0, capitals as A: numbers of a kind are then found as fixed strings, which is many times faster than expressions.
_SHAPE = bytes(48 if 48 <= octet <= 57 else 65 if 65 <= octet <= 90 else octet for octet in range(256))
_CODES = (b" 000000 ", b" 000000.", b" 000-000 ", b" 000 000 ", b" 00000000 ", b":000000 ", b"A-000000 ")
_REFERENCES = (b"A0000", b"A-0000", b"#0000", b"A-000", b"AA000", b"0-0000")
_CURRENCIES = (b"$0", b"$ 0", b"\xe2\x82\xac", b"\xc2\xa3", b"EUR", b"AAA 0", b"0 AAA", b"0 z\xc5\x82", b"0 kr")
_SOCIAL = re.compile(r"(?:^|\.)(?:facebook|twitter|instagram|linkedin|youtube|pinterest|tiktok|x|t|fb|vk)\.(?:com|me|co|be)$")
_LIST_SOFTWARE = re.compile(
    r"mailchimp|mailman|phplist|sympa|listserv|campaign|klaviyo|mautic|acymailing|newsletter|mailerlite|hubspot|sendy|"
    r"constant ?contact|marketo|pardot|emarsys|dotdigital|cleverreach|rapidmail|sendinblue|brevo|getresponse|activecampaign|"
    r"aweber|mailpoet|beehiiv|substack"
)
_CAMPAIGN_FIELDS = frozenset([
    "x-mc-user", "x-mailchimp-campaign-id", "x-newsletter", "x-mailing-id", "x-mailinglist", "x-csa-complaints", "x-rpcampaign",
    "x-sendinblue-campaign", "x-klaviyo-message-id", "x-mautic-campaign", "x-cmail-campaign", "x-job-campaign",
    "x-mailing-list", "x-bulkmail", "x-listmember", "x-list-id", "x-listid", "x-phplist-campaign", "x-hs-campaign",
])  # fmt: skip
_BULK_SENDER = re.compile(
    r"news|market|promo|offer|deals|sale|campaign|digest|mailing|editor|community|angebot|oferta|offre|aktion|events?\b|insider|"
    r"club|weekly"
)
_BUSINESS_SENDER = re.compile(
    r"receipt|billing|invoice|order|security|account|password|verif|notif|alert|ship|track|payment|support|booking|reserv|"
    r"ticket|bestell|rechnung|versand|kundenservice|commande|factur|pedido|ordini|fattur|zamowien|statement|confirm|service|"
    r"appointment|termin|auto|otp|code"
)
_GREETINGS = frozenset(word[:_STEM] for word in (
    "hi", "hello", "dear", "hey", "hallo", "hoi", "guten", "liebe", "lieber", "sehr", "bonjour", "bonsoir", "cher", "chère", "hola",
    "estimado", "querido", "ciao", "gentile", "salve", "buongiorno", "olá", "ola", "caro", "cara", "prezado", "beste", "geachte",
    "witaj", "dzień", "szanowny", "cześć", "drogi", "hej", "kjære", "kære",
))  # fmt: skip

# What happened to something of the reader's, in a few words: `your password was changed`, `Ihr Vertrag endet`.
_HAPPENS = {
    "your": "was has is are were will have expires expired ends ended failed",
    "ihr ihre ihren dein deine": "wurde wurden ist sind wird endet läuft hat",
    "votre vos": "a ont est sont sera expire",
    "tu tus su sus": "ha han está están es será caduca vence finaliza termina",
    "tuo tua sua suo": "è ha sarà scade foi está expira termina vence será",
    "seu teu": "foi está expira termina vence será",
    "je jouw uw": "is zijn wordt verloopt werd",
    "twój twoja twoje": "został została zostało jest wygasa kończy",
    "din ditt dina dit": "har är er blev blir går",
}
_YOURS = {
    word[:_STEM]: frozenset(verb[:_STEM] for verb in verbs.split())
    for words, verbs in _HAPPENS.items()
    for word in words.split()
}
# `5 tips ..`, `3 Dinge ..`, `Issue 42`, `Vol. 7`, `KW 12`.
_LISTS = re.compile(
    r"^\W{0,3}\d{1,2} [^\W\d]+ [^\W\d]|\b(?:issue|vol|edition|episode|ausgabe|édition|edición|edição|wydanie|kw|week)\b[ .#n°]{0,4}\d{1,3}\b",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Measured:
    """Features that are not 0, and the words that made them."""

    values: dict[str, float] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)


def measure(headers: Headers, seen: Look, recipients: int = 1) -> Measured:
    """All features of one message; `recipients`: how many this transaction has."""
    found = Measured()
    _headers(headers, recipients, found)
    _body(seen, found)
    _together(found)
    return found


def _headers(headers: Headers, recipients: int, found: Measured) -> None:
    values = found.values
    fields = {name.strip().lower(): value for name, value in headers}
    text = {name: header_text(fields[name]) for name in _READ & fields.keys()}
    if text.get("list-unsubscribe"):
        values["list_unsubscribe"] = 1.0
    if text.get("list-unsubscribe-post"):
        values["one_click"] = 1.0
    if text.get("list-id"):
        values["list_id"] = 1.0
    if text.get("precedence", "").lower() in {"bulk", "list", "junk"}:
        values["precedence"] = 1.0
    if text.get("auto-submitted", "").lower()[:5] == "auto-":
        values["automatic"] = 1.0
    if "in-reply-to" in text or text.get("subject", "")[:4].lower() in {"re: ", "aw: ", "sv: "}:
        values["reply"] = 1.0
    # What stands behind the prefix is the sender's, and is not repeated.
    tools = [
        name if name in _CAMPAIGN_FIELDS else "x-campaign"
        for name in fields
        if name in _CAMPAIGN_FIELDS or name[:10] == "x-campaign"
    ]
    mailer = _LIST_SOFTWARE.search(
        f"{text.get('x-mailer', '')} {text.get('feedback-id', '')} {text.get('list-id', '')}".lower()
    )
    if tools or mailer:
        values["campaign_tool"] = 1.0
        found.words["campaign_tool"] = [*tools[:2], *([mailer[0]] if mailer else [])]
    sender = text.get("from", "").rpartition("<")[2].lower()
    local = sender.partition("@")[0] + "@"
    if _BUSINESS_SENDER.search(local):
        values["business_sender"] = 1.0
    elif _BULK_SENDER.search(local) or _BULK_SENDER.search(sender.partition("@")[2].partition(".")[0]):
        values["bulk_sender"] = 1.0
    to = text.get("to", "")
    if "@" not in to or "undisclosed" in to.lower():
        values["hidden_to"] = 1.0
    if recipients > 5:
        values["recipients"] = 1.0 if recipients >= 20 else 0.5
    _subject(text.get("subject", ""), found)


_READ = frozenset(
    "list-unsubscribe list-unsubscribe-post list-id precedence auto-submitted in-reply-to x-mailer feedback-id from to subject".split()
)


def _subject(subject: str, found: Measured) -> None:
    values, octets = found.values, subject.encode("utf-8", "replace")
    stems = _stems(octets)
    kinds = _kinds(stems)
    for name, wanted in (("subject_bulk", _SAID_BY_BULK), ("subject_business", BUSINESS_KINDS)):
        if words := [word for kind in wanted for word in kinds.get(kind, ())]:
            values[name] = min(len(words), 3) / 2
            found.words[name] = words[:3]
    shape = b" %s " % octets.translate(_SHAPE)
    if (b"0%" in shape or b"0 %" in shape) and "subject_business" not in values:  # else of a quota, or of a disk
        values["subject_percent"] = 1.0
    if not _YOURS.keys().isdisjoint(stems):
        values["subject_yours"] = 1.0
    if _LISTS.search(subject[:200]):
        values["subject_list"] = 1.0
    if b"\xf0\x9f" in octets or any(
        sign in octets for sign in (b"\xe2\x9c", b"\xe2\xad", b"\xe2\x9d", b"\xe2\x98", b"\xe2\x8f")
    ):
        values["subject_emoji"] = 1.0
    if b"!" in octets:
        values["subject_shouts"] = 1.0
    if coded := _any(_CODES, shape):
        values["subject_code"] = 1.0
    if coded or _any(_REFERENCES, shape):
        values["subject_reference"] = 1.0


def _body(seen: Look, found: Measured) -> None:
    values, visible = found.values, seen.visible
    shape = visible.translate(_SHAPE)
    stems = _stems(seen.letters)
    thinner = math.sqrt(max(len(stems), _SHORT) / _SHORT)  # a long text has words of every kind
    for kind, words in _kinds(stems).items():
        # Receipts have footers as long as a mailing's: more words of it say nothing more.
        values[kind] = min(len(words) / thinner, 4.0) / 2 if kind != "footer" else 1.0
        found.words[kind] = words[:3]
    if any(stem in _YOURS and not _YOURS[stem].isdisjoint(stems[at + 1 : at + 5]) for at, stem in enumerate(stems[:200])):
        values["yours"] = 1.0
    if not _GREETINGS.isdisjoint(stems[:60]):
        values["greeting"] = 1.0
    if len(stems) > 1:
        values["long"] = max(0.0, min(math.log2(len(stems) / 100), 2.0) / 2)
        values["short"] = 1.0 if len(stems) < 70 else 0.0
    values["percents"] = min(shape.count(b"0%") + shape.count(b"0 %"), 3) / 2
    values["prices"] = 1.0 if sum(shape.count(sign) for sign in _CURRENCIES) >= 2 else 0.0
    values["reference"] = 1.0 if _any(_REFERENCES, shape) else 0.0
    values["code"] = 1.0 if _any(_CODES, shape) else 0.0
    values["exclaims"] = min(visible.count(b"!"), 6) / 3
    values["emoji"] = min(visible.count(b"\xf0\x9f"), 4) / 2
    values["images"] = min(seen.images, 12) / 6
    if seen.images >= 2 and len(stems) < 40 * seen.images:
        values["pictures_for_text"] = 1.0
    values["links"] = min(len(seen.hosts), 20) / 10
    hosts = set(seen.hosts)
    values["hosts"] = min(max(len(hosts) - 1, 0), 6) / 3
    if sum(1 for host in hosts if _SOCIAL.search(host.decode("ascii", "replace"))) >= 2:
        values["social"] = 1.0
    if seen.pixels:
        values["pixel"] = 1.0
    if any(kind in {"application/pdf", "text/calendar", "application/vnd.apple.pkpass"} for kind in seen.attachments):
        values["document"] = 1.0


def _together(found: Measured) -> None:
    """What counts only beside something else, or by its absence."""
    values = found.values
    if not values.get("list_unsubscribe") and not values.get("footer"):
        values["no_way_out"] = 1.0
    bulk = sum(values.get(kind, 0.0) for kind in _SAID_BY_BULK)
    business = sum(values.get(kind, 0.0) for kind in BUSINESS_KINDS)
    values["balance"] = (bulk - business) / (bulk + business + 1.0)
    if values.get("prices") and not values.get("payment") and not values.get("order"):
        values["prices_alone"] = 1.0
    if bulk == 0.0 and not values.get("subject_bulk") and not values.get("footer"):
        values["no_bulk_words"] = 1.0
    if business == 0.0 and not values.get("subject_business"):
        values["no_business_words"] = 1.0
    if business <= 0.5 and not values.get("subject_business") and values.get("footer"):
        values["footer_alone"] = 1.0 - business
    if bulk > 2 * business and values.get("footer"):
        values["mailing"] = 1.0


def _any(signs: tuple[bytes, ...], octets: bytes) -> bool:
    return any(sign in octets for sign in signs)


def _stems(octets: bytes) -> list[str]:
    words = octets.translate(_FOLDED).decode("utf-8", "ignore").lower().split()
    if len(words) > _MOST_WORDS:
        words = words[: _MOST_WORDS - _LAST_WORDS] + words[-_LAST_WORDS:]
    return [word[:_STEM] for word in words]


def _kinds(stems: list[str]) -> dict[str, list[str]]:
    """The entries of the lexicon that occur, by kind."""
    pairs = [first + " " + second for first, second in pairwise(stems) if first in _FIRSTS]
    found: dict[str, list[str]] = {}
    for entry in sorted(_SINGLE.intersection(stems) | _PAIRS.intersection(pairs)):
        for kind in lexicon.ENTRIES[entry]:
            found.setdefault(kind, []).append(entry)
    return found
