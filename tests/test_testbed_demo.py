"""`make demo` shows what it promises: it judges itself, so its exit status is the test."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[1] / "contrib" / "demo" / "demo.py"


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(DEMO), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.postfix
def test_demo_is_as_it_should_be_and_can_be_kept_and_stopped() -> None:
    with tempfile.TemporaryDirectory(prefix="relaywarden-demo-test-", dir="/tmp") as work:
        kept = demo("--keep", "--work", work)
        stopped = demo("--stop", work)
        assert kept.returncode == 0, kept.stdout + kept.stderr
        assert "127.0.0.11" in kept.stdout
        assert "swaks --server" in kept.stdout
        assert stopped.returncode == 0
        assert stopped.stdout.startswith("stopped sidecar, postfix, rspamd, dns, sink.")
        assert demo("--stop", work).returncode == 1
