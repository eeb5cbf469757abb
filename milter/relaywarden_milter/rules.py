"""rules - everything that one configuration says about messages; a reload makes a new one, a message keeps its own.

Beside the configuration: the words of the operator and the monitor (`relaywarden.steering`), which `hear` takes over every
second, and the allowances of members that warm up, which outlive a reload and are handed in.
"""

from __future__ import annotations

from collections.abc import Sequence

from relaywarden.config.settings import OnFault, Settings
from relaywarden.feedback import Tokens
from relaywarden.steering import Words
from relaywarden.tenants import Directory
from relaywarden_milter import control, identity
from relaywarden_milter.keyring import Keyring
from relaywarden_milter.route import Admission, Router
from relaywarden_milter.rspamd import Scanner
from relaywarden_milter.sign import Style


class NoWarmup:
    """The allowance where nobody warms up."""

    def admits(self, member: str, recipients: Sequence[str]) -> bool:
        """Anything goes."""
        del member, recipients
        return True

    def borrows(self, member: str, recipients: Sequence[str]) -> bool:
        """Never asked."""
        del member, recipients
        return False

    def largest(self, members: Sequence[str], recipients: Sequence[str]) -> str | None:
        """Never asked."""
        del members, recipients
        return None


class Rules:
    """One configuration, made ready for use; raises KeyFileError when the feedback secret cannot be used."""

    def __init__(self, settings: Settings, admission: Admission | None = None, words: Words | None = None) -> None:
        self.settings = settings
        self.directory = Directory(settings)
        self.keyring = Keyring(settings)
        self.style = Style(settings.signing)
        self.router = Router(settings)
        self.admission: Admission = admission or NoWarmup()
        self.is_control = control.matcher(settings)
        self.scanner = Scanner(settings.scan) if settings.scan is not None else None
        feedback = settings.operator.feedback
        self.tokens = Tokens.from_file(feedback.secret) if feedback is not None else None
        self.other_domains = identity.other_domains(self.directory)
        self.unheard: set[str] = set()  # actions of rspamd that were logged as unknown
        self.words = Words()
        if words is not None:
            self.hear(words)
        lint = settings.lint
        self._repairs_bodies = OnFault.REPAIR in (lint.long_lines, lint.bare_line_ends, lint.eight_bit)

    def hear(self, words: Words) -> None:
        """Take over the newest words; messages in flight may see the old ones."""
        self.words = words
        self.keyring.select(words.selectors)

    def keeps_body(self, login: str | None) -> bool:
        """May the body be needed again after its hash?"""
        return login is not None and (self.scanner is not None or self._repairs_bodies)

    def close(self) -> None:
        """Give back connections."""
        if self.scanner is not None:
            self.scanner.close()
