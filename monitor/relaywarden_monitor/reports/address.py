"""address - addresses as reports write them: typed, quoted, redacted, hidden in an envelope sender.  Pure.

    rfc822;<user@example.com>                     RFC 3464 section 2.3.1, and what implementations make of it
    utf-8; user\\x{40}example.com                 RFC 6533 section 3 (utf-8-addr-xtext)
    bounces-17-user=example.com@relay.example     variable envelope return path: the recipient inside a local part

How it fails: "" for what is no address of one user at one domain.

Known limits: quoted local parts with blanks are not found in running text.  Where a local part has several hyphens, what of
it belongs to the prefix of a variable return path is a guess: digits and hexadecimal numbers do.
"""

from __future__ import annotations

import re

LONGEST = 320  # octets: 64 + "@" + 255, RFC 5321 section 4.5.3.1
_LOCAL = r"[\w!#$%&'*+/=?^`{|}~.-]{1,128}"
_DOMAIN = r"(?:\w(?:[\w-]{0,62}\w)?\.){1,10}\w[\w-]{1,62}"
PATTERN = rf"{_LOCAL}@{_DOMAIN}"
# The look-behind keeps the engine from trying each tail of a long word.
FIND = re.compile(rf"(?<![\w!#$%&*+/=?^`{{|}}~.@-])({PATTERN})(?![\w@])")
_WHOLE = re.compile(rf'(?:{_LOCAL}|"[^"\\\x00-\x1f]{{1,100}}")@(?:{_DOMAIN}|\[[0-9a-fA-F.:IPVv]{{3,50}}\]|[\w-]{{1,63}})')
_ESCAPED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_REDACTED = re.compile(r"redact|hidden|x{4,}|\*{3,}|removed|undisclosed|anonym|obfuscat|unknown", re.IGNORECASE)
_ROBOTS = re.compile(
    r"(?:mailer[._-]?daemon|mail[._-]?daemon|postmaster|mdaemon|mmdf|postoffice|mailadm\w*|mail[._-]?deliver\w*|"
    r"mailer|bounced?|bounce-?(?:handler|processor)|mail-?robot|maild|smtp|ndr|microsoftexchange\w*|system-?administrator)",
    re.IGNORECASE,
)
_VERP = re.compile(
    r"(?:.*[+]|bounces?(?:-(?:\d{1,5}|[0-9a-f]{6,64}))*-|[\w.]{1,40}-bounces?-|[^=]*--)([^=+]+)=([^=+]+)", re.IGNORECASE
)
_VERP_PLAIN = re.compile(r"(?:[^-=+]+-)+([^-=+]+)=([^=+]+)")
_REWRITTEN = re.compile(r"(?:srs[01]|prvs|btv1|msprvs\d?)[=+-]", re.IGNORECASE)


def clean(text: str) -> str:
    """One address, of a field or a header value; "" if there is none."""
    text = text.strip()[: 3 * LONGEST]
    if "<" in text and ">" in text.partition("<")[2]:
        text = text.partition("<")[2].partition(">")[0]
    text = _ESCAPED.sub(_character, text).strip(" \t<>,;\"'()")
    if text.startswith("@") and ":" in text:
        text = text.partition(":")[2]  # a source route, RFC 5321 section 4.1.1.3
    text = text.removeprefix("mailto:").removeprefix("MAILTO:")
    if not _WHOLE.fullmatch(text) or len(text.encode("utf-8", "replace")) > LONGEST:
        found = FIND.search(text)
        text = found.group(1) if found else ""
    return lower(text)


def typed(value: str) -> str:
    """Of `TYPE; ADDRESS`, as in Final-Recipient; some leave the type out."""
    kind, semicolon, rest = value.partition(";")
    if not semicolon:
        return clean(value)
    return clean(rest) or ("" if kind.strip().lower().startswith(("x400", "x-")) else clean(value))


def lower(address: str) -> str:
    """With its domain in lower case: that part never tells two mailboxes apart."""
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.lower().rstrip('.')}" if local and domain else ""


def every(text: str, most: int = 100) -> list[str]:
    """The addresses in a text, in order, each once."""
    found: dict[str, None] = {}
    for match in FIND.finditer(text):
        found.setdefault(lower(match.group(1)), None)
        if len(found) >= most:
            break
    return list(found)


def is_robot(address: str) -> bool:
    """MAILER-DAEMON and its kin, who send reports but get none."""
    return _ROBOTS.fullmatch(address.partition("@")[0]) is not None


def is_redacted(address: str) -> bool:
    """RFC 6590: the reporter has made it unreadable."""
    return "@" not in address or _REDACTED.search(address.partition("@")[0]) is not None


def recipient_of_verp(sender: str) -> str:
    """The recipient that a variable envelope return path names, "" if it names none."""
    local = clean(sender).rpartition("@")[0]
    if "=" not in local or _REWRITTEN.match(local):
        return ""
    found = _VERP.fullmatch(local) or _VERP_PLAIN.fullmatch(local)
    return clean(f"{found.group(1)}@{found.group(2)}") if found and "." in found.group(2) else ""


def _character(match: re.Match[str]) -> str:
    code = int(match.group(1), 16)
    return chr(code) if 0x20 <= code < 0xD800 or 0xE000 <= code < 0x110000 else ""
