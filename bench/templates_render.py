"""templates_render - messages with a known stream, for training and scoring: templates and written texts, made into mail.

Templates are those below /work/shared/data/templates (see README.md there), labelled in bench/labels/streams.json; the
written texts stand in bench/messages.  Each becomes a whole message with headers, a recipient's data, tracked links, an
encoding.  What is not the text is drawn from the same lots for both streams, weighted as in the field, so that no header gives
the label away: receipts carry List-Unsubscribe, and mailings at times do not.

Everything is drawn from a seed; the same seed gives the same octets.
"""

from __future__ import annotations

import html
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = Path("/work/shared/data/templates")
LABELS = HERE / "labels/streams.json"
NAMES = (
    "Anna Petrov", "Luis Ortega", "Maja Lind", "Tom Becker", "Chloé Martin",
    "Wei Zhang", "Priya Nair", "Jan de Vries", "Olu Adeyemi", "Sara Rossi",
)  # fmt: skip
SENDERS = ("no-reply", "hello", "info", "contact", "mail", "team", "support")
SUBJECTS = {
    "confirm": ("Your order has shipped", "Your order {n} is on its way", "Shipping confirmation"),
    "invite": ("{name} invited you to join Awesome", "{name} has sent you an invitation"),
    "invoice": ("Your invoice {n}", "Invoice for your subscription", "Thank you for your order"),
    "receipt": ("Your receipt {n}", "Receipt for your order"),
    "welcome": ("Welcome! Please activate your account", "Confirm your email address", "Your account is ready"),
    "progress": ("Complete your account", "Your account is almost ready"),
    "ping": ("Your account settings were updated", "Changes to your account"),
    "coupon": ("A coupon for you", "20% off your next purchase"),
    "upsell": ("Upgrade now and save 20%", "Time for an upgrade?", "Do more with your account"),
    "reignite": ("We miss you", "Come back and save 20%", "It has been a while"),
    "birthday": ("Happy birthday!", "It's your birthday: 15% off"),
    "survey": ("Your opinion matters", "How are we doing?", "Tell us what you think"),
    "digest": ("This week's digest", "Features and offers of the week"),
    "plain": ("News from the blog", "This month's letter"),
}
SAME_AS = {
    "confirmation": "confirm", "shipped": "confirm", "update": "ping", "activation": "invite", "rating": "survey",
    "digest-left": "digest", "digest-right": "digest", "two-column": "digest",
    "responsive": "plain", "fluid": "plain", "hybrid": "plain",
}  # fmt: skip
_HOLE = re.compile(r"\{\{[^{}]{0,40}\}\}|<(?:first ?name)>", re.IGNORECASE)
_LINK = re.compile(r"href\s*=\s*\"[^\"]*\"", re.IGNORECASE)
_NAME = re.compile(r"\b(?:Bob Erlicious|Jane ?Doe|John Doe|Jon Doe|Bob|bob|Sam|Anna)\b")
_TAG = re.compile(r"<(style|script|head)\b.*?</\1>|<!--.*?-->|<[^<>]*>", re.DOTALL | re.IGNORECASE)


