"""checks - what `relaywarden check` asks the monitor: what only its own parsers can judge (entry points relaywarden.checks)."""

from __future__ import annotations

from collections.abc import Iterator

from relaywarden.config.settings import Settings
from relaywarden.errors import ConfigError, Problem, RelaywardenError
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.dnswatch.nameservers import resolvers


def problems(settings: Settings) -> Iterator[Problem]:
    """Rules for reply texts, and name servers, that cannot be used."""
    if settings.monitor.rules:
        try:
            Classifier.load(settings.monitor.rules)
        except ConfigError as error:
            yield from (Problem(f"monitor.rules: {problem.where}", problem.what) for problem in error.problems)
    if settings.dns.nameservers:
        try:
            resolvers(settings.dns.nameservers)
        except RelaywardenError as error:
            yield Problem("dns.nameservers", str(error))
