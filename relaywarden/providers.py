"""providers - which mailbox provider takes a recipient's mail.  Pure: two tables, no DNS.

A provider is whoever runs the receiving servers, not whoever owns the domain: reputation and rate limits of a source address
are kept there.  So the MX host decides (`by_mx`, by the longest suffix of whole labels); for well-known consumer domains
(`by_domain`) the answer is known without DNS.  What neither table has is OTHER.  Filters in front of a mailbox (Proofpoint,
Mimecast, ...) are providers too: they are the ones who refuse.

Sources: the suffixes that KumoMTA's shaping rules match (google, microsoft, yahoo, apple, mimecast, barracuda, gmx and web.de,
kpn, qq, netease), and the providers' own published MX records.

Known limits: the tables are short, and a provider that renames its servers is OTHER until the table follows.  Microsoft's
consumer and business servers are one provider here, though each counts by itself.  yahoo.co.jp is another company than Yahoo.
"""

from __future__ import annotations

OTHER = "other"

_MX: dict[str, tuple[str, ...]] = {
    "google": ("google.com", "googlemail.com"),
    "microsoft": ("outlook.com", "mx.microsoft", "hotmail.com", "office365.us", "outlook.cn"),
    "yahoo": ("yahoodns.net",),
    "yahoo-japan": ("yahoo.co.jp",),
    "apple": ("icloud.com",),
    "gmx": ("gmx.net", "gmx.de", "web.de", "mail.com"),
    "ionos": ("kundenserver.de", "ionos.com", "ionos.de", "ionos.fr", "ionos.es", "ionos.co.uk", "1and1.com", "perfora.net"),
    "t-online": ("t-online.de",),
    "freenet": ("freenet.de",),
    "orange": ("orange.fr", "wanadoo.fr"),
    "laposte": ("laposte.net",),
    "free": ("free.fr", "proxad.net"),
    "sfr": ("sfr.fr", "neuf.fr"),
    "ovh": ("ovh.net", "ovh.ca"),
    "gandi": ("gandi.net",),
    "comcast": ("comcast.net",),
    "mailru": ("mail.ru",),
    "yandex": ("yandex.ru", "yandex.net"),
    "seznam": ("seznam.cz",),
    "kpn": ("kpnmail.nl",),
    "libero": ("libero.it",),
    "qq": ("qq.com",),
    "netease": ("netease.com",),
    "zoho": ("zoho.com", "zoho.eu", "zoho.in"),
    "fastmail": ("messagingengine.com",),
    "proton": ("protonmail.ch", "proton.ch"),
    "rackspace": ("emailsrvr.com",),
    "godaddy": ("secureserver.net",),
    "amazon": ("amazonaws.com",),
    "cloudflare": ("mx.cloudflare.net",),
    "proofpoint": ("pphosted.com", "ppe-hosted.com"),
    "mimecast": ("mimecast.com", "mimecast.co.za", "mimecast-offshore.com"),
    "barracuda": ("barracudanetworks.com",),
    "cisco": ("iphmx.com",),
    "messagelabs": ("messagelabs.com",),
    "trendmicro": ("trendmicro.com", "trendmicro.eu"),
    "hornetsecurity": ("hornetsecurity.com", "antispameurope.com"),
}
_DOMAINS: dict[str, tuple[str, ...]] = {
    "google": ("gmail.com", "googlemail.com"),
    "microsoft": (
        "hotmail.com", "outlook.com", "live.com", "msn.com", "passport.com", "windowslive.com",
        "outlook.fr", "outlook.de", "outlook.it", "outlook.es", "outlook.dk", "outlook.pt", "outlook.be", "outlook.ie",
        "outlook.at", "outlook.cz", "outlook.hu", "outlook.jp", "outlook.kr", "outlook.co.th", "outlook.com.br",
        "outlook.com.au", "outlook.com.tr", "outlook.com.gr", "outlook.com.vn",
        "live.co.uk", "live.fr", "live.de", "live.it", "live.nl", "live.be", "live.dk", "live.se", "live.no", "live.ca",
        "live.at", "live.ie", "live.jp", "live.cn", "live.com.au", "live.com.mx", "live.com.ar", "live.com.pt",
    ),
    "yahoo": ("yahoo.com", "ymail.com", "rocketmail.com", "myyahoo.com", "aol.com", "aim.com"),
    "yahoo-japan": ("yahoo.co.jp", "ymail.ne.jp"),
    "apple": ("icloud.com", "me.com", "mac.com"),
    "gmx": ("gmx.net", "gmx.de", "gmx.at", "gmx.ch", "gmx.com", "web.de", "mail.com"),
    "t-online": ("t-online.de", "magenta.de"),
    "freenet": ("freenet.de",),
    "orange": ("orange.fr", "wanadoo.fr"),
    "laposte": ("laposte.net",),
    "free": ("free.fr",),
    "sfr": ("sfr.fr", "neuf.fr"),
    "comcast": ("comcast.net",),
    "mailru": ("mail.ru", "bk.ru", "inbox.ru", "list.ru", "internet.ru"),
    "yandex": ("yandex.ru", "yandex.com", "ya.ru"),
    "seznam": ("seznam.cz",),
    "libero": ("libero.it",),
    "qq": ("qq.com", "foxmail.com"),
    "netease": ("163.com", "126.com", "yeah.net"),
    "proton": ("proton.me", "protonmail.com", "pm.me"),
    "fastmail": ("fastmail.com", "fastmail.fm"),
}  # fmt: skip
_EVERYWHERE = {"hotmail": "microsoft", "yahoo": "yahoo"}  # consumer brands that own their name below (almost) every country

_BY_SUFFIX = {suffix: name for name, suffixes in _MX.items() for suffix in suffixes}
_BY_DOMAIN = {domain: name for name, domains in _DOMAINS.items() for domain in domains}
_MOST_LABELS = 5  # the longest suffix of the table has three; a hostile name may have a hundred
NAMES = frozenset({*_MX, OTHER})


def by_mx(host: str) -> str | None:
    """The provider that runs this receiving host (a bare name, without address or port); None: not in the table."""
    labels = host.rstrip(".").lower().split(".")
    for start in range(max(0, len(labels) - _MOST_LABELS), len(labels)):
        if found := _BY_SUFFIX.get(".".join(labels[start:])):
            return found
    return None


def by_domain(domain: str) -> str | None:
    """The provider of a well-known consumer domain; None: its MX records must say."""
    name = domain.rstrip(".").lower()
    if found := _BY_DOMAIN.get(name):
        return found
    brand, _, country = name.partition(".")
    return _EVERYWHERE.get(brand) if _is_country(country) else None


def _is_country(suffix: str) -> bool:
    """`fr`, `co.uk`, `com.br`: what stands behind a brand in one country."""
    second, dot, top = suffix.rpartition(".")
    return len(top) == 2 and top.isalpha() and (not dot or second in {"co", "com"})
