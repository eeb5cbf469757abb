"""errors - the one exception tree.

Every error that relaywarden raises on purpose descends from `RelaywardenError`; its text speaks to the person who must
act: what went wrong, where (file, key, line), what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RelaywardenError(Exception):
    """Base of every error that relaywarden raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a configuration: where it stands and what was expected there."""

    where: str  # "relaywarden.yaml:12: plans.standard.limits[2]"
    what: str  # "expected METER: AMOUNT/WINDOW, got 'lots'"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ConfigError(RelaywardenError):
    """The configuration is not usable; `problems` lists every fault found, not just the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SpecError(RelaywardenError, ValueError):
    """A value written in the configuration's own notation (limit, size, duration, address) does not parse."""


class KeyFileError(RelaywardenError):
    """A DKIM private key cannot be read or must not be used."""


class LedgerError(RelaywardenError):
    """The ledger could not carry out an operation."""


class StoreUnavailableError(LedgerError):
    """The store behind the ledger does not answer, is read-only, full, loading or locked."""


class ProtocolError(RelaywardenError):
    """A peer sent something that its protocol does not allow."""


class ScanError(RelaywardenError):
    """rspamd gave no usable answer."""


class MessageError(RelaywardenError):
    """A message cannot be handled as it is; the text is fit to be shown to the sending client."""
