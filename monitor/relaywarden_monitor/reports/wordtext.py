"""wordtext - what the people's part of a message says: the text as a person sees it.  Pure.

Plain text where there is some, else HTML without its marks.  Bounded: the first 64 Ki characters, lines cut at 1,000.
Known limits: HTML is not laid out; a table's cells follow each other with blanks.
"""

from __future__ import annotations

import html
import re

from relaywarden_monitor.reports.mime import Part

LONGEST = 64 * 1024
LONGEST_LINE = 1000
_HIDDEN = re.compile(r"<(?:style|script|head)\b", re.IGNORECASE)
_HIDDEN_END = re.compile(r"</(?:style|script|head)\s*>", re.IGNORECASE)
_BREAK = re.compile(r"<(?:br|p|div|tr|li|h\d|table|hr|pre)\b[^<>]{0,300}>|</(?:p|div|tr|li|h\d|table|pre)>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z!][^<>@]{0,1000}>|<a [^<>]{0,1000}>")


def of(message: Part) -> str:
    """The text of a message that a person would read, without what is enclosed."""
    plain: list[str] = []
    marked: list[str] = []
    for part in message.walk():
        if part.parts or part.first("content-disposition").lower().startswith("attachment"):
            continue
        if part.type == "text/html":
            marked.append(part.text())
        elif part.type in {"text/plain", "text/enriched"} or (part.type.startswith("multipart/") and not part.parts):
            text = part.text()
            (marked if text[:200].lstrip().lower().startswith(("<html", "<!doctype html")) else plain).append(text)
    text = "\n\n".join(plain)
    if not text.strip():
        text = from_html("\n".join(marked))
    return "\n".join(line[:LONGEST_LINE].rstrip() for line in text[:LONGEST].split("\n"))


def from_html(text: str) -> str:
    """HTML as lines of text."""
    pieces = _HIDDEN.split(text[: 4 * LONGEST])
    shown = [pieces[0]]
    for piece in pieces[1:]:
        end = _HIDDEN_END.search(piece)
        shown.append(piece[end.end() :] if end else "")
    bare = _TAG.sub(" ", _BREAK.sub("\n", "".join(shown)))
    lines = (" ".join(line.split()) for line in html.unescape(bare).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def printable(text: str, most: int = 2000) -> str:
    """One line without control characters, lone surrogates and runs of blanks."""
    cut = text[: 2 * most]
    if not (cut.isascii() and cut.isprintable()):
        cut = "".join(c if c.isprintable() else " " for c in cut)
    return " ".join(cut.split())[:most]