FOOTERS = {
    "en": "You receive this because you have an account with us. Follow us. Manage preferences | Unsubscribe | View in browser",
    "de": "Folgen Sie uns. Sie erhalten diese E-Mail als unser Kunde. Abmelden | Einstellungen | Im Browser ansehen",
    "fr": "Suivez-nous. Se désabonner | Gérer mes préférences | Voir dans le navigateur",
    "es": "Síguenos. Darse de baja | Preferencias | Ver en el navegador",
    "it": "Seguici. Annulla iscrizione | Preferenze | Versione web",
    "pt": "Siga-nos. Cancelar inscrição | Preferências | Versão web",
    "nl": "Volg ons. Afmelden | Voorkeuren | Bekijk online versie",
    "pl": "Obserwuj nas. Wypisz się | Preferencje | Zobacz w przeglądarce",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One message and its stream; `family`: what must not stand on both sides of a cross validation."""

    where: str
    family: str
    stream: str
    message: bytes


def templates(folder: Path = DATA, seed: int = 1) -> Iterator[Sample]:
    """All labelled templates, rendered once."""
    for where, label in json.loads(LABELS.read_text()).items():
        draw = random.Random(f"{seed} {where}")
        parts = where.split("/")
        family = parts[0] if parts[0] == "colorlib" else parts[2]
        page = (folder / where).read_text(errors="replace")
        kind = Path(where).stem
        subject = label.get("subject") or draw.choice(SUBJECTS[SAME_AS.get(kind, kind)])
        name = draw.choice(NAMES)
        page = _personal(page, name, draw)
        yield Sample(where, family, label["stream"], mail(label["stream"], _fill(subject, name, draw), page, name, draw))


def written(path: Path, seed: int = 1, *, dressed: bool = False) -> Iterator[Sample]:
    """The texts of one file of bench/messages; `dressed`: all as a shop's HTML with List-Unsubscribe, pictures and footer."""
    for number, block in enumerate(path.read_text().strip().split("\n\n"), 1):
        head, subject, *lines = block.split("\n")
        stream, language, local = head.split()
        draw = random.Random(f"{seed} {path.stem} {number}")
        name = draw.choice(NAMES)
        text = _fill("\n".join(lines), name, draw) + (f"\n{FOOTERS.get(language, FOOTERS['en'])}" if dressed else "")
        page = _page(text, "bulk" if dressed else stream, draw) if dressed or draw.random() < 0.7 else ""
        message = mail(stream, _fill(subject, name, draw), page, name, draw, local=local, text=text, listed=dressed)
        yield Sample(f"{path.stem} {number} ({language}): {subject[:50]}", f"{path.stem}-{language}", stream, message)


def mail(
    stream: str,
    subject: str,
    page: str,
    name: str,
    draw: random.Random,
    *,
    local: str = "",
    text: str = "",
    listed: bool = False,
) -> bytes:
    """A message as it comes from a client; the headers' frequencies are a guess at the field's."""
    bulk = stream == "bulk"
    message = EmailMessage(policy=SMTP)
    domain = f"{draw.choice(['northgate', 'brightwater', 'tallywise', 'loom', 'harbour'])}.example"
    message["From"] = f"{domain.partition('.')[0].title()} <{local or draw.choice(SENDERS)}@{domain}>"
    message["To"] = f"{name.partition(' ')[0].encode('ascii', 'ignore').decode().lower()}{draw.randrange(999)}@mailbox.example"
    message["Subject"] = subject
    message["Date"] = (
        f"{draw.choice(['Mon', 'Tue', 'Wed'])}, {draw.randrange(1, 28)} Mar 2026 10:{draw.randrange(10, 59)}:00 +0000"
    )
    message["Message-ID"] = f"<{draw.getrandbits(64):x}@{domain}>"
    if listed or draw.random() < (0.75 if bulk else 0.6):
        message["List-Unsubscribe"] = f"<https://{domain}/u/{draw.getrandbits(64):x}>"
        if draw.random() < 0.6:
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    if draw.random() < 0.3:
        message["Feedback-ID"] = f"{draw.randrange(9999)}:{draw.randrange(99)}:{stream[:1]}:esp"
    if draw.random() < (0.12 if bulk else 0.01):
        message["Precedence"] = "bulk"
    if draw.random() < (0.12 if bulk else 0.0):
        message["List-Id"] = f"<{draw.randrange(99)}.list.{domain}>"
    if draw.random() < (0.15 if bulk else 0.02):
        message["X-Campaign-ID"] = str(draw.randrange(99999))
    if draw.random() < (0.01 if bulk else 0.2):
        message["Auto-Submitted"] = "auto-generated"
    coding = draw.choice(("quoted-printable", "base64"))
    plain = text or " ".join(html.unescape(_TAG.sub(" ", page)).split())
    message.set_content(plain, cte=coding)
    if page and (text or draw.random() < 0.7):
        message.add_alternative(page, subtype="html", cte=coding)
    elif page:
        message.set_content(page, subtype="html", cte=coding)
    return message.as_bytes()


def _fill(text: str, name: str, draw: random.Random) -> str:
    """A recipient's own values."""
    for hole, value in (
        ("{name}", name),
        ("{n}", f"{draw.choice(['A', 'B', 'NB-', '1', '2'])}{draw.randrange(10_000, 9_999_999)}"),
        ("{code}", f"{draw.randrange(100_000, 999_999)}"),
        ("{amount}", draw.choice(("€{}", "${}", "{} €", "£{}")).format(f"{draw.randrange(5, 900)}.{draw.randrange(10, 99)}")),
        ("{date}", f"{draw.randrange(1, 28)}.{draw.randrange(1, 12):02}.2026"),
        ("{url}", f"https://go.{draw.randrange(99)}.example/c/{draw.getrandbits(80):x}?id={draw.getrandbits(40)}"),
    ):
        text = text.replace(hole, value)
    return text


def _personal(page: str, name: str, draw: random.Random) -> str:
    """A template with a recipient's name, and links that are tracked."""
    page = _NAME.sub(name, _HOLE.sub(name, page))
    return _LINK.sub(
        lambda _: f'href="https://click.northgate.example/l/{draw.getrandbits(64):x}?u={draw.getrandbits(32)}"', page
    )


def _page(text: str, stream: str, draw: random.Random) -> str:
    """HTML around a written text, in one of three dresses; pictures and social links come with both streams."""
    pictures = draw.choice((1, 2, 3, 6) if stream == "bulk" else (0, 1, 1, 3))
    rows = "".join(f"<tr><td style='padding:8px;font-family:Arial'>{html.escape(line)}</td></tr>" for line in text.split("\n"))
    images = "".join(
        f"<tr><td><img src='https://img.example/{draw.getrandbits(32):x}.png' width='600'></td></tr>" for _ in range(pictures)
    )
    link = "<tr><td><a href='https://click.northgate.example/{}'>{}</a></td></tr>"
    links = "".join(link.format(f"{draw.getrandbits(64):x}", "&rsaquo;") for _ in range(draw.choice((1, 2, 3, 8))))
    social = (
        "".join(link.format(f"{draw.getrandbits(64):x}", site) for site in ("Facebook", "Instagram"))
        if draw.random() < 0.4
        else ""
    )
    pixel = "<img src='https://o.northgate.example/p' width='1' height='1'>" if draw.random() < 0.5 else ""
    style = "<style>td{color:#333}@media(max-width:600px){td{width:100%!important}}</style>"
    return f"<html><head>{style}</head><body><table>{images}{rows}{links}{social}</table>{pixel}</body></html>"
