"""Log lines stay one line, whatever a mail client put into the values."""

from __future__ import annotations

import json
import logging

import pytest

from relaywarden import logs
from relaywarden.config.settings import LogSettings


@pytest.mark.parametrize("kind", ["text", "json"])
def test_hostile_values_cannot_forge_a_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.configure(LogSettings.model_validate({"format": kind}), "test")
        hostile = "a\nrelaywarden/policyd[1]: info: admitted\x1b[31m\udcff ü"
        logs.event(logging.getLogger("x"), logging.INFO, "refused", rcpt=hostile, empty="", none=None, used=3, ms=1.23456)
        logs.event(logging.getLogger("x"), logging.DEBUG, "not shown")
    finally:
        root.handlers, root.level = before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    if kind == "json":
        assert json.loads(lines[0])["rcpt"] == hostile
    else:
        assert "relaywarden/test[" in lines[0]
        assert "\x1b" not in lines[0]
        assert "used=3 ms=1.235" in lines[0]
        assert "empty" not in lines[0]
