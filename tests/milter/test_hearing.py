"""Words of the operator reach a running process, and the last ones outlive the store."""

from __future__ import annotations

from pathlib import Path

from relaywarden import steering
from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.sqlite import SqliteLedger
from relaywarden.steering import Words
from relaywarden_milter.hearing import Hearing
from testbed.process import wait_for


def test_words_are_heard_and_hold_while_the_store_is_away(tmp_path: Path) -> None:
    heard: list[Words] = []
    away: list[bool] = []
    path = tmp_path / "ledger.db"

    def connect() -> Ledger:
        if away:
            raise StoreUnavailableError("away")
        return SqliteLedger(path, timeout_ms=1000, ticket_ttl_ms=1000)

    ledger = SqliteLedger(path, timeout_ms=1000, ticket_ttl_ms=1000)
    away.append(True)
    hearing = Hearing(connect, heard.append, every=0.01)
    hearing.start()
    try:
        ledger.apply([steering.say("tenants", {"acme": {"divert": "score"}, "else": {"hold": "x"}})])
        assert not heard
        away.clear()
        wait_for("the first words", lambda: bool(heard) and "acme" in heard[-1].tenants)
        ledger.apply([steering.say("tenants", {"acme": None}), steering.say("selectors", {"a.example/k1": {"to": "k2"}})])
        wait_for("the second words", lambda: bool(heard[-1].selectors))
        assert heard[-1].tenants == {"else": {"hold": "x"}}  # entries change one by one
        assert heard[-1].now_ms > 0
    finally:
        hearing.close()
        ledger.close()
