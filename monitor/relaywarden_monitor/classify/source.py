"""source - which mailbox provider a reply comes from: by the receiving host, or else by marks in the text.  Pure.

The host may be written `mx.example[192.0.2.1]:25`, `mx.example (192.0.2.1)` or `dns; mx.example`; it may also be the
provider's own name, or a consumer domain of the provider.  Marks are texts that no other provider writes.

Known limit: a provider that passes another's reply on carries that one's marks; the host decides, where it is known.
"""

from __future__ import annotations

from functools import lru_cache

from relaywarden.providers import NAMES, OTHER, by_domain, by_mx

_LONGEST_HOST = 255
_CALLED = {  # as people call them, as far as it is not the provider's name
    "gmail": "google", "gsuite": "google", "google workspace": "google", "googleapps": "google",
    "outlook": "microsoft", "hotmail": "microsoft", "exchangeonline": "microsoft", "exchange online": "microsoft",
    "office365": "microsoft", "microsoft 365": "microsoft", "m365": "microsoft", "live": "microsoft", "msn": "microsoft",
    "aol": "yahoo", "yahooinc": "yahoo", "yahoo inc": "yahoo", "verizon media": "yahoo", "att": "yahoo",
    "icloud": "apple", "webde": "gmx", "web.de": "gmx", "united internet": "gmx", "tencent": "qq", "163": "netease",
    "wanadoo": "orange", "protonmail": "proton", "emailsecuritycloud": "messagelabs", "symantec": "messagelabs",
    "laposte.net": "laposte", "mail.ru": "mailru", "1and1": "ionos", "1&1": "ionos", "ironport": "cisco",
}  # fmt: skip
_MARKS = (
    (" gsmtp", "google"), ("support.google.com", "google"), ("mail.google.com/support", "google"),
    ("protection.outlook.com", "microsoft"), ("prod.outlook.com", "microsoft"), ("[outlook.com]", "microsoft"),
    ("postmaster.live.com", "microsoft"), ("mail.live.com", "microsoft"), ("sender.office.com", "microsoft"),
    ("olc.protection", "microsoft"), ("go.microsoft.com/fwlink", "microsoft"),
    ("yahoo.co.jp", "yahoo-japan"), ("yahoodns.net", "yahoo"), ("postmaster.yahoo", "yahoo"), ("yahooinc.com", "yahoo"),
    ("yahoo.com", "yahoo"), ("[tss", "yahoo"), ("postmaster.aol.com", "yahoo"), ("aol.com", "yahoo"),
    ("icloud.com", "apple"), ("support.apple.com", "apple"), ("mail.me.com", "apple"),
    ("postmaster.gmx", "gmx"), ("gmx.net", "gmx"), ("web.de", "gmx"), ("mail.com/", "gmx"), ("kundenserver.de", "ionos"),
    ("rx.t-online.de", "t-online"), ("t-online.de", "t-online"), ("freenet.de", "freenet"),
    ("ofr_", "orange"), ("ofr0", "orange"), ("orange.fr", "orange"), ("wanadoo.fr", "orange"), ("lpn", "laposte"),
    ("laposte.net", "laposte"), ("postmaster.free.fr", "free"), ("proxad.net", "free"), ("sfr.fr", "sfr"),
    ("comcast.net", "comcast"), ("mail.ru", "mailru"), ("yandex", "yandex"), ("ya.cc/", "yandex"), ("seznam.cz", "seznam"),
    ("kpnmail.nl", "kpn"), ("libero.it", "libero"), ("iol.it", "libero"), ("mail.163.com", "netease"), ("126.com", "netease"),
    ("dt:spm", "netease"), ("qq.com", "qq"), ("zoho.", "zoho"), ("messagingengine.com", "fastmail"),
    ("protonmail", "proton"), ("emailsrvr.com", "rackspace"), ("secureserver.net", "godaddy"),
    ("proofpoint.com", "proofpoint"), ("pphosted.com", "proofpoint"), ("ppe-hosted.com", "proofpoint"),
    ("mimecast", "mimecast"), ("barracuda", "barracuda"), ("cuda_nsu", "barracuda"), ("iphmx.com", "cisco"),
    ("messagelabs.com", "messagelabs"), ("symanteccloud.com", "messagelabs"), ("trendmicro", "trendmicro"),
    ("hornetsecurity", "hornetsecurity"), ("antispameurope", "hornetsecurity"),
)  # fmt: skip


def provider_of(relay: str, text: str) -> str:
    """The provider, or OTHER; `text` is canonical (reply.py)."""
    found = _by_relay(relay) if relay else OTHER
    if found != OTHER:
        return found
    return next((name for mark, name in _MARKS if mark in text), OTHER)


@lru_cache(4096)
def _by_relay(relay: str) -> str:
    host = relay[:_LONGEST_HOST].lower().strip()
    host = host.rpartition(";")[2].partition("[")[0].partition("(")[0].strip().rstrip(".")
    if not host:
        return OTHER
    if host in NAMES:
        return host
    plain = host.partition(":")[0]
    return _CALLED.get(host) or by_mx(plain) or by_domain(plain) or OTHER
